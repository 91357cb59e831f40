"""The experiments of examples/ are valid."""

import shutil

import pytest
import tiny_experiment
import yaml
from command import run
from repository import ROOT

EXPERIMENTS = sorted((ROOT / "examples").glob("*.yaml"))


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
