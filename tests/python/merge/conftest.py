"""Models that the tests of merges share."""

import tempfile

import pytest
from hub_models import Plans
from huggingface_hub import constants
from merge_inputs import make_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    make_models(folder, num_hidden_layers=4, hidden_size=32)
    return folder


@pytest.fixture
def connect(monkeypatch, tmp_path):
    """Directs the huggingface_hub of this process to a URL, with an empty cache."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")

    def to(url, offline=False):
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        monkeypatch.setattr(constants, "ENDPOINT", url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return to


@pytest.fixture
def case(folder, tmp_path, monkeypatch):
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    yield Plans(tmp_path, folder)
    assert list((tmp_path / "temporary").iterdir()) == []
    assert not (tmp_path / "cache").exists()
