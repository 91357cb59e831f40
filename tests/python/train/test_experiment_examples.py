"""The experiments of examples/ are valid."""

import shutil

import pytest
import tiny_experiment
import yaml
from command import run
from repository import ROOT

EXPERIMENTS = sorted((ROOT / "examples").glob("*.yaml"))


def test_reference_hyperparameters():
    """Those of Daheim et al., arXiv 2310.12808, with roberta-base."""
    file = ROOT / "examples" / "imdb_plus_roberta.yaml"
    experiment = yaml.safe_load(file.read_text())
    training = experiment["training"]
    assert training == {
        "epochs": 1,
        "batch_size": 16,
        "scheduler": "cosine",
        "warmup": 100,
        "clip": 1,
        "weight_decay": 0,
    }
    assert float(experiment["base"]["lr"]) == 1e-5
    assert all(float(experiment[key]["lr"]) == 5e-6 for key in ("experts", "target"))
    assert experiment["max_length"] == 384
    assert experiment["base"]["data"] == "imdb"
    assert experiment["experts"]["data"] == ["yelp", "rt", "sst2", "amazon"]
    fisher = experiment["fisher"]
    assert (fisher["estimator"], fisher["batch_size"]) == ("mc", 1)
    assert "dtype" not in experiment | fisher  # float32
    merges = {merge["name"]: merge for merge in experiment["merges"]}
    assert float(merges["gradient_matching"]["parameters"]["delta"]) == 1e-12
    assert "weight" not in merges["gradient_matching"]  # 1


@pytest.mark.slow
@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_key_is_valid(path, tmp_path):
    """The seeds are read last: an error in them is the only one, with a small encoder
    and empty files in place of the data."""
    experiment = yaml.safe_load(path.read_text())
    examples = tmp_path / "examples"
    examples.mkdir()
    shutil.copy(path, examples)
    tiny_experiment.make(tmp_path)
    encoder = examples / experiment["encoder"]
    encoder.parent.mkdir()
    shutil.move(tmp_path / "encoder", encoder)
    for parts in experiment["data"].values():
        for part in ("train", "test"):
            file = examples / parts[part]
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    wrong = ["--set", "seed=null", "--set", "seeds=[7, 7]"]
    few = ["--set", "refine=null", "--set", "removal=null"]
    for options in (wrong, [*few, *wrong]):
        done = run("run", examples / path.name, tmp_path / "out", *options, check=False)
        assert done.returncode == 2
        assert done.stderr.strip().endswith("seed 7 is given twice")
