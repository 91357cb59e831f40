"""merganser run reports errors in an experiment with file, line and column, before
training."""

import pytest
import tiny_experiment
from command import run
from tiny_experiment import YAML


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("errors")
    tiny_experiment.make(folder)
    return folder


# Text to replace in the YAML file, its replacement, and text in the message. The
# reported position is that of MARK in the replacement.
MARK = "¦"
CASES = {
    "unknown key": ("seed: 3", f"{MARK}sead: 3", "unknown key 'sead'"),
    "unknown training key": ("lr: 0.003", f"{MARK}rate: 0.003", "unknown key 'rate'"),
    "unknown merge key": ("weight: 0.5", f"{MARK}wait: 0.5", "unknown key 'wait'"),
    "unknown parameter": ("delta: 1.0e-10", f"{MARK}dalte: 1", "unknown key 'dalte'"),
    "key given twice": ("seed: 3", f"seed: 3\n{MARK}seed: 4", "duplicate key"),
    "missing key": (YAML, f"{MARK}seed: 1\n", "'encoder' is missing"),
    "not YAML": ("seed: 3", f"seed: {MARK}]", "invalid YAML"),
    "text for a number": ("limit: 20", f"limit: {MARK}many", "'many'"),
    "fraction for a count": ("limit: 20", f"limit: {MARK}2.5", "an integer"),
    "list for a number": ("seed: 3", f"seed: {MARK}[3]", "a list"),
    "text for a mapping": ("target: {epochs: 1}", f"target: {MARK}yes", "a mapping"),
    "negative rate": ("lr: 0.003", f"lr: {MARK}-1", "at least 0"),
    "too many epochs": ("epochs: 8", f"epochs: {MARK}1e18", "at most 1000000"),
    "no epochs": ("epochs: 8", f"epochs: {MARK}0", "greater than 0"),
    "linearized, as text": (
        "{epochs: 1}",
        f"{{epochs: 1, linearized: {MARK}some}}",
        "'some'",
    ),
    "linearized with dropout": (
        "{epochs: 1}",
        f"{MARK}{{linearized: true, dropout: 0.1}}",
        "linearized training has no dropout: dropout must be 0, got 0.1",
    ),
    "unknown dtype": ("seed: 3", f"dtype: {MARK}float16", "float32 or bfloat16"),
    "unknown schedule": (
        "lr: 0.003",
        f"scheduler: {MARK}step",
        "constant, linear or cosine",
    ),
    "unknown estimator": ("limit: 20", f"estimator: {MARK}fast", "empirical"),
    "one example for statistics of task vectors": (
        "fisher: {limit: 20}\nmerges:",
        f"fisher: {{limit: {MARK}1}}\nmerges:\n"
        "  - {name: measured, method: measured_gradient_matching}",
        "merge 'measured' needs at least 2 examples, got 1",
    ),
    "unknown storage": ("limit: 20", f"storage: {MARK}int4", "factored"),
    "unknown method": ("method: linear", f"method: {MARK}mean", "task_arithmetic"),
    "unknown expert": (
        "{amazon: 1, nyt",
        f"{{{MARK}yelp: 1, nyt",
        "unknown key 'yelp'",
    ),
    "expert without weight": (
        "{amazon: 1, nyt: 0.5}",
        f"{MARK}{{amazon: 1}}",
        "'nyt' is missing",
    ),
    "unknown expert of a merge": (
        "weight: 0.5",
        f"experts: [{MARK}movie]",
        "unknown expert 'movie'",
    ),
    "expert of a merge twice": (
        "weight: 0.5",
        f"experts: [nyt, {MARK}nyt]",
        "'nyt' is given twice",
    ),
    "merge of no expert": ("weight: 0.5", f"experts: {MARK}[]", "empty"),
    "weight of another expert": (
        "weight: {amazon: 1, nyt: 0.5}",
        f"experts: [nyt], weight: {{{MARK}amazon: 1, nyt: 0.5}}",
        "unknown key 'amazon'",
    ),
    "negative weight": ("nyt: 0.5", f"nyt: {MARK}-0.5", "at least 0"),
    "ewr without weight": (
        "{name: task_arithmetic, method: task_arithmetic, weight: 0.5}",
        f"{MARK}{{name: ewr, method: ewr}}",
        "needs the parameter weight",
    ),
    "weights of 0": (
        "{name: task_arithmetic, method: task_arithmetic, weight: 0.5}",
        f"{MARK}{{name: zero, method: linear, weight: 0}}",
        "must not sum to 0",
    ),
    "unknown data set": ("data: movie,", f"data: {MARK}film,", "data set 'film'"),
    "data set twice": ("[amazon, nyt]", f"[amazon, {MARK}amazon]", "given twice"),
    "missing data": ("nyt-test", f"{MARK}nyt-toast", "nyt-toast.jsonl"),
    "missing encoder": ("encoder: encoder", f"encoder: {MARK}coder", "coder"),
    "hostile name": ("name: linear", f"name: {MARK}../up", "'../up'"),
    "name of a partial": ("name: linear", f"name: {MARK}x.partial", "'.partial'"),
    "reserved name": ("name: linear", f"name: {MARK}target", "'target'"),
    "name given twice": ("name: fisher,", f"name: {MARK}linear,", "'linear'"),
    "unknown output": ("output: g", f"output: {MARK}wrong_g", "unknown merge"),
}


@pytest.mark.slow
@pytest.mark.parametrize("old, new, message", CASES.values(), ids=CASES)
def test_bad_experiment(folder, old, new, message):
    assert old in YAML
    text = YAML.replace(old, new, 1)
    lines = text[: text.index(MARK)].split("\n")
    place = f"{len(lines)}:{len(lines[-1]) + 1}"
    path = folder / "bad.yaml"
    path.write_text(text.replace(MARK, ""))
    done = run("run", path, folder / "out", check=False)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert f"{path}:{place}: " in done.stderr
    assert message in done.stderr
    assert not (folder / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "line, message",
    [
        ('{"text": "w1", "label": 2}', "label"),
        ('{"text": "w1"}', "label"),
        ("nothing", "JSON"),
    ],
)
def test_bad_data_are_found_before_training(tmp_path, line, message):
    path = tiny_experiment.make(tmp_path)
    with open(tmp_path / "nyt-test.jsonl", "a") as file:
        file.write(line + "\n")
    done = run("run", path, tmp_path / "out", check=False)
    assert done.returncode == 2
    assert "nyt-test.jsonl:41" in done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out" / "models").exists()


@pytest.mark.slow
def test_missing_experiment(tmp_path):
    done = run("run", tmp_path / "none.yaml", tmp_path / "out", check=False)
    assert done.returncode == 2
    assert "none.yaml" in done.stderr
    assert not (tmp_path / "out").exists()
