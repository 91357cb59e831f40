"""Losses of class labels: one per example, or one per position of a sequence."""

import torch
from torch import Tensor
from torch.nn import functional

from .. import _C, ops
from .._C import InputError
from .._fisher.batches import INTEGERS, Batch
from .loss import NO_LABELS, Loss, row_keys, shape_text

# Max number of elements of the float64 probabilities held at a time.
_CHUNK = 1 << 20
_MAX_DIRECTIONS = 10_000


class Classification(Loss):
    """Softmax over K classes: one label per example, or one per position.

    Outputs are (B, K), or (B, L, K) for sequences of L labels that are independent
    given the text. A position counts if its label is not -100; without labels, if its
    attention mask is not 0. `shift`: position t predicts the label of position t + 1,
    as in a causal language model.
    """

    def __init__(self, shift: bool = False):
        self.name = "causal_lm" if shift else "classification"
        self._shift = shift

    def check(self, outputs, batch):
        positions = (3,) if self._shift else (2, 3)
        if outputs.dim() not in positions or outputs.shape[-1] < 2:
            shape = "(B, L, K)" if self._shift else "(B, K) or (B, L, K)"
            raise InputError(
                f"loss='{self.name}' takes logits {shape} with K >= 2 classes, not "
                f"{shape_text(outputs)}"
            )
        self._targets(outputs, batch)

    def probabilities(self, outputs):
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        return torch.softmax(outputs, dim=-1, dtype=dtype)

    def exact(self, outputs, batch):
        if outputs.dim() == 2:
            check_passes(outputs.shape[1] - 1)
            yield from _C.exact_directions(outputs)
            return
        counted = self._counted(outputs, batch)
        positions = counted.any(0).nonzero().flatten().tolist()
        check_passes(len(positions) * (outputs.shape[-1] - 1))
        for t in positions:
            for v in _C.exact_directions(outputs[:, t]):
                direction = torch.zeros_like(outputs, requires_grad=False)
                direction[:, t] = v * counted[:, t, None]
                yield direction

    def sampled(self, outputs, batch, seed, sample):
        counted = self._counted(outputs, batch)
        keys = row_keys(batch.indices, counted)

        def labels(logits, rows):
            p = torch.softmax(logits.double(), dim=-1)
            return ops.sample_labels(p, keys[rows], seed, sample)

        return self._directions(outputs, counted, labels)

    def given(self, outputs, batch):
        targets = self._targets(outputs, batch)
        if targets is None:
            raise InputError(NO_LABELS)
        counted = self._counted(outputs, batch)
        chosen = targets.to(outputs.device)[counted].long()
        classes = outputs.shape[-1]
        if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < classes:
            raise InputError(
                f"labels must be from 0 to {classes - 1}, as the model has {classes} "
                f"classes; got {int(chosen.min())} to {int(chosen.max())}"
            )
        return self._directions(outputs, counted, lambda _, rows: chosen[rows])

    def mean(self, outputs, batch):
        p = torch.softmax(outputs.detach(), -1)
        return p * self._counted(outputs, batch)[..., None]

    def entropy(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The entropy of each row that counts, (rows,), in nats; differentiable."""
        rows = outputs[self._counted(outputs, batch)]
        wide = torch.promote_types(rows.dtype, torch.float32)
        log_p = torch.log_softmax(rows, -1, dtype=wide)
        return -(log_p.exp() * log_p).sum(-1)

    def basis(self, outputs):
        if outputs.dim() != 2:
            return None
        directions = []
        for k in range(1, outputs.shape[1]):  # scores of an example add up to 0
            row = outputs.new_zeros(outputs.shape[1])
            row[:k], row[k] = 1, -k
            directions.append((row / row.norm()).expand_as(outputs).contiguous())
        return directions

    def nll(self, outputs, batch):
        wide = outputs.to(torch.promote_types(outputs.dtype, torch.float32))
        if batch.soft is not None:
            losses = -torch.log_softmax(wide, -1) * batch.soft.to(wide)
        else:
            targets = self._targets(outputs, batch)
            if targets is None:
                raise InputError(NO_LABELS)
            targets = targets.to(outputs.device).long().flatten()
            rows = wide.flatten(0, -2)
            losses = functional.cross_entropy(rows, targets, reduction="none")
        return losses.double().reshape(batch.size, -1).sum(1)

    def terms(self, outputs, batch):
        targets = self._targets(outputs, batch)
        # Training losses use the labels only, not the mask.
        counted = self._counted(outputs, batch) if targets is None else targets != -100
        return float(counted.sum())

    def _targets(self, outputs: Tensor, batch: Batch) -> Tensor | None:
        """The labels (B,) or (B, L) that the outputs predict; -100: none."""
        labels = batch.labels
        if labels is None:
            return None
        if labels.dtype not in INTEGERS or labels.shape != outputs.shape[:-1]:
            raise InputError(
                f"loss='{self.name}' takes labels {shape_text(outputs[..., 0])} of "
                f"integers, not {labels.dtype} {shape_text(labels)}"
            )
        return _shifted(labels, -100) if self._shift else labels

    def _counted(self, outputs: Tensor, batch: Batch) -> Tensor:
        """Mask of the rows of the outputs that count, (B,) or (B, L) bool."""
        shape, device = outputs.shape[:-1], outputs.device
        if len(shape) == 1:
            return torch.ones(shape, dtype=torch.bool, device=device)
        targets = self._targets(outputs, batch)
        mask = batch.kwargs.get("attention_mask")
        if targets is not None:
            counted = (targets != -100).to(device)
            if self._shift and mask is not None and mask.shape == shape:
                # Left padding cannot predict the first token.
                counted &= mask != 0
            return counted
        if mask is None:
            mask = torch.ones(shape, device=device)
        if mask.shape != shape:
            raise InputError(
                f"loss='{self.name}' needs labels or an attention_mask "
                f"{tuple(shape)} to know which positions count"
            )
        mask = mask != 0
        return mask & _shifted(mask, False) if self._shift else mask

    def _directions(self, outputs, counted, labels_of) -> Tensor:
        """onehot(label) - p in counted rows, 0 elsewhere."""
        v = torch.zeros_like(outputs, requires_grad=False)
        logits = outputs.detach()
        if outputs.dim() == 2:
            return _C.label_direction(logits, labels_of(logits, slice(None)))
        places = counted.nonzero(as_tuple=True)
        step = max(1, _CHUNK // outputs.shape[-1])
        for begin in range(0, len(places[0]), step):
            rows = slice(begin, begin + step)
            place = tuple(index[rows] for index in places)
            chunk = logits[place]
            v[place] = _C.label_direction(chunk, labels_of(chunk, rows))
        return v


def check_passes(count: int) -> None:
    if count > _MAX_DIRECTIONS:
        raise InputError(
            f"estimator='exact' would take {count} backward passes per batch, one "
            "for each position and class: use 'mc'"
        )


def _shifted(x: Tensor, last) -> Tensor:
    """(B, L): element t is x[t + 1]; the last one is `last`."""
    return torch.cat([x[:, 1:], torch.full_like(x[:, :1], last)], 1)
