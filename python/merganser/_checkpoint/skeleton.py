"""Models without weights, for the order of their parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from .._C import InputError

# The classes of transformers for the task types of PEFT.
_TASKS = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "FEATURE_EXTRACTION": "AutoModel",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
}
_REMEDY = "pass the model that was trained as `model`"


def build_model(directory: Path) -> nn.Module:
    """The model of a checkpoint's config.json or adapter_config.json, on the device
    "meta". Code of the checkpoint is not run."""
    try:
        if (directory / "adapter_config.json").is_file():
            return _adapted(directory)
        if not (directory / "config.json").is_file():
            raise InputError(
                f"{directory}: its optimizer numbers the parameters, and no "
                f"config.json says their order; {_REMEDY}"
            )
        return _plain(directory)
    except ImportError as error:
        raise InputError(
            f"{directory}: the order of the parameters needs {error.name}; install it, "
            f"or {_REMEDY}"
        ) from None
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).split("\n")[0]
        raise InputError(
            f"{directory}: the model cannot be built from its configuration "
            f"({reason}); {_REMEDY}"
        ) from None


def _plain(directory: Path, task: str | None = None) -> nn.Module:
    import transformers

    config = transformers.AutoConfig.from_pretrained(
        directory, local_files_only=True, trust_remote_code=False
    )
    with torch.device("meta"):
        if task is not None:
            return getattr(transformers, _TASKS[task]).from_config(config)
        (name,) = config.architectures or [""]
        found = getattr(transformers, name, None)
        if not (
            isinstance(found, type) and issubclass(found, transformers.PreTrainedModel)
        ):
            raise ValueError(f"transformers has no model {name!r}")
        return found(config)


def _adapted(directory: Path) -> nn.Module:
    import peft

    text = (directory / "adapter_config.json").read_text(encoding="utf-8")
    given = json.loads(text)
    if given.get("megatron_config"):  # PEFT would import a module that it names
        raise InputError(f"{directory}: megatron_config is not supported; {_REMEDY}")
    base = Path(given["base_model_name_or_path"])
    if not base.is_dir():
        raise InputError(
            f"{directory}: the base model {base} is not a local directory; {_REMEDY}"
        )
    config = peft.PeftConfig.from_pretrained(str(directory))
    config.inference_mode = False
    model = _plain(base, given.get("task_type"))
    with torch.device("meta"):
        return peft.get_peft_model(model, config)


def group_rules(model: nn.Module, names: list[str]) -> Iterator[list[list[str]]]:
    """The ways in which programs group parameters: all in one group, or those with
    weight decay first."""
    yield [names]
    try:
        from transformers import Trainer
        from transformers.trainer_pt_utils import get_parameter_names
    except ImportError:
        return
    # Older versions of transformers check the class of a norm's module only.
    old = [n for n in get_parameter_names(model, [nn.LayerNorm]) if "bias" not in n]
    for decayed in (Trainer.get_decay_parameter_names(None, model), old):  # type: ignore
        kept = set(decayed)
        yield [[n for n in names if n in kept], [n for n in names if n not in kept]]
