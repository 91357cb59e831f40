"""Gram matrices of linear layers' inputs, summed while a model runs."""

from collections import defaultdict
from collections.abc import Callable, Collection
from contextlib import nullcontext
from enum import Enum

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from .._C import Error
from .._common.wrappers import parameters_inside
from .batches import Batch
from .caller import warn
from .data import Data
from .model_state import device_of
from .sequences import Owners, find_owners, masks_of, shapes_tell
from .watch import attention


class Rows(Enum):
    """Position of the B examples of a batch in the input of a linear layer."""

    FIRST = "(B, ...)"
    SECOND = "(tokens, B, ...)"
    FLAT = "(B times tokens)"
    PACKED = "(unmasked tokens)"
    SHARED = "one input for all examples"


class GramSums:
    """sum_i sum_l a_il a_il^T for the weights of a model's linear layers."""

    def __init__(
        self,
        model: nn.Module,
        dtype: torch.dtype | None,
        names: Collection[str] | None = None,
    ):
        """dtype: autocast's, or None. names: of the weights to sum for; None: all."""
        self._model = model
        self._dtype = dtype
        self._names = {
            id(p): name
            for name, p in parameters_inside(model)
            if names is None or name in names
        }
        self._sums: dict[str, Tensor] = {}
        self._tables: set[str] = set()  # used as embeddings
        self._without: set[str] = set()  # other uses, or unknown rows
        # One entry per use of a weight in a forward pass. Set by the first batch of
        # several examples, and again by the first batch with masked tokens.
        self._rows: dict[str, list[Rows | None]] | None = None
        self._owners: Owners | None = None  # None: unknown
        self._saw_hidden = False

    def add(self, batch: Batch) -> None:
        masks = masks_of(batch)
        hidden = not all(mask.all() for mask in masks.values())
        is_first = hidden and not self._saw_hidden
        self._saw_hidden |= hidden
        if batch.size > 1 and (self._rows is None or is_first):
            self._rows = self._look(batch)
        if is_first:
            self._owners = find_owners(batch, self._shapes)
        uses = defaultdict(int)
        last: tuple[Tensor, int, Tensor | None] | None = None

        def receive(name: str, x: Tensor) -> None:
            nonlocal last
            use = uses[name]
            uses[name] += 1
            # Query, key and value have one input.
            if last is None or last[0] is not x or last[1] != x._version:
                rows = self._rows_of(name, use)
                hiding = self._masks_of(name, use, masks) if hidden else []
                last = (x, x._version, gram_of(x, rows, hiding, batch.size))
            if last[2] is None:
                self._without.add(name)
            elif name in self._sums:
                self._sums[name] += last[2]
            else:
                self._sums[name] = last[2].clone()

        self._run(batch, receive)

    def add_up(self, data: Data) -> None:
        """Adds the sums of all ranks."""
        data.add_up(self._sums, device_of(self._model))
        for without, tables in data.ranks.gather((self._without, self._tables)):
            self._without |= without
            self._tables |= tables

    def means(self, count: int) -> dict[str, Tensor]:
        """The sums over `count` examples by weight name, divided by their number; warns
        about weights without one. Raises Error for a sum that is not finite."""
        missing = sorted(self._without | (self._tables & self._sums.keys()))
        for name in missing:
            self._sums.pop(name, None)
        if missing:
            shown = ", ".join(missing[:5])
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            warn(
                f"no Gram matrices for {shown}{more}: they are used outside of linear "
                "layers, or the rows of their inputs cannot be assigned to examples"
            )
        for name, matrix in self._sums.items():
            matrix.div_(count)
            if not matrix.isfinite().all():
                raise Error(f"the Gram matrix of {name} is not finite")
        return self._sums

    def _look(self, batch: Batch) -> dict[str, list[Rows | None]]:
        """Finds the rows of inputs by running again without the last example."""
        less = batch.rows(0, batch.size - 1)
        whole, others = self._shapes(batch), self._shapes(less)
        fewer = masks_of(less)
        packed = [
            (int(mask.sum()), int(fewer[sequence].sum()))
            for sequence, mask in masks_of(batch).items()
            if not mask.all()
        ]
        return {
            name: [
                rows_by_shapes(*pair, batch.size, packed)
                for pair in zip(shapes, others[name], strict=False)
            ]
            for name, shapes in whole.items()
        }

    def _rows_of(self, name: str, use: int) -> Rows | None:
        if self._rows is None:
            return Rows.FIRST  # all batches so far had one example
        rows = self._rows.get(name, [])
        return rows[use] if use < len(rows) else None

    def _masks_of(
        self, name: str, use: int, masks: dict[str, Tensor]
    ) -> list[Tensor] | None:
        """Masks that may apply to an input; None: unknown."""
        if self._owners is None:
            return list(masks.values()) if shapes_tell(masks) else None
        owners = self._owners.get(name, [])
        if use >= len(owners) or len(owners[use]) != 1:
            return None  # with no owner, the model may pad to a fixed length itself
        return [masks[sequence] for sequence in owners[use]]

    def _shapes(self, batch: Batch) -> dict[str, list[torch.Size]]:
        """Shapes of inputs without the last dimension, in the order of use."""
        shapes = defaultdict(list)
        self._run(batch, lambda name, x: shapes[name].append(x.shape[:-1]))
        return shapes

    def _run(self, batch: Batch, receive: Callable[[str, Tensor], None]) -> None:
        kind = batch.indices.device.type
        half = self._dtype is not None
        autocast = torch.autocast(kind, self._dtype) if half else nullcontext()
        watch = LinearInputs(self._names, self._tables, self._without, receive)
        with autocast, watch:
            self._model(*batch.args, **batch.kwargs)


class LinearInputs(TorchFunctionMode):
    """Calls receive(name of the weight, input) for each linear layer.

    Watches functions, not modules: every way to write a model ends in them.
    """

    def __init__(self, names, tables: set[str], otherwise: set[str], receive):
        """names: of parameters, by id. tables and otherwise collect the names of
        matrices that are used as embeddings and in any other way."""
        super().__init__()
        self._names = names
        self._tables = tables
        self._otherwise = otherwise
        self._receive = receive

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is F.multi_head_attention_forward:
            with self:
                return attention(*args, **kwargs)
        output = function(*args, **kwargs)
        named = dict(zip(("input", "weight"), args, strict=False)) | kwargs
        for argument in (*args, *kwargs.values()):
            name = self._names.get(id(argument))
            if name is None or not isinstance(output, Tensor):
                continue  # includes queries, such as of a dtype
            if function is F.linear and argument is named["weight"]:
                self._receive(name, named["input"])
            elif function is F.embedding:
                self._tables.add(name)
            elif argument.dim() == 2 and (
                function is not F.linear or argument is named["input"]
            ):
                self._otherwise.add(name)
        return output


def rows_by_shapes(
    whole: torch.Size, less: torch.Size, size: int, packed: list[tuple[int, int]]
) -> Rows | None:
    """Infers the layout from the shapes of an input, without the last dimension, for
    `size` examples and for one fewer, and from the numbers of unmasked tokens under
    masks in both runs. None: ambiguous."""
    if whole == less:
        return Rows.SHARED
    if whole[:1] == (size,) and less == (size - 1, *whole[1:]):
        return Rows.FIRST
    if whole[1:2] == (size,) and less == (whole[0], size - 1, *whole[2:]):
        return Rows.SECOND
    if len(whole) == len(less) == 1:
        if (whole[0], less[0]) in packed:
            return Rows.PACKED
        if whole[0] * (size - 1) == less[0] * size:
            return Rows.FLAT
    return None


def gram_of(
    x: Tensor, rows: Rows | None, masks: list[Tensor] | None, size: int
) -> Tensor | None:
    """Sum over examples and tokens of a a^T, (in, in), float32 or wider."""
    tokens = tokens_of(x, rows, masks, size)
    if tokens is None:
        return None
    with torch.autocast(x.device.type, enabled=False):
        wide = tokens.to(torch.promote_types(x.dtype, torch.float32))
        gram = wide.T @ wide
    return gram * size if rows is Rows.SHARED else gram


def tokens_of(
    x: Tensor, rows: Rows | None, masks: list[Tensor] | None, size: int
) -> Tensor | None:
    """(tokens, in) without masked tokens; None: unknown."""
    flat = x.reshape(-1, x.shape[-1])
    if rows is None:
        return None
    if len(flat) == size or rows in (Rows.PACKED, Rows.SHARED):
        return flat
    if masks is not None and all(mask.all() for mask in masks):
        return flat
    if masks is None or rows is Rows.FLAT:
        return None
    by_example = x.transpose(0, 1) if rows is Rows.SECOND else x
    fitting = [mask for mask in masks if mask.shape == by_example.shape[:2]]
    if not fitting or not all(map(fitting[0].equal, fitting)):
        return None
    return by_example[fitting[0]].reshape(-1, x.shape[-1])
