"""merganser subspace and subspace_gradient_matching: the file against float64 loops
over examples, the merge against the solution of its linear system."""

import json
import shutil

import command
import merganser
import pytest
import torch
import training_inputs
import yaml
from merganser._objective.groups import group_names
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

TASKS = {"one": 80, "two": 70}
BASE = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A base with its data and two experts with theirs."""
    folder = tmp_path_factory.mktemp("subspace")
    training_inputs.make_bert(folder / "base")
    training_inputs.make_data(folder / "base.jsonl", BASE, 9)
    for seed, (name, count) in enumerate(TASKS.items()):
        data = training_inputs.make_data(folder / f"{name}.jsonl", count, seed)
        command.run(
            *("train", "--model", folder / "base", "--train", data, "-q"),
            *("--out", folder / name, "--max-length", "24", "--lr", "0.003"),
        )
    estimate(folder, folder / "subspace.safetensors")
    return folder


def arguments(folder, out, *more):
    yield from ("subspace", "--base", folder / "base", "--max-length", "24", "-q")
    yield from ("--base-data", folder / "base.jsonl", "--out", out)
    for name in TASKS:
        yield from ("--expert", folder / name, "--data", folder / f"{name}.jsonl")
    yield from more


def estimate(folder, out, *more):
    command.run(*arguments(folder, out, *more))
    return load_file(out)


def recipe(folder, path, **changes):
    given = {
        "merge_method": "subspace_gradient_matching",
        "base_model": str(folder / "base"),
        "subspace": str(folder / "subspace.safetensors"),
        "models": [{"model": str(folder / name)} for name in TASKS],
        **changes,
    }
    path.write_text(yaml.safe_dump(given))
    return path


def parameters(path):
    return {name: t.double() for name, t in load_file(path).items()}


def task_vectors(folder):
    base = parameters(folder / "base" / "model.safetensors")
    experts = [parameters(folder / name / "model.safetensors") for name in TASKS]
    return base, [{n: e[n] - base[n] for n in base} for e in experts]


def columns_of(folder, taus):
    """The columns tau_tg in the order of the file."""
    with safe_open(folder / "subspace.safetensors", "pt") as file:
        groups = json.loads(file.metadata()["subspace"])["groups"]
    expected = group_names(taus[0], "block")
    for group in groups:
        assert len({expected[tensor] for tensor in group["tensors"]}) == 1
    assert len(groups) == len(set(expected.values()))
    return [
        {n: x if n in group["tensors"] else torch.zeros_like(x) for n, x in tau.items()}
        for tau in taus
        for group in groups
    ]


def loop(folder, weights, data, columns):
    """Sums over the examples of P^T F_i P and P^T g_i, one example at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(folder / "base")
    model = model.double().eval()
    model.load_state_dict(weights, strict=False)
    tokenizer = AutoTokenizer.from_pretrained(folder / "base")
    trained = dict(model.named_parameters())
    fisher, gradient = 0, 0
    for line in (folder / f"{data}.jsonl").read_text().splitlines():
        example = json.loads(line)
        inputs = tokenizer(
            example["text"], truncation=True, max_length=24, return_tensors="pt"
        )
        logits = model(**inputs).logits[0]
        rows = []
        for logit in logits:
            grads = torch.autograd.grad(
                logit, list(trained.values()), retain_graph=True, allow_unused=True
            )
            of = dict(zip(trained, grads, strict=True))
            rows.append(
                torch.stack(
                    [
                        sum((of[n] * c[n]).sum() for n in of if of[n] is not None)
                        for c in columns
                    ]
                )
            )
        jacobian = torch.stack(rows)
        p = logits.detach().softmax(0)
        fisher += jacobian.T @ (torch.diag(p) - torch.outer(p, p)) @ jacobian
        label = torch.zeros_like(p)
        label[example["label"]] = 1
        gradient += jacobian.T @ (p - label)
    return fisher, gradient


@pytest.mark.slow
def test_file_equals_a_loop_over_examples(folder, tmp_path):
    base, taus = task_vectors(folder)
    columns = columns_of(folder, taus)
    alone = estimate(folder, tmp_path / "alone.safetensors", "--points", "1")
    both = load_file(folder / "subspace.safetensors")
    mean = {n: base[n] + sum(tau[n] for tau in taus) / 2 for n in base}
    for t, (name, tau) in enumerate(zip(TASKS, taus, strict=True)):
        expert = {n: base[n] + tau[n] for n in base}
        fisher, gradient = loop(folder, expert, name, columns)
        torch.testing.assert_close(
            alone[f"experts.{t}.fisher"].sum(0), fisher, rtol=1e-3, atol=1e-4
        )
        for file in (alone, both):
            torch.testing.assert_close(
                file[f"experts.{t}.gradient"].sum(0), gradient, rtol=1e-3, atol=1e-4
            )
        at_mean, _ = loop(folder, mean, name, columns)
        torch.testing.assert_close(
            both[f"experts.{t}.fisher"].sum(0),
            (fisher + at_mean) / 2,
            rtol=1e-3,
            atol=1e-4,
        )
    fisher, _ = loop(folder, base, "base", columns)
    found = alone["base.fisher"].sum(0)
    torch.testing.assert_close(found, fisher, rtol=1e-3, atol=1e-4)


def solve(file, shrink, models):
    """The weights (models, G) that the method defines, from all folds; models beyond
    the tasks are directions."""
    width = file["base.fisher"].shape[-1]
    a = BASE * file["base.fisher"].sum(0) / BASE
    b = torch.zeros(width, dtype=torch.float64)
    for t in range(len(TASKS)):  # N equals the number of examples used
        h = file[f"experts.{t}.fisher"].sum(0)
        own = torch.zeros(width, dtype=torch.float64)
        own[t * width // models : (t + 1) * width // models] = 1
        a += h
        b += h @ own - file[f"experts.{t}.gradient"].sum(0)
    a = (1 - shrink) * a + shrink * torch.diag(a.diagonal())
    return torch.linalg.solve(a, b).view(models, -1)


@pytest.mark.parametrize("shrink", [0.1, 1])
def test_merge_equals_the_solution(folder, tmp_path, shrink):
    path = recipe(folder, tmp_path / "r.yaml", parameters={"shrink": shrink})
    command.run("merge", path, tmp_path / "out", "-q")
    base, taus = task_vectors(folder)
    file = load_file(folder / "subspace.safetensors")
    weights = solve(file, shrink, models=len(TASKS)).flatten()
    columns = columns_of(folder, taus)
    merged = parameters(tmp_path / "out" / "model.safetensors")
    for name, theta in base.items():
        step = sum(w * c[name] for w, c in zip(weights, columns, strict=True))
        torch.testing.assert_close(merged[name], theta + step, rtol=1e-4, atol=1e-5)


def test_plan_says_what_was_chosen(folder, tmp_path):
    path = recipe(folder, tmp_path / "r.yaml", parameters={"shrink": 0.1})
    done = command.run("plan", path)
    (note,) = (n for n in done.stdout.splitlines() if "shrink" in n)
    weights = solve(load_file(folder / "subspace.safetensors"), 0.1, len(TASKS))
    largest = weights.flatten()[weights.abs().argmax()]
    of = list(TASKS)[weights.abs().argmax() // weights.shape[1]]
    assert f"by cross-validation; largest weight {largest:.3g}, of {of} in" in note
    path = tmp_path / "sweep.yaml"
    recipe(folder, path, parameters={"weight": {"sweep": [0.5, 1]}})
    done = command.run("plan", path)
    assert done.stdout.count("by cross-validation") == 2


def test_the_file_is_part_of_the_merge(folder, tmp_path):
    command.run("merge", recipe(folder, tmp_path / "r.yaml"), tmp_path / "out", "-q")
    record = json.loads((tmp_path / "out" / "merganser.json").read_text())
    paths = [entry["path"] for entry in record["inputs"]]
    assert str(folder / "subspace.safetensors") in paths


def test_one_expert_of_the_file(folder, tmp_path):
    """Its columns alone, in any order of the recipe."""
    models = [{"model": str(folder / "two")}]
    path = recipe(folder, tmp_path / "r.yaml", models=models)
    done = command.run("plan", path)
    assert "of two in" in done.stdout


def test_two_equal_experts_share_their_weight(folder, tmp_path):
    """Their columns depend on one another; their merge is that of one of them with
    twice the weight."""
    shutil.copytree(folder / "one", tmp_path / "twin")
    given = tmp_path / "s.safetensors"
    command.run(
        *("subspace", "--base", folder / "base", "--max-length", "24", "-q"),
        *("--base-data", folder / "base.jsonl", "--out", given),
        *("--expert", folder / "one", "--data", folder / "one.jsonl"),
        *("--expert", tmp_path / "twin", "--data", folder / "one.jsonl"),
    )
    merged = {}
    one = {"model": str(folder / "one")}
    twice = one | {"parameters": {"weight": 2}}
    for name, models in {
        "twins": [one, {"model": str(tmp_path / "twin")}],
        "twice": [twice],
    }.items():
        options = {"subspace": str(given), "parameters": {"shrink": 0}}
        path = recipe(folder, tmp_path / f"{name}.yaml", models=models, **options)
        command.run("merge", path, tmp_path / name, "-q")
        merged[name] = parameters(tmp_path / name / "model.safetensors")
    for name, tensor in merged["twice"].items():
        torch.testing.assert_close(merged["twins"][name], tensor, rtol=1e-3, atol=1e-4)


def test_of_other_groups(folder, tmp_path):
    """A file that lacks a tensor in which the models differ."""
    path = folder / "subspace.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    subspace = json.loads(metadata["subspace"])
    lacking = subspace["groups"][0]["tensors"].pop()
    metadata["subspace"] = json.dumps(subspace)
    save_file(load_file(path), tmp_path / "s.safetensors", metadata)
    given = str(tmp_path / "s.safetensors")
    done = command.run(
        "plan", recipe(folder, tmp_path / "r.yaml", subspace=given), check=False
    )
    assert done.returncode == 2
    assert f"lacks tensor '{lacking}', which differs between" in done.stderr


REFUSED = [
    ({"subspace": None}, "needs subspace"),
    ({"heads": "base"}, "expects whole models and heads: merge"),
    ({"parameters": {"weight": [0, 1]}}, "expects one weight for all tensors"),
    ({"parameters": {"shrink": 1.5}}, "shrink"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_bad_recipes(folder, tmp_path, changes, message):
    path = recipe(folder, tmp_path / "r.yaml", **changes)
    done = command.run("merge", path, tmp_path / "out", check=False)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_statistics_of_other_models(folder, tmp_path):
    swapped = {"base_model": str(folder / "one")}
    models = [{"model": str(folder / "two")}]
    path = recipe(folder, tmp_path / "base.yaml", **swapped, models=models)
    done = command.run("plan", path, check=False)
    assert done.returncode == 2
    assert "was estimated with another base" in done.stderr
    other = shutil.copytree(folder / "one", tmp_path / "other")
    changed = load_file(other / "model.safetensors")
    changed["classifier.bias"] += 1
    save_file(changed, other / "model.safetensors", {"format": "pt"})
    models = [{"model": str(tmp_path / "other")}]
    path = recipe(folder, tmp_path / "expert.yaml", models=models)
    done = command.run("plan", path, check=False)
    assert done.returncode == 2
    assert "has no Fisher of" in done.stderr
    fisher = tmp_path / "fisher.safetensors"
    command.run(
        *("fisher", "--model", folder / "one", "--data", folder / "one.jsonl"),
        *("--out", fisher, "--limit", "4", "--max-length", "24", "-q"),
    )
    path = recipe(folder, tmp_path / "kind.yaml", subspace=str(fisher))
    done = command.run("plan", path, check=False)
    assert done.returncode == 2
    assert "expected a subspace Fisher" in done.stderr


@pytest.mark.slow
def test_bad_options(folder, tmp_path):
    out = tmp_path / "out.safetensors"
    for more, message in [
        (("--limit", "1"), "expected at least"),
        (("--points", "0"), "expected at least one point, got 0"),
        (("--groups", "layer"), "layer"),
        (("--data", folder / "one.jsonl"), "expected --data once per expert, got 3"),
    ]:
        done = command.run(*arguments(folder, out, *more), check=False)
        assert done.returncode == 2, more
        assert message in done.stderr
        assert not out.exists()
    for refused, message in [
        (folder / "one" / "model.safetensors", "exists and is not a subspace Fisher"),
        (tmp_path / "out.bin", "must end in .safetensors"),
        (folder / "one.jsonl" / "out.safetensors", "cannot create directory"),
    ]:
        done = command.run(*arguments(folder, refused), check=False)
        assert done.returncode == 2
        assert message in done.stderr
    with safe_open(folder / "one" / "model.safetensors", "pt") as file:
        assert file.keys()


@pytest.mark.slow
def test_data_sets_with_few_examples(folder, tmp_path):
    """Losses may have different numbers of folds."""
    lines = (folder / "base.jsonl").read_text().splitlines()[:4]
    few = tmp_path / "few.jsonl"
    few.write_text("\n".join(lines) + "\n")
    out = tmp_path / "few.safetensors"
    command.run(
        *("subspace", "--base", folder / "base", "--base-data", few, "-q"),
        *("--expert", folder / "one", "--data", folder / "one.jsonl"),
        *("--max-length", "24", "--out", out),
    )
    found = load_file(out)
    assert len(found["base.fisher"]) == 4
    assert len(found["experts.0.fisher"]) == 10
    models = [{"model": str(folder / "one")}]
    path = recipe(folder, tmp_path / "r.yaml", subspace=str(out), models=models)
    command.run("merge", path, tmp_path / "out", "-q")


@pytest.mark.parametrize("damage", ["counts", "groups", "twice"])
def test_damaged_files(folder, tmp_path, damage):
    with safe_open(folder / "subspace.safetensors", "pt") as file:
        metadata = file.metadata()
    content = json.loads(metadata["subspace"])
    if damage == "counts":
        content["experts"][0]["counts"][0] = 0
    elif damage == "groups":
        content["groups"] = []
    else:
        content["groups"][0]["tensors"] += content["groups"][1]["tensors"][:1]
    metadata["subspace"] = json.dumps(content)
    out = tmp_path / "damaged.safetensors"
    save_file(load_file(folder / "subspace.safetensors"), out, metadata)
    path = recipe(folder, tmp_path / "r.yaml", subspace=str(out))
    done = command.run("plan", path, check=False)
    assert done.returncode == 2
    assert "the metadata key 'subspace' is damaged" in done.stderr


def add_to_last(folder, tensor, value):
    file = folder / "model.safetensors"
    weights = load_file(file)
    assert weights[tensor].nbytes > 4096  # more than a plan hashes
    weights[tensor].view(-1)[-1] += value
    save_file(weights, file, {"format": "pt"})


@pytest.mark.slow
def test_full_hashes_are_checked(folder, tmp_path):
    """Weights that differ beyond what a plan reads are found by the merge."""
    table = "roberta.embeddings.word_embeddings.weight"
    base = training_inputs.make_roberta(tmp_path / "base")
    expert = shutil.copytree(base, tmp_path / "expert")
    weights = load_file(expert / "model.safetensors")
    for tensor in weights.values():
        tensor += 0.01
    save_file(weights, expert / "model.safetensors", {"format": "pt"})
    out = tmp_path / "subspace.safetensors"
    command.run(
        *("subspace", "--base", base, "--base-data", folder / "one.jsonl", "-q"),
        *("--expert", expert, "--data", folder / "two.jsonl"),
        *("--limit", "8", "--max-length", "24", "--out", out),
    )
    add_to_last(expert, table, 1)
    given = {"base_model": str(base), "subspace": str(out)}
    path = recipe(folder, tmp_path / "r.yaml", **given, models=[{"model": str(expert)}])
    assert command.run("plan", path, check=False).returncode == 0
    done = command.run("merge", path, tmp_path / "out", "-q", check=False)
    assert done.returncode == 2
    assert "estimate the subspace Fisher again" in done.stderr
    assert not (tmp_path / "out").exists()


def test_in_memory_it_needs_statistics(folder):
    load = AutoModelForSequenceClassification.from_pretrained
    base, one = load(folder / "base"), load(folder / "one")
    with pytest.raises(merganser.InputError, match="needs subspace, a SubspaceResult"):
        merganser.merge(base, [one], method="subspace_gradient_matching")
    tensor = torch.zeros(2)
    with pytest.raises(merganser.InputError, match="needs a recipe"):
        merganser.ops.merge(tensor, [tensor], method="subspace_gradient_matching")
    with pytest.raises(merganser.InputError, match="needs rhos"):
        merganser.ops.merge(
            tensor,
            [tensor],
            [tensor],
            method="measured_gradient_matching",
            base_fisher=tensor,
        )


def write_direction(folder, path):
    """A model that is in no span of the task vectors."""
    shutil.copytree(folder / "one", path)
    one = load_file(folder / "one" / "model.safetensors")
    torch.manual_seed(4)
    moved = {n: x + 0.02 * torch.randn_like(x) for n, x in one.items()}
    save_file(moved, path / "model.safetensors", {"format": "pt"})
    return path


@pytest.mark.slow
def test_directions_are_columns_without_a_loss(folder, tmp_path):
    direction = write_direction(folder, tmp_path / "direction")
    out = tmp_path / "subspace.safetensors"
    found = estimate(folder, out, "--direction", direction, "--points", "1")
    # The third expert would have the same columns.
    third = ("--expert", direction, "--data", folder / "one.jsonl", "--points", "1")
    whole = estimate(folder, tmp_path / "whole.safetensors", *third)
    assert whole.keys() - found.keys() == {"experts.2.fisher", "experts.2.gradient"}
    for name, x in found.items():
        torch.testing.assert_close(x, whole[name], rtol=1e-6, atol=1e-9)

    models = [{"model": str(folder / name)} for name in TASKS]
    models.append({"model": str(direction)})
    path = recipe(
        folder,
        tmp_path / "r.yaml",
        subspace=str(out),
        models=models,
        parameters={"shrink": 0},
    )
    command.run("merge", path, tmp_path / "out", "-q")
    v = solve(found, 0, models=3).flatten()
    base, taus = task_vectors(folder)
    last = parameters(direction / "model.safetensors")
    taus.append({n: last[n] - base[n] for n in base})
    of = columns_of(folder, taus)
    merged = parameters(tmp_path / "out" / "model.safetensors")
    for name, x in merged.items():
        expected = base[name] + sum(w * c[name] for w, c in zip(v, of, strict=True))
        torch.testing.assert_close(x, expected, rtol=1e-4, atol=1e-4)

    # plan says which model is a direction; the task vectors may also be merged alone.
    assert "direction" in command.run("plan", path).stdout.splitlines()[4:][2]
    few = recipe(folder, tmp_path / "few.yaml", subspace=str(out))
    command.run("plan", few)


@pytest.mark.slow
def test_a_direction_is_no_expert(folder, tmp_path):
    direction = write_direction(folder, tmp_path / "direction")
    out = tmp_path / "subspace.safetensors"
    estimate(folder, out, "--direction", direction)
    models = [{"model": str(folder / name)} for name in TASKS]
    weighted = {"model": str(direction), "parameters": {"weight": 0.5}}
    path = recipe(
        folder, tmp_path / "r.yaml", subspace=str(out), models=[*models, weighted]
    )
    done = command.run("plan", path, check=False)
    assert done.returncode == 2
    assert f"{direction} is a direction of the subspace Fisher" in done.stderr
    alone = recipe(
        folder,
        tmp_path / "alone.yaml",
        subspace=str(out),
        models=[{"model": str(direction)}],
    )
    done = command.run("plan", alone, check=False)
    assert done.returncode == 2 and "directions only" in done.stderr
    missing = ("--direction", tmp_path / "none")
    done = command.run(*arguments(folder, out, *missing), check=False)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{tmp_path}/none: " in done.stderr
