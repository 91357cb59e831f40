"""merganser run over seeds, with samples, validation parts, sweeps, several targets and
refinement: every number of results.json from its definition."""

import json
import math

import numpy
import pytest
import tiny_experiment
from command import run
from safetensors.numpy import load_file
from tiny_experiment import SETS, YAML

pytestmark = pytest.mark.slow

SEEDS = [4, 7]
EDITS = {
    "seed: 3\n": f"seeds: {SEEDS}\nvalidation: 0.25\n",
    "{train: amazon-train.jsonl,": "{limit_train: 60, train: amazon-train.jsonl,",
    "test: nyt-test.jsonl}": "test: nyt-test.jsonl, limit_test: 25}",
    "target: {epochs: 1}": "target: {epochs: 1}\ntargets:\n"
    "  without_movie: {data: [amazon, nyt], epochs: 1}",
    "weight: 0.5}": "weight: 1}\n"
    "  - {name: best, method: task_arithmetic, weight: {sweep: [0.25, 0.5, 2]},"
    " choose: loss}",
    "output:": "refine:\n  - {name: refined, from: best, steps: 2, limit: 40}\n"
    "  - {name: prior, from: best, steps: 1, limit: 40, base: fisher,"
    " targets: predictions}\noutput:",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("statistics")
    path = tiny_experiment.make(folder)
    text = YAML
    for old, new in EDITS.items():
        assert old in text
        text = text.replace(old, new, 1)
    path.write_text(text)
    done = run("run", path, folder / "out")
    (folder / "stdout").write_text(done.stdout)
    return folder


def results(out):
    return json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def common(folder):
    return results(folder / "out")


@pytest.fixture(scope="module")
def seeds(folder):
    return [folder / "out" / "seeds" / str(seed) for seed in SEEDS]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def predictions(out, model):
    return load_file(out / "evaluations" / f"{model}.safetensors")


def test_samples_are_disjoint_random_parts_of_the_files(folder, seeds):
    for out in seeds:
        for name in SETS:
            parts = {
                p: lines(out / "data" / name / f"{p}.jsonl")
                for p in ("train", "validation")
            }
            whole = lines(folder / f"{name}-train.jsonl")
            assert len(parts["validation"]) == 32
            assert len(parts["train"]) == (60 if name == "amazon" else 96)
            following = iter(whole)
            assert all(row in following for row in parts["train"])  # in this order
            assert parts["train"] != whole[: len(parts["train"])]
            rest = list(whole)
            for row in parts["train"] + parts["validation"]:
                rest.remove(row)  # each row of the file is in one part at most
        assert len(lines(out / "data" / "nyt" / "test.jsonl")) == 25
        assert not (out / "data" / "movie" / "test.jsonl").exists()
    samples = [(out / "data" / "nyt" / "train.jsonl").read_bytes() for out in seeds]
    assert samples[0] != samples[1]


def test_fishers_see_the_sample(seeds):
    from merganser import FisherResult

    fisher = FisherResult.load(seeds[0] / "fishers" / "amazon.safetensors")
    assert (fisher.num_examples, fisher.num_examples_used) == (60, 20)


def test_rows_have_their_kinds(common):
    kinds = {m["name"]: m["kind"] for m in common["models"]}
    assert kinds["target"] == kinds["without_movie"] == "target"
    assert kinds["refined"] == "refined"
    assert kinds["best"] == "merge"


def test_scores_follow_from_the_predictions(folder, seeds):
    for out in seeds:
        for model in results(out)["models"]:
            found = predictions(out, model["name"])
            for name, stated in model["sets"].items():
                p, labels = found[name], found[f"{name}.labels"]
                limited = out / "data" / name / "test.jsonl"
                file = limited if limited.exists() else folder / f"{name}-test.jsonl"
                assert labels.tolist() == [row["label"] for row in lines(file)]
                p = p.astype(numpy.float64)
                top, hits = p.max(1), p.argmax(1) == labels
                assert stated["examples"] == len(labels)
                assert stated["accuracy"] == pytest.approx(hits.mean())
                loss = -numpy.log(p[numpy.arange(len(labels)), labels]).mean()
                assert stated["loss"] == pytest.approx(loss, rel=1e-5)
                error = 0
                for m in range(15):
                    inside = (top > m / 15) & (top <= (m + 1) / 15)
                    if inside.any():
                        gap = hits[inside].mean() - top[inside].mean()
                        error += abs(gap) * inside.mean()
                assert stated["calibration_error"] == pytest.approx(error, abs=1e-6)


def test_means_and_standard_errors_over_seeds(common, seeds):
    all_seeds = [results(out)["models"] for out in seeds]
    for i, model in enumerate(common["models"]):
        rows = [models[i] for models in all_seeds]
        assert all(row["name"] == model["name"] for row in rows)
        for stated, error, values in (
            (
                model["average"],
                model["standard_error"]["average"],
                [row["average"] for row in rows],
            ),
            (
                model["sets"]["nyt"],
                model["standard_error"]["sets"]["nyt"],
                [row["sets"]["nyt"] for row in rows],
            ),
        ):
            for key in ("accuracy", "loss", "calibration_error"):
                x = numpy.array([value[key] for value in values])
                assert stated[key] == pytest.approx(x.mean())
                sem = x.std(ddof=1) / math.sqrt(len(x))
                assert error[key] == pytest.approx(sem, abs=1e-12)


def test_share_of_gap(common, seeds):
    for found in (common, *(results(out) for out in seeds)):
        accuracy = {m["name"]: m["average"]["accuracy"] for m in found["models"]}
        assert found["gap"] == {"from": "task_arithmetic", "to": "target"}
        low, high = accuracy["task_arithmetic"], accuracy["target"]
        for model in found["models"]:
            share = (accuracy[model["name"]] - low) / (high - low)
            assert model["share_of_gap"] == pytest.approx(share)


def test_retained_accuracy(common, seeds):
    for found in (common, *(results(out) for out in seeds)):
        kept = {m["name"]: m["sets"]["movie"]["accuracy"] for m in found["models"]}
        assert found["base_data"] == "movie"
        for model in found["models"]:
            share = kept[model["name"]] / kept["base"]
            assert model["retained"] == pytest.approx(share)


def mcnemar(b, c):
    tail = sum(math.comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c)
    return min(1, 2 * tail)


def correctness(outs, model):
    """Per set: 1 where the model is right, and the losses, of all seeds."""
    found = {}
    for name in SETS:
        hits, losses = [], []
        for out in outs:
            data = predictions(out, model)
            p, labels = data[name].astype(numpy.float64), data[f"{name}.labels"]
            hits.append(p.argmax(1) == labels)
            losses.append(-numpy.log(p[numpy.arange(len(labels)), labels]))
        found[name] = numpy.concatenate(hits), numpy.concatenate(losses)
    return found


def texts(outs, name, examples):
    """The number of each example's text, in all seeds: two may have drawn the same."""
    if not (outs[0] / "data" / name / "test.jsonl").exists():
        return numpy.tile(numpy.arange(examples // len(outs)), len(outs))
    found = []
    for out in outs:
        sample = (out / "data" / name / "test.jsonl").read_text().splitlines()
        found += sample if len(outs) > 1 else range(len(sample))
    return numpy.unique(found, return_inverse=True)[1]


def check_bootstrap(stated, observed, resampled):
    assert stated["difference"] == pytest.approx(observed, abs=1e-12)
    low, high = numpy.quantile(resampled, [0.025, 0.975])
    assert stated["low"] == pytest.approx(low, abs=0.012)
    assert stated["high"] == pytest.approx(high, abs=0.012)
    p = 2 * min((resampled <= 1e-12).mean(), (resampled >= -1e-12).mean())
    assert stated["p"] == pytest.approx(min(1, p), abs=0.04)


@pytest.mark.parametrize("pooled", [False, True], ids=["one seed", "seeds"])
def test_comparisons_are_paired_statistics(common, seeds, pooled):
    outs = seeds if pooled else seeds[:1]
    found = common if pooled else results(seeds[0])
    names = [m["name"] for m in found["models"]]
    pairs = [(c["a"], c["b"]) for c in found["comparisons"]]
    assert pairs == [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    random = numpy.random.default_rng(1)
    for stated in found["comparisons"][:: len(pairs) // 6]:
        a, b = correctness(outs, stated["a"]), correctness(outs, stated["b"])
        averages, counts, losses, variance = [], [], [], 0
        resampled_averages = resampled_counts = resampled_examples = 0
        for name in SETS:
            unit = texts(outs, name, len(a[name][0]))
            d = a[name][0].astype(int) - b[name][0].astype(int)
            more = numpy.bincount(unit, d)
            size = numpy.bincount(unit)
            only = {"only_a": int((more > 0).sum()), "only_b": int((more < 0).sum())}
            p = mcnemar(only["only_a"], only["only_b"])
            assert stated["sets"][name] == {**only, "mcnemar_p": pytest.approx(p)}
            averages.append(d.mean())
            counts.append(d.sum())
            difference = a[name][1] - b[name][1]
            losses.append(difference.mean())
            sums = numpy.bincount(unit, difference - difference.mean())
            n = len(size)
            variance += n / (n - 1) * (sums**2).sum() / len(d) ** 2
            drawn = random.integers(0, n, (10000, n))
            more, size = more[drawn].sum(1), size[drawn].sum(1)
            resampled_averages = resampled_averages + more / size / len(SETS)
            resampled_counts = resampled_counts + more
            resampled_examples = resampled_examples + size
        examples = sum(len(a[name][0]) for name in SETS)
        check_bootstrap(stated["average"], numpy.mean(averages), resampled_averages)
        check_bootstrap(
            stated["accuracy_over_examples"],
            sum(counts) / examples,
            resampled_counts / resampled_examples,
        )
        assert stated["loss"]["difference"] == pytest.approx(
            numpy.mean(losses), abs=1e-6
        )
        error = math.sqrt(variance) / len(SETS)
        assert stated["loss"]["standard_error"] == pytest.approx(error, rel=1e-4)


def test_sweep_chooses_on_the_validation_parts(seeds, common, tmp_path):
    chosen = []
    for out in seeds:
        (sweep,) = results(out)["sweeps"]
        assert (sweep["name"], sweep["method"]) == ("best", "task_arithmetic")
        assert sweep["parameter"] == "weight"
        assert [v["value"] for v in sweep["values"]] == [0.25, 0.5, 2]
        best = min(sweep["values"], key=lambda v: v["average"]["loss"])
        assert sweep["chosen"] == best["value"]
        chosen.append(best["value"])
        files = [out / "data" / name / "validation.jsonl" for name in SETS]
        done = run("eval", "--model", out / "merges/best/model", "--data", *files,
                   "--max-length", 12, "--json", "--quiet")  # fmt: skip
        losses = [row["loss"] for row in json.loads(done.stdout)]
        assert best["average"]["loss"] == pytest.approx(numpy.mean(losses), rel=1e-6)
        assert sorted(p.name for p in (out / "sweeps/best").iterdir()) == [
            "0.25.json",
            "0.5.json",
            "2.json",
        ]
    assert common["sweeps"][0]["chosen"] == chosen


def test_refinement_has_its_steps(seeds):
    for out in seeds:
        for name, found in zip(REFINED, results(out)["refinements"], strict=True):
            written = json.loads((out / f"refinements/{name}/refine.json").read_text())
            assert found == {"name": name, **written}
            held_out = [step["held_out"] for step in found["steps"]]
            assert min(held_out) <= held_out[0]
            row = next(m for m in results(out)["models"] if m["name"] == name)
            assert row["path"] == f"refinements/{name}"


REFINED = {  # name: names of the tasks' models, options of the command
    "refined": (["amazon", "nyt", "base"], ["--steps", 2]),
    "prior": (["amazon", "nyt"], ["--steps", 1, "--targets", "predictions"]),
}


@pytest.mark.parametrize("name", REFINED)
def test_refinement_is_that_of_the_command(seeds, tmp_path, name):
    """By default the base's data are a task, with the base as its expert."""
    out, (tasks, options) = seeds[0], REFINED[name]
    arguments = ["--base", out / "models/base", "--model", out / "merges/best/model"]
    for model in tasks:
        data = {"base": "movie"}.get(model, model)
        arguments += ["--expert", out / "models" / model]
        arguments += ["--data", out / "data" / data / "train.jsonl"]
        arguments += ["--fisher", out / f"fishers/{model}.safetensors"]
    if "base" not in tasks:
        arguments += ["--base-fisher", out / "fishers/base.safetensors"]
    arguments += ["--limit", 40, "--seed", SEEDS[0], "--max-length", 12]
    run("refine", *arguments, *options, "--out", tmp_path / "out")
    file = "model.safetensors"
    same = out / "refinements" / name / file
    assert (tmp_path / "out" / file).read_bytes() == same.read_bytes()


def test_next_run_is_cached_and_says_the_same(folder):
    done = run("run", folder / "experiment.yaml", folder / "out")
    assert " done in" not in done.stderr
    assert "seed 7: train base" in done.stderr
    assert done.stdout == (folder / "stdout").read_text()


def test_a_seed_is_an_experiment_of_its_own(folder, tmp_path):
    text = (
        (folder / "experiment.yaml").read_text().replace(f"seeds: {SEEDS}", "seed: 4")
    )
    (folder / "one.yaml").write_text(text)
    run("run", folder / "one.yaml", tmp_path / "out")
    for model in results(tmp_path / "out")["models"]:
        path = f"{model['path']}/model.safetensors"
        same = folder / "out/seeds/4" / path
        assert (tmp_path / "out" / path).read_bytes() == same.read_bytes()


BAD = {
    "sweep without validation": (
        "validation: 0.25\n", "", "add the key 'validation'"),
    "two sweeps": (
        "choose: loss}",
        "choose: loss, parameters: {lambda: {sweep: [1, 2, 3]}}}",
        "expected one sweep"),
    "choice without sweep": (
        "method: linear}", "method: linear, choose: loss}", "has none"),
    "unknown choice": ("choose: loss", "choose: luck", "accuracy or loss, got 'luck'"),
    "value twice": ("[0.25, 0.5, 2]", "[0.25, 0.25]", "given twice"),
    "seed and seeds": ("seeds:", "seed: 1\nseeds:", "mutually exclusive"),
    "seed twice": ("[4, 7]", "[4, 4]", "given twice"),
    "no share": ("validation: 0.25", "validation: 1.5", "an integer"),
    "refine nothing": ("from: best", "from: worst", "unknown model 'worst'"),
    "refine with": ("base: fisher", "base: gram", "data or fisher, got 'gram'"),
    "target of an expert": ("without_movie:", "amazon:", "another model"),
    "set of labels": ("  movie: {train", "  x.labels: {train", "prediction files"),
}  # fmt: skip


@pytest.mark.parametrize("old, new, message", BAD.values(), ids=BAD)
def test_bad_settings(folder, tmp_path, old, new, message):
    text = (folder / "experiment.yaml").read_text()
    assert old in text
    (folder / "bad.yaml").write_text(text.replace(old, new, 1))
    done = run("run", folder / "bad.yaml", tmp_path / "out", check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert message in done.stderr


def test_validation_part_larger_than_the_file(folder, tmp_path):
    text = (folder / "experiment.yaml").read_text()
    (folder / "bad.yaml").write_text(text.replace("0.25", "128", 1))
    done = run("run", folder / "bad.yaml", tmp_path / "out", check=False)
    assert done.returncode == 2
    assert "128 of 128" in done.stderr
