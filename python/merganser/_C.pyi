# ruff: noqa: N999 (the name of the compiled module)
"""The compiled part of merganser; loading it brings torch.ops.merganser.

Long functions release the GIL and end with KeyboardInterrupt on Ctrl-C. A progress
callback gets units done, units in all and a text; what it raises ends the work.
"""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

Path: TypeAlias = os.PathLike | str
Progress: TypeAlias = Callable[[int, int, str], None] | None

class Error(RuntimeError):
    """Something failed while working, such as a full disk."""

class InputError(Error, ValueError):
    """What was given is wrong: arguments, files, recipes."""

def content_hash(path: Path) -> str:
    """Hash of a checkpoint's names, shapes, dtypes and data, whatever its shards."""

class FisherMetadata:
    """What a Fisher file says beside its tensors; see merganser.FisherResult."""

    def __init__(
        self,
        *,
        estimator: str,
        num_examples: int,
        num_examples_used: int,
        samples: int,
        seed: int,
        labels: str,
        base_model_hash: str,
    ) -> None: ...
    @property
    def estimator(self) -> str: ...
    @property
    def num_examples(self) -> int: ...
    @property
    def num_examples_used(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def labels(self) -> str: ...
    @property
    def base_model_hash(self) -> str: ...

def write_fisher(
    path: Path, tensors: Mapping[str, Tensor], metadata: FisherMetadata
) -> None:
    """Writes float32 tensors, contiguous and on the CPU, as a Fisher file."""

def read_fisher(path: Path) -> tuple[dict[str, Tensor], FisherMetadata]:
    """Reads a Fisher file, or the shards of one in a folder."""

class MethodInfo:
    """A merge method: what it is called and what it needs."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def formula(self) -> str: ...
    @property
    def needs_base(self) -> bool: ...
    @property
    def needs_fishers(self) -> bool: ...
    @property
    def needs_base_fisher(self) -> bool: ...
    @property
    def needs_num_examples(self) -> bool: ...
    @property
    def normalizes(self) -> bool: ...
    @property
    def normalizes_by_default(self) -> bool: ...

def find_method(name: str) -> MethodInfo:
    """By its name in recipes; InputError lists the names there are."""

def merge_recipe(recipe: Path, out: Path, threads: int, progress: Progress) -> str:
    """Carries out a recipe; threads 0: all cores. The report as JSON."""

def plan(recipe: Path) -> str:
    """What merge_recipe would do, as JSON."""

def inspect(path: Path, hashes: bool) -> str:
    """What a checkpoint or Fisher file holds, as JSON."""

def read_checkpoint(
    path: Path,
) -> tuple[list[tuple[str, str, list[int], bytes]], dict[str, str]]:
    """Tensors as (name, dtype, shape, bytes), and metadata, of a file or folder."""

def write_safetensors(
    path: Path,
    tensors: Sequence[tuple[str, str, Sequence[int], bytes]],
    metadata: Mapping[str, str] = {},
) -> None:
    """Writes one file; it appears under its name only when it is whole."""

def write_checkpoint(
    folder: Path,
    tensors: Sequence[tuple[str, str, Sequence[int], bytes]],
    metadata: Mapping[str, str] = {},
    shard_bytes: int = 18446744073709551615,
) -> None:
    """Writes model.safetensors into a folder, or shards and their index."""

class Encoder:
    """A BERT or RoBERTa classifier of the C++ trainer."""

    @staticmethod
    def load(folder: Path, num_labels: int = 0, seed: int = 0) -> Encoder:
        """Reads a model directory; a head that it lacks is drawn (see `fresh`)."""
    def save(self, folder: Path) -> None:
        """Writes weights, config.json and tokenizer files into an existing folder."""
    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        token_type_ids: Tensor | None = None,
        *,
        bfloat16: bool = False,
    ) -> Tensor:
        """Logits (B, num_labels) of input_ids (B, L) with lengths (B)."""
    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """Names as in the checkpoint; the tensors are the model's own."""
    def train(self, mode: bool = True) -> object:
        """Switches dropout on (or off); returns the encoder."""
    def eval(self) -> object:
        """Switches dropout off; returns the encoder."""
    @property
    def training(self) -> bool: ...
    @property
    def num_labels(self) -> int: ...
    @property
    def max_length(self) -> int: ...
    @property
    def fresh(self) -> list[str]: ...

class Dataset:
    """Tokenised examples with their labels."""

    def __init__(self, ids: Sequence[Sequence[int]], labels: Sequence[int]) -> None: ...
    @staticmethod
    def load(file: Path, model: Path, *, max_length: int, num_labels: int) -> Dataset:
        """Reads and tokenises a data file with the tokenizer of a model directory."""
    def __len__(self) -> int: ...
    @property
    def ids(self) -> list[list[int]]: ...
    @property
    def labels(self) -> list[int]: ...

class EncoderFisher:
    """The mean Fisher diagonal of an Encoder, with what a merge must know of it."""

    @property
    def diagonal(self) -> list[tuple[str, Tensor]]: ...
    @property
    def estimator(self) -> str: ...
    @property
    def num_examples(self) -> int: ...
    @property
    def num_examples_used(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def labels(self) -> str: ...
    @property
    def model_hash(self) -> str: ...
    @model_hash.setter
    def model_hash(self, value) -> None: ...
    def save(self, file: Path) -> None:
        """Writes a Fisher file (docs/method.md, section 4)."""

def estimate_fisher(
    encoder: Encoder,
    data: Dataset,
    pad_id: int,
    *,
    estimator: str = "exact",
    samples: int = 1,
    limit: int = -1,
    seed: int = 0,
    batch_size: int = 32,
    bfloat16: bool = False,
    progress: Progress = None,
) -> EncoderFisher:
    """Mean of per-example squared gradients (docs/method.md, section 3)."""

class EvalResult:
    """Accuracy in [0, 1] and mean negative log-likelihood in nats."""

    @property
    def examples(self) -> int: ...
    @property
    def accuracy(self) -> float: ...
    @property
    def loss(self) -> float: ...

def evaluate(
    encoder: Encoder,
    data: Dataset,
    pad_id: int,
    *,
    batch_size: int = 32,
    bfloat16: bool = False,
    progress: Progress = None,
) -> EvalResult:
    """Accuracy and loss in eval mode."""

class Tokenizer:
    """Text to token ids, equal to the tokenizers package."""

    @staticmethod
    def load(folder: Path) -> Tokenizer:
        """Reads tokenizer.json, or the vocabulary files, of a model directory."""
    def encode(self, text: str, max_length: int) -> list[int]:
        """Ids with special tokens, at most max_length in all."""
    def encode_batch(
        self, texts: Sequence[str], max_length: int, threads: int = 0
    ) -> list[list[int]]:
        """encode() for each text, over several threads (0: all cores)."""
    @property
    def vocab_size(self) -> int: ...
    @property
    def pad_id(self) -> int: ...

class TextExample:
    """A text, its label and its line in the file."""

    @property
    def text(self) -> str: ...
    @property
    def label(self) -> int: ...
    @property
    def line(self) -> int: ...

def read_examples(path: Path) -> list[TextExample]:
    """The examples of a .jsonl, .csv or .tsv file."""

class TrainOptions:
    """The options of merganser.Trainer, checked when training begins."""

    def __init__(self) -> None: ...
    @property
    def model(self) -> pathlib.Path: ...
    @model.setter
    def model(self, value) -> None: ...
    @property
    def train(self) -> list[pathlib.Path]: ...
    @train.setter
    def train(self, value) -> None: ...
    @property
    def eval(self) -> list[pathlib.Path]: ...
    @eval.setter
    def eval(self, value) -> None: ...
    @property
    def out(self) -> pathlib.Path: ...
    @out.setter
    def out(self, value) -> None: ...
    @property
    def epochs(self) -> float: ...
    @epochs.setter
    def epochs(self, value) -> None: ...
    @property
    def max_steps(self) -> int: ...
    @max_steps.setter
    def max_steps(self, value) -> None: ...
    @property
    def lr(self) -> float: ...
    @lr.setter
    def lr(self, value) -> None: ...
    @property
    def batch_size(self) -> int: ...
    @batch_size.setter
    def batch_size(self, value) -> None: ...
    @property
    def accumulate(self) -> int: ...
    @accumulate.setter
    def accumulate(self, value) -> None: ...
    @property
    def max_length(self) -> int: ...
    @max_length.setter
    def max_length(self, value) -> None: ...
    @property
    def num_labels(self) -> int: ...
    @num_labels.setter
    def num_labels(self, value) -> None: ...
    @property
    def seed(self) -> int: ...
    @seed.setter
    def seed(self, value) -> None: ...
    @property
    def dtype(self) -> str: ...
    @dtype.setter
    def dtype(self, value) -> None: ...
    @property
    def scheduler(self) -> str: ...
    @scheduler.setter
    def scheduler(self, value) -> None: ...
    @property
    def warmup(self) -> float: ...
    @warmup.setter
    def warmup(self, value) -> None: ...
    @property
    def weight_decay(self) -> float: ...
    @weight_decay.setter
    def weight_decay(self, value) -> None: ...
    @property
    def beta1(self) -> float: ...
    @beta1.setter
    def beta1(self, value) -> None: ...
    @property
    def beta2(self) -> float: ...
    @beta2.setter
    def beta2(self, value) -> None: ...
    @property
    def epsilon(self) -> float: ...
    @epsilon.setter
    def epsilon(self, value) -> None: ...
    @property
    def clip(self) -> float: ...
    @clip.setter
    def clip(self, value) -> None: ...
    @property
    def dropout(self) -> float | None: ...
    @dropout.setter
    def dropout(self, value) -> None: ...
    @property
    def fisher(self) -> str: ...
    @fisher.setter
    def fisher(self, value) -> None: ...
    @property
    def fisher_interval(self) -> int: ...
    @fisher_interval.setter
    def fisher_interval(self, value) -> None: ...
    @property
    def proximal(self) -> pathlib.Path | None: ...
    @proximal.setter
    def proximal(self, value) -> None: ...
    @property
    def proximal_weight(self) -> float: ...
    @proximal_weight.setter
    def proximal_weight(self, value) -> None: ...
    @property
    def checkpoint_steps(self) -> int: ...
    @checkpoint_steps.setter
    def checkpoint_steps(self, value) -> None: ...

def train(options: TrainOptions, progress: Progress = None) -> str:
    """Fine-tunes; returns what `merganser train --json` prints."""

def batch_order(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """The batches of a training epoch, as positions in the data."""
