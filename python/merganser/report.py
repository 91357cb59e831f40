"""The report on an experiment: figures and a page from what `merganser run` wrote.

    merganser report OUT
    python -m merganser.report OUT

reads OUT/results.json (and, if they exist, OUT/data.json and the class probabilities in
OUT/evaluations) and writes OUT/report.html, a page that needs no other file. Each
figure is a function here that returns a matplotlib Figure, and writes it to an image
file if `path` is given. Needs matplotlib.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from ._C import InputError
from ._common.parser import Parser
from .comparison import rank_correlation

try:
    from ._report.accuracy import plot_accuracy
    from ._report.mismatch import plot_growing, plot_mismatch
    from ._report.outcome import Outcome
    from ._report.page import render
    from ._report.refinement import plot_refinement
    from ._report.reliability import plot_reliability, reliability
    from ._report.sweeps import plot_sweeps
except ImportError as error:
    if error.name in ("matplotlib", "jinja2", "numpy"):
        message = f"reports need {error.name}: pip install {error.name}"
        if __name__ == "__main__":
            sys.exit(f"merganser: {message}")
        raise ImportError(message, name=error.name) from None
    raise

__all__ = [
    "plot_accuracy",
    "plot_growing",
    "plot_mismatch",
    "plot_refinement",
    "plot_reliability",
    "plot_sweeps",
    "rank_correlation",
    "reliability",
    "write_report",
]


def write_report(out: str | os.PathLike[str]) -> Path:
    """Writes OUT/report.html, atomically, and returns its path.

    The page has the results as a sortable table, a summary computed from it, every
    figure whose data exist, paired comparisons, configuration, hashes and timings.
    """
    path = Path(out) / "report.html"
    text = render(Outcome(Path(out)))
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def main() -> int:
    parser = Parser(
        prog="merganser report",
        description="Writes OUT/report.html: the results of `merganser run`.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the experiment's output")
    parser.add_common(quiet="no effect: a report has no progress")
    arguments = parser.parse_args()
    try:
        path = write_report(arguments.out)
    except (InputError, OSError) as error:
        print(f"merganser: {error}", file=sys.stderr)
        return 2
    except KeyError as error:
        results = arguments.out / "results.json"
        print(f"merganser: {results}: expected the key {error}", file=sys.stderr)
        return 2
    print(json.dumps({"report": str(path)}) if arguments.json else path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
