"""merganser plan, which the executable leaves to Python where the Hub's cache lacks a
model."""

from __future__ import annotations

import os
import sys

from .._C import Error
from .._common.parser import Parser, failed
from .plan import plan_recipe


def main() -> int:
    parser = Parser(
        prog="merganser plan",
        description="Shows what a merge would do.",
        allow_abbrev=False,
    )
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True)
    parser.add_common(quiet="no progress")
    arguments = parser.parse_args()
    if arguments.quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read as it is imported
    try:
        text = plan_recipe(
            arguments.recipe,
            threads=arguments.threads,
            memory=arguments.memory,
            json=arguments.json,
        )
    except Error as error:
        return failed(error)
    except KeyboardInterrupt:
        print("merganser: interrupted", file=sys.stderr)
        return 1
    print(text, end="\n" if arguments.json else "")
    return 0


if __name__ == "__main__":
    sys.exit(main())
