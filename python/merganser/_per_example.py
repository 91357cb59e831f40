"""Sums of squares of per-example gradients, by hooks on a model's layers."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ._C import InputError
from ._layers import RULES, accumulator, find_rule


@dataclass
class _Layer:
    name: str
    module: nn.Module
    rule: object
    sums: dict[str, Tensor]  # by the parameters' names in the module
    calls: int = 0  # in the current forward pass


class PerExampleSquares:
    """sum_i (gradient of v_i . logits_i)^2 of every trainable parameter.

    A context manager: within it the model has hooks. Raises NotImplementedError
    that names the parameter where a sum would not be right: at construction for
    what can be seen in the model, in `forward` for what only shows in use.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self.sums: dict[str, Tensor] = {}  # as model.named_parameters() names them
        self._layers = self._find_layers()
        self._handles: list[RemovableHandle] = []
        self._batch_size = 0
        self._roots: list[Tensor] = []
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
                elif rule is None:
                    problems.append(f"{full} (in a {type(module).__name__})")
                else:
                    layer.sums[key] = accumulator(parameter)
                    self.sums[full] = layer.sums[key]
                owners.setdefault(id(parameter), full)
            layers.append(layer)
        if problems:
            kinds = ", ".join(kind.__name__ for kind in RULES)
            raise NotImplementedError(
                "per-example Fishers are implemented for untied parameters of "
                f"{kinds}; this model also trains {', '.join(problems)}: freeze "
                "them with requires_grad_(False), or use estimator='mc_batch'"
            )
        return layers

    def __enter__(self):
        for layer in self._layers:
            hook = self._make_hook(layer)
            self._handles.append(
                layer.module.register_forward_hook(hook, with_kwargs=True)
            )
        return self

    def __exit__(self, *exception):
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._roots.clear()

    def forward(self, logits_of: Callable[[], Tensor], batch_size: int) -> Tensor:
        """logits_of(), a forward pass of the model over B examples: (B, K)."""
        self._batch_size = batch_size
        self._roots = []
        for layer in self._layers:
            layer.calls = 0
        logits = logits_of()
        if not self._roots:
            raise InputError("none of the model's trainable layers reach its output")
        self._check_uses(logits)
        if batch_size > 1 and not self._probed:
            self._probe(logits)
            self._probed = True
        return logits

    def backward(self, logits: Tensor, v: Tensor, keep_graph: bool) -> None:
        """Adds the squares for the directions v (B, K) to the sums."""
        self._run(logits, v, keep_graph, self._accumulate)

    def _make_hook(self, layer: _Layer):
        def hook(module, args, kwargs, output):
            layer.calls += 1
            if layer.calls > 1:
                raise NotImplementedError(
                    f"{layer.name} is called more than once in a forward pass; "
                    "per-example Fishers are not implemented for that: use "
                    "estimator='mc_batch'"
                )
            input = args[0] if args else kwargs["input"]
            is_root = not input.requires_grad
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
            if output.requires_grad:
                if is_root:
                    self._roots.append(output)
                output.register_hook(lambda grad: self._receive(layer, input, grad))
            return output

        return hook

    def _run(self, logits: Tensor, v: Tensor, keep_graph: bool, receive) -> None:
        # Asked only for the gradients of the first layers' outputs, autograd
        # passes through every layer but computes no parameter's gradient.
        self._receive = receive
        torch.autograd.grad(
            logits, self._roots, v, retain_graph=keep_graph, allow_unused=True
        )

    def _check_uses(self, logits: Tensor) -> None:
        """A parameter may be used by its layer's call and nowhere else."""
        uses = _parameter_uses(logits)
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
        layer.rule(layer.module, layer.sums, input, grad)


def _parameter_uses(output: Tensor) -> Counter[int]:
    """How many operations under `output` take each leaf, by id()."""
    uses: Counter[int] = Counter()
    seen = {output.grad_fn}
    stack = [output.grad_fn]
    while stack:
        for node, _ in stack.pop().next_functions:
            if type(node).__name__ == "AccumulateGrad":
                uses[id(node.variable)] += 1
            elif node is not None and node not in seen:
                seen.add(node)
                stack.append(node)
    return uses
