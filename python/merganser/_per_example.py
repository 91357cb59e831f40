"""Sums of squares of per-example gradients, seen as a model's parameters are used."""

import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from types import FunctionType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from . import ops
from ._batches import Batch
from ._C import Error, InputError
from ._rules import RULES, Layout, NotPerExample
from ._uses import Product, Use, add_squares, can_join

# Examples with which a parameter's layout is looked for, and in how many batches.
_FEW = 3
_MAX_PROBES = 3


@dataclass(frozen=True)
class _Place:
    """Where in a parameter a use of it lies: all of it, or a view of some rows."""

    name: str
    begin: int  # the first of its elements
    shape: torch.Size
    transposed: bool = False  # used as the transpose of `shape`

    def of(self, sums: Tensor) -> Tensor:
        end = self.begin + self.shape.numel()
        return sums.view(-1)[self.begin : end].view(self.shape)

    def overlaps(self, other: "_Place") -> bool:
        ends = self.begin + self.shape.numel(), other.begin + other.shape.numel()
        return self.begin < ends[1] and other.begin < ends[0]


@dataclass(eq=False)
class _Call:
    """An operation on parameters in the current forward pass."""

    rule: Callable
    args: tuple
    kwargs: dict
    places: dict[int, _Place]  # by their position among the rule's arguments
    versions: list[tuple[Tensor, int]]

    def use(self, number: int, at: Layout, grad: Tensor) -> Use:
        pairs = self.rule(at, grad, *self.args, **self.kwargs)
        use = next(islice(pairs, number, None))[1]()
        if self.places[number].transposed and isinstance(use, Product):
            use = use._replace(transposed=not use.transposed)
        return use

    def is_unchanged(self) -> bool:
        return all(x._version == version for x, version in self.versions)


class PerExampleSquares(TorchFunctionMode):
    """sum_i (gradient of v_i . outputs_i)^2 of every trainable parameter.

    A context manager: within it, calls of torch functions with a rule (_rules.py)
    are given parameters without gradient, and the gradient of their output is taken
    down on its way back. What autograd still sees of a parameter is thus a use that
    has no rule; such a parameter is computed example by example instead, with a
    warning (or `unsupported="error"`). So is one whose gradient's rows are not the
    examples of the batch: the gradient of one example must not reach another's rows.
    """

    def __init__(self, model: nn.Module, unsupported: str = "per_example"):
        super().__init__()
        self._parameters = {
            name: p for name, p in model.named_parameters() if p.requires_grad
        }
        # sum_i g_i^2 as model.named_parameters() names them
        self.sums = {name: accumulator(p) for name, p in self._parameters.items()}
        self._names = {id(p): name for name, p in self._parameters.items()}
        self._refuse = unsupported == "error"
        self._by_example: dict[str, str] = {}  # without a rule, and why
        # Layouts that proved right, for several examples and for one.
        self._minor: dict[tuple[str, bool], bool] = {}
        self._probes: dict[tuple[str, bool], int] = defaultdict(int)
        self._prepared = False
        # Rows per example in the few examples of the batch that is worked on.
        self._lengths: dict[str, set[int]] = defaultdict(set)
        self._share = True  # whether what is looked up once is given to each example
        self._shared: set[str] = set()
        self._receive: Callable | None = None  # in a backward pass
        self._start(1)

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
        problems = self._uses_without_rule(outputs)
        for v, last in with_last(directions_of(outputs, batch)):
            self._run(outputs, v, not last, self._accumulate)
            self._flush()
        self._leave_to_examples(problems | self._unproven)
        if self._by_example:
            self._add_examples(outputs_of, batch, directions_of)
        self._start(1)  # lets go of the batch
        self._lengths.clear()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            with self:
                return _attention(*args, **kwargs)
        rule = RULES.get(func)
        if rule is None or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        return self._watch(func, rule, args, kwargs)

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
            problems = self._uses_without_rule(outputs)
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
        """A forward pass in which `_is_shared` makes no difference to the outputs."""
        try:
            outputs = self._watched(outputs_of, batch)
        except Exception:
            if not self._shared_now:
                raise
            self._share = False
            return self._watched(outputs_of, batch)
        if self._shared_now:
            with torch.no_grad():
                plain = outputs_of(batch)
            if not _close(plain, outputs):
                self._share = False
                return self._watched(outputs_of, batch)
        return outputs

    def _new(self) -> set[str]:
        """The parameters in use whose layout is still to be found."""
        many = self._batch_size > 1
        names = {place.name for place in self._counts} - set(self._by_example)
        new = {name for name in names if (name, many) not in self._minor}
        return {name for name in new if self._probes[name, many] < _MAX_PROBES}

    # The forward pass

    def _start(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._calls: list[_Call] = []
        self._ends: list[Tensor] = []
        self._counts: dict[_Place, int] = defaultdict(int)
        self._pending: dict[_Place, list[Use]] = defaultdict(list)
        self._shared_now = False
        self._unproven: dict[str, str] = {}

    def _watched(self, outputs_of, batch: Batch) -> Tensor:
        self._start(batch.size)
        with self:
            return outputs_of(batch)

    def _watch(self, func, rule, args, kwargs):
        """func(*args, **kwargs), and its call taken down if it uses parameters."""
        places = {}
        frozen = {}
        for number, (argument, _) in enumerate(rule(None, None, *args, **kwargs)):
            place = self._find(argument)
            if place is not None:
                places[number] = place
                frozen[id(argument)] = argument.detach()
        if not places:
            return func(*args, **kwargs)
        output = func(
            *(frozen.get(id(x), x) for x in args),
            **{key: frozen.get(id(x), x) for key, x in kwargs.items()},
        )
        if func is F.embedding and self._is_shared(places[0].name, args[0]):
            # Computed once and broadcast over the batch, as positions are: given
            # to each example, so that gradients stay per example.
            output = output.expand(self._batch_size, *output.shape[-2:])
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        # The same memory, but no view for autograd: where a view is changed in
        # place, its node and hooks are replaced; here the change has its own node.
        result = torch.ops.aten._unsafe_view(output, output.shape)
        if self._receive is None:  # otherwise a checkpoint's forward pass again
            self._take_down(rule, args, kwargs, places, result)
        return result

    def _find(self, x) -> _Place | None:
        """The place of a parameter, or of a view of one, that has a rule so far."""
        if not isinstance(x, Tensor):
            return None
        base = x if x._base is None else x._base
        name = self._names.get(id(base))
        if name is None or name in self._by_example or not base.is_contiguous():
            return None
        begin = x.storage_offset() - base.storage_offset()
        if x.is_contiguous():
            return _Place(name, begin, x.shape)
        if x.dim() == 2 and x.t().is_contiguous():
            return _Place(name, begin, x.t().shape, transposed=True)
        return None

    def _is_shared(self, name: str, indices: Tensor) -> bool:
        if not self._share or self._batch_size == 1:
            return False
        is_new = (name, True) not in self._minor and len(indices) != self._batch_size
        shared = (indices.dim() == 2 and indices.shape[0] == 1) or (
            indices.dim() == 1 and (name in self._shared or is_new)
        )
        if shared:
            self._shared.add(name)
            self._shared_now = True
        return shared

    def _take_down(self, rule, args, kwargs, places, result: Tensor) -> None:
        def held(x):
            return x.detach() if isinstance(x, Tensor) else x

        args = tuple(held(x) for x in args)
        kwargs = {key: held(x) for key, x in kwargs.items()}
        versions = [
            (x, x._version) for x in (*args, *kwargs.values()) if isinstance(x, Tensor)
        ]
        call = _Call(rule, args, kwargs, places, versions)
        self._calls.append(call)
        for place in places.values():
            self._counts[place] += 1
        result.register_hook(lambda grad: self._receive(call, grad))

    # What has no rule

    def _uses_without_rule(self, outputs: Tensor) -> dict[str, str]:
        problems = {}
        self._ends = list(_leaves(outputs))
        for leaf in self._ends:
            if id(leaf) in self._names:
                problems[self._names[id(leaf)]] = "is used in a way that has no rule"
        for call in self._calls:
            if not call.is_unchanged():
                for place in call.places.values():
                    problems[place.name] = (
                        "multiplies a tensor that is changed in place afterwards"
                    )
        places = list(self._counts)
        for i, place in enumerate(places):
            for other in places[:i]:
                if place.name == other.name and place.overlaps(other):
                    problems[place.name] = "is used in parts that overlap"
        return problems

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

    # The backward pass

    def _run(self, outputs: Tensor, v: Tensor, keep_graph: bool, receive) -> None:
        self._receive = lambda call, grad: receive(call, grad, keep_graph)
        try:
            with self:
                torch.autograd.grad(
                    outputs, self._ends, v, retain_graph=keep_graph, allow_unused=True
                )
        finally:
            self._receive = None

    def _probe(self, outputs: Tensor, without_rule: set[str]) -> dict[str, str]:
        """Finds the layouts of parameters that are used for the first time.

        Gradients of one example must reach no other example's rows. They do where
        dimensions only happen to fit, or where examples are mixed. Returns the
        parameters for which no layout is right, and why.
        """
        many = self._batch_size > 1
        layouts = [Layout(self._batch_size, minor) for minor in (False, True)]
        fits: dict[str, set[bool]] = {}
        kinds: dict[str, set[type]] = defaultdict(set)
        seen: set[str] = set()

        def look(call: _Call, grad: Tensor, keep_graph: bool) -> None:
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

        for example in range(self._batch_size):
            v = torch.zeros_like(outputs, requires_grad=False)
            v[example] = torch.arange(1.0, v[0].numel() + 1).cos().view_as(v[0])
            self._run(outputs, v, True, look)
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
        return problems

    def _accumulate(self, call: _Call, grad: Tensor, keep_graph: bool) -> None:
        if not call.is_unchanged():
            raise Error("an input of the model's layers changed in the backward pass")
        many = self._batch_size > 1
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
                    use = call.use(number, Layout(self._batch_size, minor), grad)
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
                if len(self._pending[place]) == self._counts[place]:
                    self._add(place)
        if not keep_graph:
            call.args, call.kwargs, call.versions = (), {}, []

    def _flush(self) -> None:
        """Adds what waits for uses that the backward pass did not reach."""
        for place in list(self._pending):
            self._add(place)

    def _add(self, place: _Place) -> None:
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


def _leaves(outputs: Tensor) -> Iterator[Tensor]:
    """The tensors at the ends of the graph under `outputs`."""
    stack = [outputs.grad_fn]
    nodes = set(stack)
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is None or node in nodes:
                continue
            nodes.add(node)
            if type(node).__name__ == "AccumulateGrad":
                yield node.variable
            else:
                stack.append(node)


def with_last(items: Iterable) -> Iterator[tuple]:
    """Each item, and whether it is the last."""
    items = iter(items)
    item = next(items, None)
    while item is not None:
        following = next(items, None)
        yield item, following is None
        item = following


# The same function without its own test for overrides, which would hide the
# operations in it: the in-projection is one of F.linear.
_attention = FunctionType(
    F.multi_head_attention_forward.__code__,
    {**vars(F), "has_torch_function": lambda _: False},
    argdefs=F.multi_head_attention_forward.__defaults__,
)
_attention.__kwdefaults__ = F.multi_head_attention_forward.__kwdefaults__
