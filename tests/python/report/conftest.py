"""Reports on invented results: `full` has everything, `plain` nothing optional, `seeds`
the means of three seeds."""

import chromium
import pytest
import report_runs
from merganser.report import write_report

KINDS = {"full": {}, "plain": {"full": False}, "seeds": {"seeds": (0, 1, 2)}}


@pytest.fixture(scope="session")
def reports(tmp_path_factory):
    """A directory with an OUT, and its report.html, by name."""
    folder = tmp_path_factory.mktemp("reports")
    for name, options in KINDS.items():
        report_runs.make(folder / name, **options)
        write_report(folder / name)
    return folder


@pytest.fixture(scope="session")
def browser():
    if chromium.executable() is None:
        pytest.skip("no Chromium on the PATH")
    with chromium.browser() as opened:
        yield opened
