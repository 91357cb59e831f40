"""Records the uses of a model's parameters while the model runs."""

from collections import defaultdict
from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass
from itertools import islice
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .._C import Error
from .graph import Graph, read_graph
from .rules import RULES, Layout
from .uses import Product, Use


@dataclass(frozen=True)
class Place:
    """The part of a parameter that an operation uses: all of it, or a view of rows."""

    name: str
    begin: int  # index of its first element
    shape: torch.Size
    transposed: bool = False  # used as the transpose of `shape`

    def of(self, sums: Tensor) -> Tensor:
        end = self.begin + self.shape.numel()
        return sums.view(-1)[self.begin : end].view(self.shape)

    def overlaps(self, other: "Place") -> bool:
        ends = self.begin + self.shape.numel(), other.begin + other.shape.numel()
        return self.begin < ends[1] and other.begin < ends[0]


@dataclass(eq=False)
class Call:
    """An operation on parameters in the current forward pass."""

    rule: Callable
    args: tuple
    kwargs: dict
    places: dict[int, Place]  # keys: positions among the pairs that the rule yields
    versions: list[tuple[Tensor, int]]

    def use(self, number: int, at: Layout, grad: Tensor) -> Use:
        pairs = self.rule(at, grad, *self.args, **self.kwargs)
        use = next(islice(pairs, number, None))[1]()
        if self.places[number].transposed and isinstance(use, Product):
            use = use._replace(transposed=not use.transposed)
        return use

    def is_unchanged(self) -> bool:
        return all(x._version == version for x, version in self.versions)


class Watch(TorchFunctionMode):
    """Records the calls of torch functions that use parameters.

    A function with a rule (rules.py) gets detached parameters, and the gradient of its
    output is passed on in the backward pass. A parameter that autograd still reaches
    therefore has a use without a rule.
    """

    def __init__(self, parameters: Mapping[str, Tensor], without_rule: Container[str]):
        """without_rule: names of parameters to ignore; may grow."""
        super().__init__()
        self._names = {id(p): name for name, p in parameters.items()}
        self._without_rule = without_rule
        self._receive: Callable | None = None  # in a backward pass
        # Expands embeddings that all examples share, such as positions, over the batch,
        # so that their gradients are per example.
        self.share = True
        self._shared: set[str] = set()
        self.proven: set[str] = set()  # names whose rows are the examples'
        self.start(1)

    def start(self, batch_size: int) -> None:
        """Discards the last forward pass."""
        self.batch_size = batch_size
        self.counts: dict[Place, int] = defaultdict(int)  # uses
        self.shared_now = False  # whether `share` had an effect
        self.graph = Graph([], 0, None)
        self._calls: dict[Call, None] = {}

    def forward(self, function: Callable[[], Tensor], batch_size: int) -> Tensor:
        """Runs function, a forward pass over batch_size examples."""
        self.start(batch_size)
        with self:
            outputs = function()
        self.graph = read_graph(outputs, batch_size)
        return outputs

    def backward(
        self,
        outputs: Tensor,
        v: Tensor,
        keep_graph: bool,
        receive: Callable[[Call, Tensor], None],
    ) -> dict[str, Tensor]:
        """Calls receive(call, gradient of its output) for v . outputs.

        Returns the gradients of the parameters without a rule; computes no others.
        """

        def receive_and_release(call: Call, grad: Tensor) -> None:
            receive(call, grad)
            if not keep_graph:
                call.args, call.kwargs, call.versions = (), {}, []

        self._receive = receive_and_release
        try:
            with self:
                # Every operation lies between the outputs and a leaf.
                gradients = _grad(
                    outputs,
                    self.graph.ends,
                    v,
                    retain_graph=keep_graph,
                    allow_unused=True,
                )
        finally:
            self._receive = None
        return {
            self._names[id(leaf)]: gradient
            for leaf, gradient in zip(self.graph.ends, gradients, strict=True)
            if gradient is not None and id(leaf) in self._names
        }

    def uses_without_rule(self) -> dict[str, str]:
        """Parameters that the outputs depend on other than by recorded calls, with the
        reason."""
        problems = {}
        for leaf in self.graph.ends:
            if id(leaf) in self._names:
                problems[self._names[id(leaf)]] = "is used in a way that has no rule"
        for call in self._calls:
            if not call.is_unchanged():
                for place in call.places.values():
                    problems[place.name] = (
                        "multiplies a tensor that is changed in place later"
                    )
        places = list(self.counts)
        for i, place in enumerate(places):
            for other in places[:i]:
                if place.name == other.name and place.overlaps(other):
                    problems[place.name] = "is used in parts that overlap"
        return problems

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is F.multi_head_attention_forward:
            with self:
                return attention(*args, **kwargs)
        rule = RULES.get(func)
        functorch: Any = torch._C._functorch  # type: ignore[attr-defined]
        in_functorch = functorch.peek_interpreter_stack() is not None
        if rule is None or in_functorch or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        return self._call(func, rule, args, kwargs)

    def _call(self, func, rule, args, kwargs):
        places = {}
        frozen = {}
        try:
            pairs = rule(None, None, *args, **kwargs)
        except TypeError:  # arguments that the rule lacks, such as out=
            return func(*args, **kwargs)
        for number, (argument, _) in enumerate(pairs):
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
            output = output.expand(self.batch_size, *output.shape[-2:])
        if not output.requires_grad:
            output = output.detach().requires_grad_()
        # Shares memory, but is not a view to autograd: an in-place change of a view
        # would replace its node and hooks; here the change gets its own node.
        result = torch.ops.aten._unsafe_view(output, output.shape)
        if self._receive is None:  # else a checkpoint recomputes its forward pass
            self._record(rule, args, kwargs, places, result)
        return result

    def _find(self, x) -> Place | None:
        """The place of a parameter or of a view of one; None: not one to watch."""
        if not isinstance(x, Tensor):
            return None
        base = x if x._base is None else x._base
        name = self._names.get(id(base))
        if name is None or name in self._without_rule:
            return None
        if x is not base and x.grad_fn is None:
            return None  # a view created under no_grad
        if base._backward_hooks or not base.is_contiguous():
            return None  # left to autograd
        begin = int(x.storage_offset()) - int(base.storage_offset())
        if x.is_contiguous():
            return Place(name, begin, x.shape)
        if x.dim() == 2 and x.t().is_contiguous():
            return Place(name, begin, x.t().shape, transposed=True)
        return None

    def _is_shared(self, name: str, indices: Tensor) -> bool:
        if not self.share or self.batch_size == 1:
            return False
        is_new = name not in self.proven and len(indices) != self.batch_size
        shared = (indices.dim() == 2 and indices.shape[0] == 1) or (
            indices.dim() == 1 and (name in self._shared or is_new)
        )
        if shared:
            self._shared.add(name)
            self.shared_now = True
        return shared

    def _record(self, rule, args, kwargs, places, result: Tensor) -> None:
        def held(x):
            return x.detach() if isinstance(x, Tensor) else x

        args = tuple(held(x) for x in args)
        kwargs = {key: held(x) for key, x in kwargs.items()}
        versions = [
            (x, x._version) for x in (*args, *kwargs.values()) if isinstance(x, Tensor)
        ]
        call = Call(rule, args, kwargs, places, versions)
        self._calls[call] = None
        for place in places.values():
            self.counts[place] += 1
        result.register_hook(lambda grad: self._pass_on(call, grad))

    def _pass_on(self, call: Call, grad: Tensor) -> None:
        names = ", ".join(place.name for place in call.places.values())
        if call not in self._calls:
            raise Error(
                f"a tensor computed from {names} is kept from one forward pass to the "
                "next: use estimator='mc_batch', or a model that does not keep it"
            )
        if self._receive is None:
            raise Error(
                f"the model takes a gradient through {names} in its forward pass: use "
                "estimator='mc_batch'"
            )
        self._receive(call, grad)


def _without_override(function):
    """A copy of a function without its own check for overrides, which would disable the
    mode inside of it."""
    copy = FunctionType(
        function.__code__,
        {**function.__globals__, "has_torch_function": lambda _: False},
        argdefs=function.__defaults__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


attention = _without_override(F.multi_head_attention_forward)  # calls F.linear
_grad = _without_override(torch.autograd.grad)  # checkpoints recompute in it
