"""Sums of squares of per-example gradients, seen as a model's layers are called."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, Node, get_gradient_edge

from ._C import InputError
from ._layers import RULES, Rule, accumulator, find_rule


@dataclass
class _Layer:
    name: str
    module: nn.Module
    rule: Rule | None
    sums: dict[str, Tensor]  # by the parameters' names in the module
    # Of the current forward pass:
    calls: int = 0
    output: GradientEdge | None = None  # None: not called, or without gradient
    reached: bool = False  # by the current backward pass


class PerExampleSquares:
    """sum_i (gradient of v_i . logits_i)^2 of every trainable parameter.

    A context manager: within it the layers' forward functions are wrapped, so
    that what is seen is a layer's own input and output, whatever hooks it has.
    Raises NotImplementedError that names the parameter where a sum would not be
    right: at construction for what can be seen in the model, in `forward` and
    `backward` for what only shows in use.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.sums: dict[str, Tensor] = {}  # as model.named_parameters() names them
        self._layers = self._find_layers()
        self._batch_size = 0
        self._roots: list[GradientEdge] = []
        self._probed = False

    def _find_layers(self) -> list[_Layer]:
        layers = []
        problems = []
        owners: dict[int, str] = {}
        for name, module in self.model.named_modules():
            own = {k: p for k, p in module._parameters.items() if p is not None}
            own = {k: p for k, p in own.items() if p.requires_grad}
            if not own:
                continue
            rule = find_rule(module)
            layer = _Layer(name or type(module).__name__, module, rule, {})
            for key, parameter in own.items():
                full = f"{name}.{key}" if name else key
                if id(parameter) in owners:
                    problems.append(f"{full} (tied to {owners[id(parameter)]})")
                elif rule is None or key not in rule.keys:
                    problems.append(f"{full} (in a {type(module).__name__})")
                elif "forward" in vars(module):
                    problems.append(f"{full} (in a layer with its own forward)")
                else:
                    layer.sums[key] = accumulator(parameter)
                    self.sums[full] = layer.sums[key]
                owners.setdefault(id(parameter), full)
            layers.append(layer)
        if problems:
            kinds = ", ".join(kind.__name__ for kind in RULES)
            raise NotImplementedError(
                "per-example Fishers are implemented for untied weights and biases "
                f"of {kinds}; this model also trains {', '.join(problems)}: freeze "
                "them with requires_grad_(False), or use estimator='mc_batch'"
            )
        return layers

    def __enter__(self):
        for layer in self._layers:
            layer.module.forward = self._wrap(layer)
        return self

    def __exit__(self, *exception):
        for layer in self._layers:
            del layer.module.forward
            layer.output = None
        self._roots.clear()

    def forward(self, logits_of: Callable[[], Tensor], batch_size: int) -> Tensor:
        """logits_of(), a forward pass of the model over B examples: (B, K)."""
        self._batch_size = batch_size
        self._roots = []
        for layer in self._layers:
            layer.calls = 0
            layer.output = None
        logits = logits_of()
        nodes, uses = _graph(logits)
        self._check_uses(uses)
        for layer in self._layers:
            if layer.output is not None and layer.output.node not in nodes:
                layer.output = None
        if not any(layer.output for layer in self._layers):
            raise InputError("none of the model's trainable layers reach its output")
        if batch_size > 1 and not self._probed:
            self._probe(logits)
            self._probed = True
        return logits

    def backward(self, logits: Tensor, v: Tensor, keep_graph: bool) -> None:
        """Adds the squares for the directions v (B, K) to the sums."""
        self._run(logits, v, keep_graph, self._accumulate)

    def _wrap(self, layer: _Layer):
        def forward(*args, **kwargs):
            layer.calls += 1
            if layer.calls > 1:
                raise NotImplementedError(
                    f"{layer.name} is called more than once in a forward pass; "
                    "per-example Fishers are not implemented for that: use "
                    "estimator='mc_batch'"
                )
            input = args[0] if args else kwargs["input"]
            output = type(layer.module).forward(layer.module, *args, **kwargs)
            return self._watch(layer, input, output)

        return forward

    def _watch(self, layer: _Layer, input: Tensor, output: Tensor) -> Tensor:
        """The output, as a tensor whose gradient the layer's rule will be given."""
        is_root = not self._roots or not input.requires_grad
        input = input.detach()
        if input.shape[:1] == (1,) != (self._batch_size,):
            # Computed once and broadcast over the batch, as positions are:
            # given to each example, so that gradients stay per example.
            input = input.expand(self._batch_size, *input.shape[1:])
            output = output.expand(self._batch_size, *output.shape[1:])
        if input.shape[:1] != (self._batch_size,):
            raise NotImplementedError(
                f"the first dimension of {layer.name}'s input must be the "
                f"batch ({self._batch_size} examples) or 1, but its shape is "
                f"{tuple(input.shape)}: use estimator='mc_batch'"
            )
        if not output.requires_grad:
            return output
        # The same memory, but no view for autograd: where a view is changed in
        # place, its node and hooks are replaced; here the change has its own node.
        output = torch.ops.aten._unsafe_view(output, output.shape)
        layer.output = get_gradient_edge(output)
        if is_root:
            self._roots.append(layer.output)
        version = input._version

        def receive(grad: Tensor) -> None:
            layer.reached = True
            if "weight" in layer.sums and input._version != version:
                raise NotImplementedError(
                    f"{layer.name}'s input is changed in place after the layer has "
                    "used it: use estimator='mc_batch'"
                )
            self._receive(layer, input, grad)

        output.register_hook(receive)
        return output

    def _run(self, logits: Tensor, v: Tensor, keep_graph: bool, receive) -> None:
        self._receive = receive
        for layer in self._layers:
            layer.reached = False
        # Asked only for the gradients of the first layers' outputs, autograd
        # passes through every layer but computes no parameter's gradient.
        torch.autograd.grad(
            logits, self._roots, v, retain_graph=keep_graph, allow_unused=True
        )
        for layer in self._layers:
            if layer.output is not None and not layer.reached:
                raise NotImplementedError(
                    f"the logits depend on {layer.name}, but the backward pass does "
                    "not reach it: use estimator='mc_batch'"
                )

    def _check_uses(self, uses: Counter[int]) -> None:
        """A parameter may be used by its layer's call and nowhere else."""
        for layer in self._layers:
            for key in layer.sums:
                count = uses[id(getattr(layer.module, key))]
                if count > layer.calls:
                    raise NotImplementedError(
                        f"{layer.name}.{key} is also used outside of its layer's "
                        "call; per-example Fishers are not implemented for that: "
                        "use estimator='mc_batch'"
                    )

    def _probe(self, logits: Tensor) -> None:
        """Gradients of the last example must reach no other example's rows.

        They do where the first dimension only happens to be as long as the
        batch, or where examples are mixed as by BatchNorm.
        """
        v = torch.zeros_like(logits)
        v[-1, 0] = 1
        self._run(logits, v, True, self._expect_last_row)

    @staticmethod
    def _expect_last_row(layer: _Layer, input: Tensor, grad: Tensor) -> None:
        if grad[:-1].any():
            raise NotImplementedError(
                f"the rows of {layer.name}'s output are not the examples of the "
                "batch, or the model mixes examples: use estimator='mc_batch'"
            )

    def _accumulate(self, layer: _Layer, input: Tensor, grad: Tensor) -> None:
        layer.rule.add(layer.module, layer.sums, input, grad)


def _graph(output: Tensor) -> tuple[set[Node], Counter[int]]:
    """The operations under `output`, and how many take each leaf, by id()."""
    uses: Counter[int] = Counter()
    nodes = {output.grad_fn} - {None}
    stack = list(nodes)
    while stack:
        for node, _ in stack.pop().next_functions:
            if type(node).__name__ == "AccumulateGrad":
                uses[id(node.variable)] += 1
            elif node is not None and node not in nodes:
                nodes.add(node)
                stack.append(node)
    return nodes, uses
