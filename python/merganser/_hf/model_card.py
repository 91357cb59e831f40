"""A section on Fishers in the README.md that a transformers Trainer writes."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from .._C import InputError
from ..fisher_result import FisherResult

_BEGIN = b"<!-- merganser -->"
_END = b"<!-- /merganser -->"


class Described(TrainerCallback):
    """A callback that a model card describes."""

    def card_text(self, folder: Path) -> str:
        """Its paragraphs in the card of a directory; empty before there is a result.

        Raises InputError where it cannot be described.
        """
        raise NotImplementedError


def extend_model_card(trainer: Any) -> None:
    """Describes the Fisher of a Trainer's FisherCallback in its model card.

        trainer.train()
        merganser.hf.extend_model_card(trainer)
        trainer.save_model()
        trainer.create_model_card()  # or trainer.push_to_hub()

    The README.md in output_dir, and each that the Trainer writes after this call, gets
    a section with the file of the Fisher, its estimator, its numbers of examples and a
    recipe, and a sentence about a ProximalCallback. The section is between two
    comments and is replaced where it exists; the rest of the file stays as it is.

    Raises:
        InputError: a Trainer without these callbacks; a Fisher's `out` elsewhere.
    """
    if not _described(trainer):
        raise InputError(
            "the Trainer has neither a FisherCallback nor a ProximalCallback"
        )
    write = trainer.create_model_card

    @functools.wraps(write)
    def create_model_card(*args, **kwargs):
        write(*args, **kwargs)
        _update(trainer)

    trainer.create_model_card = create_model_card
    _update(trainer)


def fisher_text(fisher: FisherResult | None, file: Path, folder: Path) -> str:
    """Describes a Fisher that is stored in the directory of its model; None: it is not
    collected yet."""
    folder = folder.resolve()
    if not file.resolve().is_relative_to(folder):
        raise InputError(
            f"a model card names files in its directory {folder}, and the Fisher's is "
            f"{file}: omit `out` of FisherCallback"
        )
    if fisher is None:
        return ""
    name = file.resolve().relative_to(folder).as_posix()
    labels = {"data": "the labels of the data", "model": "labels drawn from the model"}
    text = (
        f"\n`{name}` has the diagonal of the model's Fisher information: estimator "
        f"`{fisher.estimator}` of Merganser, with {labels[fisher.labels]}, over "
        f"{fisher.num_examples_used} of {fisher.num_examples} examples.\n"
    )
    if any(name.startswith("base_model.model.") for name in fisher):  # PEFT's names
        return text  # a recipe merges the weights that an adapter changes
    return text + _recipe(folder.name, f"{folder.name}/{name}")


def _recipe(model: str, fisher: str) -> str:
    return f"""`merganser merge` weights the model by it:

```yaml
merge_method: fisher
models:
  - {{model: {json.dumps(model)}, fisher: {json.dumps(fisher)}}}
  - {{model: OTHER, fisher: OTHER/fisher.safetensors}}
```
"""


def _described(trainer: Any) -> list[Described]:
    callbacks = trainer.callback_handler.callbacks
    return [x for x in callbacks if isinstance(x, Described)]


def _update(trainer: Any) -> None:
    path = Path(trainer.args.output_dir) / "README.md"
    text = "".join(callback.card_text(path.parent) for callback in _described(trainer))
    if text and trainer.is_world_process_zero() and path.is_file():
        # Bytes: line ends and encoding are the user's.
        path.write_bytes(_with_section(path.read_bytes(), text.encode()))


def _with_section(card: bytes, text: bytes) -> bytes:
    section = _BEGIN + b"\n## Fisher information\n" + text + _END
    before, begin, rest = card.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if begin and end:
        return before + section + after
    return card + b"\n" + section + b"\n"
