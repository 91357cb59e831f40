"""Fixtures of tests in process groups."""

import pytest
from torch import distributed


@pytest.fixture
def one():
    """The group of this process alone."""
    distributed.init_process_group(
        "gloo", store=distributed.HashStore(), rank=0, world_size=1
    )
    yield distributed.group.WORLD
    distributed.destroy_process_group()
