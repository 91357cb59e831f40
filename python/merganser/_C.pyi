# ruff: noqa: N999 (the name of the compiled module)
"""The compiled part of merganser; importing it registers torch.ops.merganser.

Long-running functions release the GIL and raise KeyboardInterrupt on Ctrl-C. A
progress callback gets units done, total units and a text; an exception from it stops
the work. Invalid files and options raise InputError.
"""

import os
import pathlib
from collections.abc import Callable, Mapping, Sequence, Set
from typing import TypeAlias

from torch import Tensor

Path: TypeAlias = os.PathLike | str
Progress: TypeAlias = Callable[[int, int, str], None] | None
# name, dtype as in a safetensors header, shape, little-endian data
RawTensor: TypeAlias = tuple[str, str, Sequence[int], bytes]

class Error(RuntimeError):
    """A failure during the work, such as a full disk."""

class InputError(Error, ValueError):
    """Invalid arguments, files or recipes. Says where, and how to fix it."""

# Files

def read_checkpoint(path: Path) -> tuple[list[RawTensor], dict[str, str]]:
    """Tensors and metadata of a .safetensors file or a model directory."""

def write_safetensors(
    path: Path, tensors: Sequence[RawTensor], metadata: Mapping[str, str] = {}
) -> None:
    """Writes one file, atomically."""

def write_checkpoint(
    folder: Path,
    tensors: Sequence[RawTensor],
    metadata: Mapping[str, str] = {},
    shard_bytes: int = 18446744073709551615,
) -> None:
    """Writes model.safetensors, or shards of at most shard_bytes and their index."""

def content_hash(path: Path) -> str:
    """Hash of a checkpoint's names, shapes, dtypes and data, independent of shards."""

# The Hugging Face Hub

def find_model(path: Path) -> pathlib.Path:
    """The directory of a model: `path` if it exists, or if it is owner/name or
    owner/name@revision the snapshot in hub_cache(), downloaded if missing."""

def parse_hub_model(text: str) -> tuple[str, str] | None:
    """Name and revision of "owner/name@revision"; None for any other text."""

def hub_cache() -> pathlib.Path:
    """The Hub's local cache: HF_HUB_CACHE, or hub/ in HF_HOME, or the default."""

# Text

class Tokenizer:
    """Converts text to token ids, like the tokenizers package (WordPiece, BPE)."""

    @staticmethod
    def load(folder: Path) -> Tokenizer:
        """Reads the tokenizer of a model directory."""
    def encode(self, text: str, max_length: int) -> list[int]:
        """Ids including special tokens, at most max_length in total."""
    def encode_pair(
        self, text: str, text_pair: str, max_length: int
    ) -> tuple[list[int], list[int]]:
        """Ids and token types of two texts; no types: all 0."""
    def encode_batch(
        self, texts: Sequence[str], max_length: int, threads: int = 0
    ) -> list[list[int]]:
        """Encodes several texts; threads 0: all cores."""
    @property
    def vocab_size(self) -> int: ...
    @property
    def pad_id(self) -> int: ...

class TextExample:
    """One example of a data file, with its line number."""

    @property
    def text(self) -> str: ...
    @property
    def label(self) -> int: ...
    @property
    def line(self) -> int: ...
    @property
    def text_pair(self) -> str | None: ...

def read_examples(path: Path, names: Mapping[str, int] = {}) -> list[TextExample]:
    """Reads a .jsonl, .csv or .tsv file; names: class numbers of label names."""

class Dataset:
    """Tokenised examples; an example's index is its position."""

    def __init__(self, ids: Sequence[Sequence[int]], labels: Sequence[int]) -> None: ...
    @staticmethod
    def load(file: Path, model: Path, *, max_length: int, num_labels: int) -> Dataset:
        """Reads a data file with the tokenizer of a model directory."""
    def __len__(self) -> int: ...
    @property
    def ids(self) -> list[list[int]]: ...
    @property
    def labels(self) -> list[int]: ...
    @property
    def token_types(self) -> list[list[int]]: ...

# The encoder

class Encoder:
    """A BERT or RoBERTa classifier with transformers' parameter names."""

    @staticmethod
    def load(folder: Path, num_labels: int = 0, seed: int = 0) -> Encoder:
        """Reads a model directory; initializes a missing head with seed.

        num_labels 0: from config.json.
        """
    def save(self, folder: Path) -> None:
        """Writes a model directory, with the config and tokenizer of `load`."""
    def forward(
        self,
        input_ids: Tensor,
        lengths: Tensor,
        token_type_ids: Tensor | None = None,
        *,
        bfloat16: bool = False,
    ) -> Tensor:
        """Logits (B, K) of input_ids (B, L); tokens after lengths (B) are padding."""
    def named_parameters(self) -> list[tuple[str, Tensor]]:
        """The parameters themselves, not copies."""
    def train(self, mode: bool = True) -> object:
        """Turns dropout on (or off); returns the encoder."""
    def eval(self) -> object:
        """Turns dropout off; returns the encoder."""
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
    """Accuracy and loss of an encoder on data, in eval mode."""

# Fishers

def exact_directions(logits: Tensor) -> list[Tensor]:
    """K - 1 directions v_k (B, K) with sum_k v_k v_k^T = diag(p) - p p^T."""

def label_direction(logits: Tensor, labels: Tensor) -> Tensor:
    """onehot(y) - p, (B, K), for labels y (B) int64."""

class EncoderFisher:
    """Result of estimate_fisher; see merganser.FisherResult."""

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
    """Fisher of an encoder; limit: size of a random subset (seed), -1: all examples."""

def draw_subset(size: int, count: int, seed: int) -> list[int]:
    """`count` distinct positions below `size`, ascending; all if count >= size."""

class Estimate:
    """A mean over examples and its standard error."""

    def __init__(self, value: float, standard_error: float) -> None: ...
    @property
    def value(self) -> float: ...
    @property
    def standard_error(self) -> float: ...

class AlongTaskVector:
    """Losses along a task vector tau, or along its part in a group of parameters."""

    def __init__(self, slope: Estimate, curvature: Estimate) -> None: ...
    @property
    def slope(self) -> Estimate:
        """<tau, g>, with the expert's gradient g per example."""
    @property
    def curvature(self) -> Estimate:
        """tau^T F_0 tau, with the base's exact Fisher F_0."""

class TaskVectorStatistics:
    """Measures how far an expert is from a stationary point of its loss.

    See docs/method.md, "The expert's gradient".
    """

    def __init__(
        self,
        *,
        base_model_hash: str,
        num_examples_used: int,
        base_num_examples_used: int,
        total: AlongTaskVector,
        groups: Sequence[tuple[str, AlongTaskVector]],
    ) -> None: ...
    @property
    def base_model_hash(self) -> str:
        """Hash of the base's tensors; empty: unknown."""
    @property
    def num_examples_used(self) -> int: ...
    @property
    def base_num_examples_used(self) -> int: ...
    @property
    def total(self) -> AlongTaskVector: ...
    @property
    def groups(self) -> list[tuple[str, AlongTaskVector]]:
        """By group of parameters; curvatures do not sum to the total's."""
    def to_json(self) -> str:
        """The text in a Fisher file's metadata."""
    @staticmethod
    def parse(json: str) -> TaskVectorStatistics:
        """Reads what to_json wrote; InputError for any other text."""

class FisherPoint:
    """The weights that a Fisher was estimated at, if other than its model's.

    model_hash: of the other model. along: points of the path there that the Fisher
    averages; 0: the other model itself.
    """

    def __init__(self, model_hash: str, along: int) -> None: ...
    @property
    def model_hash(self) -> str: ...
    @property
    def along(self) -> int: ...

class FisherScale:
    """A measured factor of a Fisher: along the path from its model to a merge the loss
    has the curvature of `scale` times F."""

    def __init__(
        self, *, scale: Estimate, merge_hash: str, num_examples_used: int
    ) -> None: ...
    @property
    def scale(self) -> Estimate: ...
    @property
    def merge_hash(self) -> str: ...
    @property
    def num_examples_used(self) -> int: ...

class FisherMetadata:
    """Metadata of a Fisher file; see merganser.FisherResult."""

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
        at: FisherPoint | None = None,
        task_vector: TaskVectorStatistics | None = None,
        scale: FisherScale | None = None,
        storage: str = "float32",
    ) -> None: ...
    def to_dict(self) -> dict[str, str]:
        """The entries of a file's metadata."""

    @property
    def storage(self) -> str: ...
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
    @property
    def task_vector(self) -> TaskVectorStatistics | None: ...
    @property
    def at(self) -> FisherPoint | None: ...
    @property
    def scale(self) -> FisherScale | None: ...

def write_fisher(
    path: Path, tensors: Mapping[str, Tensor], metadata: FisherMetadata
) -> None:
    """Writes a Fisher or Gram file in the form of metadata.storage."""

def stored_tensors(name: str, values: Tensor, storage: str) -> dict[str, Tensor]:
    """What a Fisher file of this form holds for one tensor."""

def read_fisher(path: Path) -> tuple[dict[str, Tensor], FisherMetadata]:
    """Reads a Fisher file, or its shards in a directory."""

# Merging

class MethodInfo:
    """A merge method: its name, formula and inputs."""

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
    def needs_subspace(self) -> bool: ...
    @property
    def needs_base_fisher(self) -> bool: ...
    @property
    def shrinks_base(self) -> bool:
        """True if it changes a base that no model changes."""
    @property
    def needs_grams(self) -> bool: ...
    @property
    def needs_base_gram(self) -> bool: ...
    @property
    def uses_rho(self) -> bool:
        """True if it takes rho from the Fishers' task vectors."""
    @property
    def needs_statistics(self) -> bool:
        """True if it needs statistics of a whole tensor before merging it."""
    @property
    def is_random(self) -> bool:
        """True if it makes random choices."""

def find_method(name: str) -> MethodInfo:
    """Finds a method by its name in recipes; InputError lists the available names."""

def different_scales(estimators: Set[str], method: MethodInfo) -> str | None:
    """A sentence if the estimators' Fishers are on different scales."""

class SubspaceLoss:
    """Sums of a model's Fisher and gradient in the columns, for each fold.

    fisher (K, C, C) and gradient (K, C), float64; the gradient is None for the base,
    both are None for a direction, which has columns and no loss.
    """

    def __init__(
        self,
        *,
        fisher: Tensor,
        gradient: Tensor | None,
        counts: Sequence[int],
        num_examples: int,
        model_hash: str = "",
    ) -> None: ...
    @staticmethod
    def direction(model_hash: str = "") -> SubspaceLoss:
        """A model that adds its columns and has no loss."""

    @property
    def fisher(self) -> Tensor | None: ...
    @property
    def gradient(self) -> Tensor | None: ...
    @property
    def counts(self) -> list[int]: ...
    @property
    def num_examples(self) -> int: ...
    @property
    def model_hash(self) -> str:
        """Hash of the model's tensors; empty: unknown."""

class SubspaceFisher:
    """What `merganser subspace` writes."""

    def __init__(
        self,
        *,
        groups: Sequence[tuple[str, Sequence[str]]],
        base: SubspaceLoss,
        experts: Sequence[SubspaceLoss],
        points: int = 1,
        seed: int = 0,
    ) -> None: ...
    @property
    def groups(self) -> list[tuple[str, list[str]]]: ...
    @property
    def points(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def base(self) -> SubspaceLoss: ...
    @property
    def experts(self) -> list[SubspaceLoss]: ...
    def save(self, path: Path) -> None:
        """Writes a file for recipes."""
    @staticmethod
    def load(path: Path) -> SubspaceFisher:
        """Reads what `save` wrote; raises InputError for any other file."""

class MemoryMerge:
    """Merges in memory, one tensor at a time, with the engine that merges files.

    `parameters` and `models` are mappings as in a recipe. Lists of weights, Fishers,
    Gram matrices and their numbers of examples begin with the base's item, if the
    method needs one, and have one item per model. Tensors are contiguous and on the
    CPU; each comes with a label for errors.
    """

    def __init__(
        self,
        method: str,
        parameters: object,
        models: Sequence[object],
        names: Sequence[str],
        fisher_examples: Sequence[float],
        gram_examples: Sequence[float],
        task_vectors: Sequence[TaskVectorStatistics | None],
        scales: Sequence[FisherScale | None],
        subspace: SubspaceFisher | None = None,
    ) -> None: ...
    @property
    def unstable_weights(self) -> str | None:
        """Reason why the subspace weights are unstable; None if they are stable."""
    @property
    def unstable_rhos(self) -> list[str]:
        """Sentences on measured rhos that make the merge unstable."""
    def normalizes_fishers(self, name: str) -> bool:
        """True if normalize_fishers is set for a tensor; then call add_fisher first."""
    def fisher_power(self, name: str) -> float:
        """The power that merge raises the Fishers of a tensor to."""
    def add_fisher(self, fisher: int, name: str, tensor: tuple[str, Tensor]) -> None:
        """Adds a tensor to a Fisher's mean; needs all merged tensors, by name."""
    def scalars(self, name: str) -> dict:
        """The arguments of ops.merge for a tensor, except tensors."""
    def merge(
        self,
        name: str,
        out: Tensor,
        weights: Sequence[tuple[str, Tensor]],
        fishers: Sequence[tuple[str, Tensor]],
        grams: Sequence[tuple[str, Tensor]],
        task_vectors_from: tuple[str, Tensor] | None = None,
    ) -> None:
        """Merges one tensor into `out`; task_vectors_from: the base's, for Gram
        matrices of task vectors."""

def is_linear_weight(name: str, shape: Sequence[int]) -> bool:
    """True for the weight of a linear layer, no table of embeddings."""

def canonical_name(tied: Sequence[str]) -> str:
    """The name by which tied tensors are merged."""

def check_count(method: MethodInfo, models: int) -> None:
    """Raises InputError if the method cannot merge this number of models."""

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
    """Runs a recipe; threads 0: all cores. Returns the report as JSON."""

def plan(
    recipe: Path,
    find: Callable[[str, str, str], pathlib.Path],
    threads: int,
    memory: int | None,
    json: bool,
) -> str:
    """The plan of merge_recipe, as JSON or as tables.

    find(text, name, revision) returns the directory of a model that the Hub's cache
    lacks, which the recipe calls `text`. memory: limit in bytes for the buffers of the
    threads; None: no limit."""

def verify(folder: Path) -> str:
    """Checks that a merged model and its inputs have not changed; returns JSON."""

def inspect(path: Path, hashes: bool) -> str:
    """The content of a checkpoint or Fisher file, as JSON."""

# Training

class TrainOptions:
    """Options of merganser.Trainer, under the same names."""

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
    linearized: bool
    fisher: str
    fisher_interval: int
    fisher_storage: str
    proximal: list[pathlib.Path]
    proximal_weight: float
    checkpoint_steps: int

def train(options: TrainOptions, progress: Progress = None) -> str:
    """Fine-tunes, or resumes an interrupted run; returns the result as JSON."""

def batch_order(
    lengths: Sequence[int], batch_size: int, seed: int, epoch: int
) -> list[list[int]]:
    """The positions in each training batch of an epoch, for texts of these lengths."""
