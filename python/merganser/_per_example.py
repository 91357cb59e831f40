"""Sums of squares of per-example gradients, seen as a model's parameters are used."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from . import ops
from ._batches import Batch
from ._C import Error, InputError
from ._rules import Layout, NotPerExample
from ._uses import Use, add_squares, can_join
from ._watch import Call, Place, Watch

# Examples with which a parameter's layout is looked for, and in how many batches.
_FEW = 3
_MAX_PROBES = 3


class PerExampleSquares:
    """sum_i (gradient of v_i . outputs_i)^2 of every trainable parameter.

    From the inputs and output gradients of the operations that use it (_watch.py). A
    parameter that is also used in another way is computed example by example instead,
    with a warning (or refused: `unsupported="error"`). So is one whose gradient's rows
    are not the examples of the batch: the gradient of one example must not reach
    another's rows.
    """

    def __init__(self, model: nn.Module, unsupported: str = "per_example"):
        self._parameters = {
            name: p for name, p in model.named_parameters() if p.requires_grad
        }
        # sum_i g_i^2 as model.named_parameters() names them
        self.sums = {name: accumulator(p) for name, p in self._parameters.items()}
        self._refuse = unsupported == "error"
        self._by_example: dict[str, str] = {}  # without a rule, and why
        # Layouts that proved right, for several examples and for one.
        self._minor: dict[tuple[str, bool], bool] = {}
        self._probes: dict[tuple[str, bool], int] = defaultdict(int)
        self._prepared = False
        # Rows per example in the few examples of the batch that is worked on.
        self._lengths: dict[str, set[int]] = defaultdict(set)
        self._pending: dict[Place, list[Use]] = defaultdict(list)
        self._unproven: dict[str, str] = {}
        self._watch = Watch(self._parameters, self._by_example)

    def add(
        self,
        outputs_of: Callable[[Batch], Tensor],
        batch: Batch,
        directions_of: Callable[[Tensor, Batch], Iterable[Tensor]],
    ) -> None:
        """Adds a batch's squares: one forward pass, a backward pass per direction.

        outputs_of: a forward pass of the model, (B, ...). directions_of: the v like
        those outputs.
        """
        if not self._prepared:
            self._prepare(outputs_of, batch)
        outputs = self._watched(outputs_of, batch)
        if self._new():
            self._prepare(outputs_of, batch)
            outputs = self._watched(outputs_of, batch)
        if not outputs.requires_grad:
            raise InputError("no trainable parameter of the model reaches its output")
        self._leave_to_examples(self._watch.uses_without_rule(outputs))
        for v, last in with_last(directions_of(outputs, batch)):
            self._watch.backward(outputs, v, not last, self._accumulate)
            # What waits for uses that the backward pass did not reach.
            for place in list(self._pending):
                self._add(place)
        self._leave_to_examples(self._unproven)
        if self._by_example:
            self._add_examples(outputs_of, batch, directions_of)
        self._watch.start(1)  # lets go of the batch
        self._lengths.clear()
        self._unproven.clear()

    def _watched(self, outputs_of, batch: Batch) -> Tensor:
        return self._watch.forward(lambda: outputs_of(batch), batch.size)

    # The first look

    def _prepare(self, outputs_of, batch: Batch) -> None:
        """Finds, with a few examples, what has a rule and how its rows lie."""
        self._prepared = True
        few = batch.rows(0, min(_FEW, batch.size))
        outputs = self._watched_or_not_shared(outputs_of, few)
        if not outputs.requires_grad:
            return
        if self._mixes(outputs_of, few, outputs):
            why = "the model mixes the examples of a batch"
            problems = dict.fromkeys(self._parameters, why)
        else:
            problems = self._watch.uses_without_rule(outputs)
            problems |= self._probe(outputs, set(problems))
        self._leave_to_examples(problems)

    @staticmethod
    def _mixes(outputs_of, batch: Batch, outputs: Tensor) -> bool:
        """Whether examples have other outputs by themselves than in the batch."""
        if batch.size == 1:
            return False
        with torch.no_grad():
            rows = [outputs_of(batch.rows(i, i + 1)) for i in range(batch.size)]
        return not _close(torch.cat(rows), outputs)

    def _watched_or_not_shared(self, outputs_of, batch: Batch) -> Tensor:
        """A forward pass in which sharing makes no difference to the outputs."""
        try:
            outputs = self._watched(outputs_of, batch)
        except Exception:
            if not self._watch.shared_now:
                raise
            self._watch.share = False
            return self._watched(outputs_of, batch)
        if self._watch.shared_now:
            with torch.no_grad():
                plain = outputs_of(batch)
            if not _close(plain, outputs):
                self._watch.share = False
                return self._watched(outputs_of, batch)
        return outputs

    def _new(self) -> set[str]:
        """The parameters in use whose layout is still to be found."""
        many = self._watch.batch_size > 1
        names = {place.name for place in self._watch.counts} - set(self._by_example)
        new = {name for name in names if (name, many) not in self._minor}
        return {name for name in new if self._probes[name, many] < _MAX_PROBES}

    # What has no rule

    def _leave_to_examples(self, problems: dict[str, str]) -> None:
        new = {n: why for n, why in problems.items() if n not in self._by_example}
        if not new:
            return
        listed = ", ".join(f"{name} ({why})" for name, why in new.items())
        if self._refuse:
            raise NotImplementedError(
                f"no rule gives the per-example gradients of {listed}"
            )
        warnings.warn(
            "no rule gives the per-example gradients of these parameters, so that they "
            "take a forward and a backward pass for every single example: " + listed,
            stacklevel=6,
        )
        self._by_example.update(new)

    def _add_examples(self, outputs_of, batch: Batch, directions_of) -> None:
        names = list(self._by_example)
        parameters = [self._parameters[name] for name in names]
        for i in range(batch.size):
            example = batch.rows(i, i + 1)
            outputs = outputs_of(example)
            for v, last in with_last(directions_of(outputs, example)):
                gradients = torch.autograd.grad(
                    outputs, parameters, v, retain_graph=not last, allow_unused=True
                )
                for name, gradient in zip(names, gradients, strict=True):
                    if gradient is not None:
                        ops.square_accumulate_(self.sums[name], gradient.contiguous())

    def _probe(self, outputs: Tensor, without_rule: set[str]) -> dict[str, str]:
        """Finds the layouts of parameters that are used for the first time.

        Gradients of one example must reach no other example's rows. They do where
        dimensions only happen to fit, or where examples are mixed. Returns the
        parameters for which no layout is right, and why.
        """
        many = self._watch.batch_size > 1
        layouts = [Layout(self._watch.batch_size, minor) for minor in (False, True)]
        fits: dict[str, set[bool]] = {}
        kinds: dict[str, set[type]] = defaultdict(set)
        seen: set[str] = set()

        def look(call: Call, grad: Tensor) -> None:
            for number, place in call.places.items():
                right = set()
                for layout in layouts:
                    try:
                        use = call.use(number, layout, grad)
                    except NotPerExample:
                        continue
                    others = use.grad[:example], use.grad[example + 1 :]
                    if not any(x.any() for x in others):
                        right.add(layout.minor)
                        self._lengths[place.name].add(use.grad.shape[1])
                        kinds[place.name].add(type(use))
                if grad.any():
                    seen.add(place.name)
                fits[place.name] = fits.get(place.name, right) & right

        for example in range(self._watch.batch_size):
            v = torch.zeros_like(outputs, requires_grad=False)
            v[example] = torch.arange(1.0, v[0].numel() + 1).cos().view_as(v[0])
            self._watch.backward(outputs, v, True, look)
        problems = {}
        for name in self._new() - without_rule:
            self._probes[name, many] += 1
            if not can_join(kinds[name]):
                problems[name] = "is used in ways that do not add up"
            elif not fits.get(name, {False}):
                problems[name] = (
                    "has gradients whose rows are not the examples of the batch"
                )
            elif name in seen or not many:
                self._minor[name, many] = False not in fits.get(name, {False})
                if many:
                    self._watch.proven.add(name)
        return problems

    def _accumulate(self, call: Call, grad: Tensor) -> None:
        if not call.is_unchanged():
            raise Error("an input of the model's layers changed in the backward pass")
        many = self._watch.batch_size > 1
        with torch.autocast(grad.device.type, enabled=False):
            for number, place in call.places.items():
                if place.name in self._by_example:
                    continue
                minor = self._minor.get((place.name, many))
                if minor is None:
                    # No gradient came in the probes. None now adds nothing.
                    if grad.any():
                        self._unproven[place.name] = (
                            "had no gradient when layouts were looked at"
                        )
                    continue
                try:
                    use = call.use(number, Layout(self._watch.batch_size, minor), grad)
                except NotPerExample:
                    use = None
                # The few examples were padded as the whole batch is.
                lengths = self._lengths.get(place.name)
                if use is None or (lengths and use.grad.shape[1] not in lengths):
                    raise Error(
                        f"{place.name} is not used as often for every example, as "
                        "where tokens are routed: use batches of one example"
                    )
                self._pending[place].append(use)
                if len(self._pending[place]) == self._watch.counts[place]:
                    self._add(place)

    def _add(self, place: Place) -> None:
        uses = self._pending.pop(place)
        if not can_join({type(use) for use in uses}):
            raise Error(f"{place.name} is not used in the same way in every batch")
        add_squares(place.of(self.sums[place.name]), uses)


def accumulator(parameter: Tensor) -> Tensor:
    """Zeros in the parameter's shape, float32 or wider whatever its dtype."""
    return torch.zeros_like(
        parameter,
        dtype=torch.promote_types(parameter.dtype, torch.float32),
        memory_format=torch.contiguous_format,
        requires_grad=False,
    )


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal but for rounding, which under autocast is that of half types."""
    a, b = a.detach(), b.detach()
    if a.shape != b.shape:
        return False
    half = torch.is_autocast_enabled(a.device.type) or a.dtype.itemsize < 4
    scale = float(b.abs().max()) if b.numel() else 0.0
    return bool(((a - b).abs() <= (5e-2 if half else 1e-3) * scale).all())


def with_last(items: Iterable) -> Iterator[tuple]:
    """Each item, and whether it is the last."""
    items = iter(items)
    item = next(items, None)
    while item is not None:
        following = next(items, None)
        yield item, following is None
        item = following
