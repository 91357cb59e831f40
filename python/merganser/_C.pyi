# ruff: noqa: N999 (the name of the compiled module)
"""The compiled part of merganser; loading it brings torch.ops.merganser.

Long functions release the GIL and end with KeyboardInterrupt on Ctrl-C. A progress
callback gets units done, units in all and a text; what it raises ends the work.
Files and options that cannot be used raise InputError.
"""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

Path: TypeAlias = os.PathLike | str
Progress: TypeAlias = Callable[[int, int, str], None] | None
# name, dtype as in a safetensors header, shape, little-endian data
RawTensor: TypeAlias = tuple[str, str, Sequence[int], bytes]

class Error(RuntimeError):
    """Something failed while working, such as a full disk."""

class InputError(Error, ValueError):
    """What was given is wrong: arguments, files, recipes. Says where and what to do."""

# Files

def read_checkpoint(path: Path) -> tuple[list[RawTensor], dict[str, str]]:
    """Tensors and metadata of a .safetensors file or a model's folder."""

def write_safetensors(
    path: Path, tensors: Sequence[RawTensor], metadata: Mapping[str, str] = {}
) -> None:
    """Writes one file, which appears under its name only when it is whole."""

def write_checkpoint(
    folder: Path,
    tensors: Sequence[RawTensor],
    metadata: Mapping[str, str] = {},
    shard_bytes: int = 18446744073709551615,
) -> None:
    """Writes model.safetensors, or shards of at most shard_bytes and their index."""

def content_hash(path: Path) -> str:
    """Hash of a checkpoint's names, shapes, dtypes and data, whatever its shards."""

# Text

class Tokenizer:
    """Text to token ids, equal to the tokenizers package (WordPiece, BPE)."""

    @staticmethod
    def load(folder: Path) -> Tokenizer:
        """Reads the tokenizer of a model's folder."""
    def encode(self, text: str, max_length: int) -> list[int]:
        """Ids with the special tokens, at most max_length in all."""
    def encode_batch(
        self, texts: Sequence[str], max_length: int, threads: int = 0
    ) -> list[list[int]]:
        """`encode` of each text; threads 0: all cores."""
    @property
    def vocab_size(self) -> int: ...
    @property
    def pad_id(self) -> int: ...

class TextExample:
    """One example of a data file and the line it stands in."""

    @property
    def text(self) -> str: ...
    @property
    def label(self) -> int: ...
    @property
    def line(self) -> int: ...

def read_examples(path: Path) -> list[TextExample]:
    """The examples of a .jsonl, .csv or .tsv file, in file order."""

class Dataset:
    """Tokenised examples; an example's index is its position."""

    def __init__(self, ids: Sequence[Sequence[int]], labels: Sequence[int]) -> None: ...
    @staticmethod
    def load(file: Path, model: Path, *, max_length: int, num_labels: int) -> Dataset:
        """Reads a data file with the tokenizer of a model's folder."""
    def __len__(self) -> int: ...
    @property
    def ids(self) -> list[list[int]]: ...
    @property
    def labels(self) -> list[int]: ...

# The encoder

class Encoder:
    """A BERT or RoBERTa classifier with transformers' parameter names."""

    @staticmethod
    def load(folder: Path, num_labels: int = 0, seed: int = 0) -> Encoder:
        """Reads a model's folder; a head that it lacks is drawn with seed.

        num_labels 0: as config.json says.
        """
    def save(self, folder: Path) -> None:
        """Writes a model's folder, with the config and tokenizer it came with."""
    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        token_type_ids: Tensor | None = None,
        *,
        bfloat16: bool = False,
    ) -> Tensor:
        """Logits (B, K) of input_ids (B, L); tokens behind lengths (B) are padding."""
    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """The parameters themselves, not copies."""
    def train(self, mode: bool = True) -> object:
        """Dropout on (or off); the encoder itself."""
    def eval(self) -> object:
        """Dropout off; the encoder itself."""
    @property
    def training(self) -> bool: ...
    @property
    def num_labels(self) -> int: ...
    @property
    def max_length(self) -> int: ...
    @property
    def fresh(self) -> list[str]: ...

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
    """Accuracy and loss of an encoder, in eval mode, on data."""

# Fishers

def exact_directions(logits: Tensor) -> list[Tensor]:
    """K - 1 directions v_k (B, K) with sum_k v_k v_k^T = diag(p) - p p^T."""

def label_direction(logits: Tensor, labels: Tensor) -> Tensor:
    """onehot(y) - p, (B, K), of labels y (B) int64."""

class EncoderFisher:
    """What merganser.FisherResult describes, as estimate_fisher gives it."""

    def save(self, file: Path) -> None:
        """Writes a Fisher file."""
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
    model_hash: str

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
    """The Fisher of an encoder; limit: a subset drawn with seed, -1: everything."""

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

# Merging

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
    def needs_grams(self) -> bool: ...
    @property
    def needs_base_gram(self) -> bool: ...
    @property
    def needs_statistics(self) -> bool:
        """Whether it must go through a tensor before it can merge it."""

def find_method(name: str) -> MethodInfo:
    """By its name in recipes; InputError lists the names there are."""

class MemoryMerge:
    """A merge in memory, one tensor at a time, through what merges files.

    `parameters` and `models` are YAML, as in a recipe. Lists of weights, Fishers, Gram
    matrices and their numbers of examples begin with the base's, if the method takes
    one, and then have one item per model. Tensors are on the CPU and contiguous; with
    each stands what it is of, for errors.
    """

    def __init__(
        self,
        method: str,
        parameters: str,
        models: Sequence[str],
        names: Sequence[str],
        fisher_examples: Sequence[float],
        gram_examples: Sequence[float],
    ) -> None: ...
    def normalizes_fishers(self, name: str) -> bool:
        """Whether it is set for a tensor: then add_fisher comes first."""
    def add_fisher(self, fisher: int, name: str, tensor: tuple[str, Tensor]) -> None:
        """For its mean; all tensors that are merged with it, sorted by name."""
    def scalars(self, name: str) -> dict:
        """For a tensor, the arguments of ops.merge that are no tensors."""
    def merge(
        self,
        name: str,
        out: Tensor,
        weights: Sequence[tuple[str, Tensor]],
        fishers: Sequence[tuple[str, Tensor]],
        grams: Sequence[tuple[str, Tensor]],
    ) -> None:
        """Writes one tensor into `out`."""

def check_count(method: MethodInfo, models: int) -> None:
    """InputError where the method cannot merge so many models."""

def merge_recipe(
    recipe: Path,
    out: Path,
    threads: int,
    memory: int,
    resume: bool,
    shard_bytes: int | None,
    allow_nonfinite: bool,
    progress: Progress,
) -> str:
    """Carries out a recipe; threads 0: all cores. The report as JSON."""

def plan(recipe: Path) -> str:
    """What merge_recipe would do, as JSON."""

def verify(folder: Path) -> str:
    """Whether a merged model and its inputs are still the same, as JSON."""

def inspect(path: Path, hashes: bool) -> str:
    """What a checkpoint or Fisher file holds, as JSON."""

# Training

class TrainOptions:
    """See merganser.Trainer, which has the same names."""

    def __init__(self) -> None: ...
    model: pathlib.Path
    train: list[pathlib.Path]
    eval: list[pathlib.Path]
    out: pathlib.Path
    epochs: float
    max_steps: int
    lr: float
    batch_size: int
    accumulate: int
    max_length: int
    num_labels: int
    seed: int
    dtype: str
    scheduler: str
    warmup: float
    weight_decay: float
    beta1: float
    beta2: float
    epsilon: float
    clip: float
    dropout: float | None
    fisher: str
    fisher_interval: int
    proximal: pathlib.Path | None
    proximal_weight: float
    checkpoint_steps: int

def train(options: TrainOptions, progress: Progress = None) -> str:
    """Fine-tunes, or goes on with an interrupted run; the result as JSON."""

def batch_order(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """The positions in each training batch of an epoch, for texts of such lengths."""
