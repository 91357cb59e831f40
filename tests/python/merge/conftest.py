"""Models that the tests of merges share."""

import pytest
from merge_inputs import make_models


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    make_models(folder, num_hidden_layers=4, hidden_size=32)
    return folder
