"""Token sequences of a batch and their masks.

A sequence is identified by the prefix of "attention_mask", "input_ids" or
"inputs_embeds" in the names of its tensors: "" or "decoder_", for instance. A tensor in
a nested dict or list is named by its path: "first.input_ids" has the prefix "first.".
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves_with_path, tree_map_with_path

from .batches import Batch

TOKENS = ("input_ids", "inputs_embeds")

# The sequences that determine the shape of the input, for each weight and each of its
# uses in a forward pass.
Owners = dict[str, list[set[str]]]


def masks_of(batch: Batch) -> dict[str, Tensor]:
    """Masks (B, L) by sequence, True for tokens that count; all True by default."""
    masks = {}
    for name, value in _named(batch).items():
        if name.endswith("attention_mask"):
            masks[name.removesuffix("attention_mask")] = value.bool()
    for sequence, tokens in _tokens(batch).items():
        whole = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        masks.setdefault(sequence, whole)
    return masks


def count_sequences(batch: Batch) -> int:
    """Number of sequences: of rows, or of the texts packed into them.

    The bounds of packed texts are in `cu_seq_lens_q`, in `seq_idx`, or where
    `position_ids` do not rise by 1, as from transformers' DataCollatorWithFlattening.
    """
    ends = batch.kwargs.get("cu_seq_lens_q")
    if isinstance(ends, Tensor):
        return len(ends) - 1
    for name, step in (("seq_idx", 0), ("position_ids", 1)):
        marks = batch.kwargs.get(name)
        if isinstance(marks, Tensor) and marks.dim() == 2:
            begins = marks.diff(dim=1) != step
            mask = batch.kwargs.get("attention_mask")
            if isinstance(mask, Tensor) and mask.shape == (batch.size, marks.shape[1]):
                begins = begins & mask[:, 1:].bool() & mask[:, :-1].bool()
            begins = begins.expand(batch.size, -1)  # positions may be (1, L)
            return batch.size + int(begins.sum())
    return batch.size


def shapes_tell(masks: dict[str, Tensor]) -> bool:
    """Returns whether masks of equal shape are equal, so that any of them will do."""
    pairs = combinations(masks.values(), 2)
    return all(a.shape != b.shape or a.equal(b) for a, b in pairs)


def find_owners(
    batch: Batch, shapes_of: Callable[[Batch], dict[str, list[torch.Size]]]
) -> Owners | None:
    """Finds owners by running `shapes_of` without the last token of each sequence.

    None: a sequence cannot be shortened.
    """
    masks, tokens = masks_of(batch), _tokens(batch)
    if masks.keys() != tokens.keys():
        return None
    if any(mask.dim() != 2 or mask.shape[1] < 2 for mask in masks.values()):
        return None
    whole = shapes_of(batch)
    owners = {name: [set() for _ in shapes] for name, shapes in whole.items()}
    for sequence in masks:
        try:
            cut = shapes_of(_shortened(batch, sequence, masks))
        except (RuntimeError, ValueError, IndexError):
            return None  # for example, the model has a fixed number of positions
        for name, shapes in whole.items():
            # Uses that depend on the number of tokens have no owner.
            del owners[name][len(cut[name]) :]
            for owner, a, b in zip(owners[name], shapes, cut[name], strict=False):
                if a != b:
                    owner.add(sequence)
    return owners


def _tokens(batch: Batch) -> dict[str, Tensor]:
    return {
        name.removesuffix(ending): value
        for name, value in _named(batch).items()
        for ending in TOKENS
        if name.endswith(ending) and value.dim() > 1
    }


def _named(batch: Batch) -> dict[str, Tensor]:
    """The tensors of a batch's arguments by name."""
    leaves = [*tree_leaves_with_path(batch.args), *tree_leaves_with_path(batch.kwargs)]
    return {_name(path): x for path, x in leaves if isinstance(x, Tensor)}


def _name(path: tuple) -> str:
    """Keys of dicts and positions in lists, with dots between."""
    return ".".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path)


def _shortened(batch: Batch, sequence: str, masks: dict[str, Tensor]) -> Batch:
    length = masks[sequence].shape[1]

    def cut(path, value):
        name = _name(path)
        of = max((s for s in masks if name.startswith(s)), key=len, default=None)
        fits = isinstance(value, Tensor) and value.shape[1:2] == (length,)
        return value[:, :-1] if of == sequence and fits else value

    args, kwargs = (tree_map_with_path(cut, x) for x in (batch.args, batch.kwargs))
    return replace(batch, args=args, kwargs=kwargs)
