"""merganser download MODEL ..."""

from __future__ import annotations

import json
import os
import sys

from .. import _C
from .._C import Error, InputError
from .._common.parser import Parser, failed
from .download import download


def _download(text: str) -> str:
    model = _C.parse_hub_model(text)
    if model is None:
        raise InputError(f"expected owner/name[@revision] on the Hub, got {text!r}")
    return str(download(*model, str(_C.hub_cache())))


def main() -> int:
    parser = Parser(
        prog="merganser download",
        description="Downloads models into the Hugging Face Hub's local cache, or "
        "updates them: config.json, safetensors, tokenizer.",
        allow_abbrev=False,
    )
    parser.add_argument("models", nargs="+", metavar="OWNER/NAME[@REVISION]")
    parser.add_common(quiet="no progress")
    arguments = parser.parse_args()
    if arguments.quiet:
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"  # read as it is imported
    try:
        snapshots = {text: _download(text) for text in arguments.models}
    except Error as error:
        return failed(error)
    except KeyboardInterrupt:
        print("merganser: interrupted; rerun to resume the download", file=sys.stderr)
        return 1
    if arguments.json:
        print(json.dumps(snapshots, indent=2))
    else:
        for text, snapshot in snapshots.items():
            print(f"{text}: {snapshot}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
