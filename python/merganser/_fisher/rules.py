"""Rules for per-example gradients, one per torch function.

A rule takes the layout of the batch, the gradient of the function's output (None in
the forward pass, when only the arguments matter) and the function's own arguments. It
yields pairs: an argument that may be a parameter, and a function that builds its Use
(uses.py). It yields nothing for arguments that it does not support; the parameter then
has a use without a rule.
"""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from .uses import PerExample, Product, Rows, ScaledSum, TokenSum, Use


class NotPerExample(Exception):
    """Raised for a tensor whose rows cannot be the examples of the batch."""


class Layout:
    """Assignment of a tensor's rows to the B examples of a batch.

    An operation sees (R, C) rows once leading dimensions are flattened. They are
    ordered by example ("major", as in (B, L, C)) or by token ("minor", as in
    (L, B, C)).
    """

    def __init__(self, size: int, minor: bool = False):
        self.size = size  # B
        self.minor = minor

    def tokens(self, x: Tensor, width: int) -> Tensor:
        """Reshapes x (..., width) to (B, L, width)."""
        rows = x.numel() // max(width, 1)
        if rows % self.size:
            raise NotPerExample
        if self.minor:
            return x.reshape(-1, self.size, width).transpose(0, 1)
        return x.reshape(self.size, -1, width)

    def channels(self, x: Tensor, width: int) -> Tensor:
        """Reshapes x (B, width, ...), or (B * n, width, ...), to (B, L, width)."""
        if self.minor or x.shape[0] % self.size:
            raise NotPerExample
        x = x.reshape(x.shape[0], width, -1).transpose(1, 2)
        return x.reshape(self.size, -1, width)


Yield = Iterator[tuple[Tensor | None, Callable[[], Use]]]


def _product(at: Layout, grad, input: Tensor, transposed: bool = False) -> Use:
    a = at.tokens(input, input.shape[-1])
    d = at.tokens(grad, grad.shape[-1])
    return Product(a[:, :, None], d[:, :, None], transposed)


def _linear(at, grad, input, weight, bias=None) -> Yield:
    yield weight, lambda: _product(at, grad, input)
    yield bias, lambda: TokenSum(at.tokens(grad, grad.shape[-1]))


def _matmul(at, grad, input, other) -> Yield:
    if other.dim() == 2 and input.dim() >= 2:
        yield other, lambda: _product(at, grad, input, transposed=True)


def _addmm(at, grad, input, mat1, mat2, *, beta=1, alpha=1) -> Yield:
    if beta == alpha == 1:
        yield mat2, lambda: _product(at, grad, mat1, transposed=True)
        if input.dim() == 1:
            yield input, lambda: TokenSum(at.tokens(grad, grad.shape[-1]))


def _embedding(
    at,
    grad,
    input,
    weight,
    padding_idx=None,
    max_norm=None,
    norm_type=2.0,
    scale_grad_by_freq=False,
    sparse=False,
) -> Yield:
    if max_norm is not None or scale_grad_by_freq:
        return
    if padding_idx is not None and padding_idx < 0:
        padding_idx += weight.shape[0]

    def use():
        rows = input
        if grad.shape[:-1] != input.shape:
            # One lookup for all examples, as of positions.
            rows = input.reshape(-1).expand(at.size, -1)
        return Rows(
            at.tokens(rows, 1)[..., 0].long(),
            at.tokens(grad, grad.shape[-1]),
            -1 if padding_idx is None else padding_idx,
        )

    yield weight, use


def _layer_norm(at, grad, input, normalized_shape, weight=None, bias=None, eps=1e-5):
    width = math.prod(normalized_shape)

    def scaled():
        # Recomputed, which saves memory in the forward pass.
        normalized = F.layer_norm(_wide(input), normalized_shape, eps=eps)
        return ScaledSum(at.tokens(normalized, width), at.tokens(grad, width))

    yield weight, scaled
    yield bias, lambda: TokenSum(at.tokens(grad, width))


def _rms_norm(at, grad, input, normalized_shape, weight=None, eps=None) -> Yield:
    width = math.prod(normalized_shape)

    def scaled():
        small = torch.finfo(input.dtype).eps if eps is None else eps
        normalized = F.rms_norm(_wide(input), normalized_shape, eps=small)
        return ScaledSum(at.tokens(normalized, width), at.tokens(grad, width))

    yield weight, scaled


def _channel_norm(at, grad, input, weight, bias, normalize) -> Yield:
    width = input.shape[1]
    yield (
        weight,
        lambda: ScaledSum(
            at.channels(normalize(_wide(input)), width), at.channels(grad, width)
        ),
    )
    yield bias, lambda: TokenSum(at.channels(grad, width))


def _group_norm(at, grad, input, num_groups, weight=None, bias=None, eps=1e-5):
    return _channel_norm(
        at, grad, input, weight, bias, lambda x: F.group_norm(x, num_groups, eps=eps)
    )


def _batch_norm(
    at,
    grad,
    input,
    running_mean,
    running_var,
    weight=None,
    bias=None,
    training=False,
    momentum=0.1,
    eps=1e-5,
) -> Yield:
    if not training:
        yield from _channel_norm(
            at,
            grad,
            input,
            weight,
            bias,
            lambda x: F.batch_norm(x, running_mean, running_var, eps=eps),
        )


def _convolution(dimensions: int):
    def rule(
        at, grad, input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1
    ) -> Yield:
        if input.dim() != dimensions + 2 or isinstance(padding, str):
            return

        def product():
            d = at.channels(grad, weight.shape[0])
            a = _unfold(input, weight.shape[2:], stride, padding, dilation)
            a = at.channels(a, a.shape[1])
            return Product(
                a.reshape(*a.shape[:2], groups, -1), d.reshape(*d.shape[:2], groups, -1)
            )

        yield weight, product
        yield bias, lambda: TokenSum(at.channels(grad, weight.shape[0]))

    return rule


def _unfold(x: Tensor, kernel, stride, padding, dilation) -> Tensor:
    """Reshapes x (B, C, ...) to (B, C * kernel, places): inputs of each output."""
    count = len(kernel)

    def each(value):
        return (value,) * count if isinstance(value, int) else tuple(value)

    stride, padding, dilation = each(stride), each(padding), each(dilation)
    x = F.pad(x, [side for p in reversed(padding) for side in (p, p)])
    for i in range(count):
        reach = dilation[i] * (kernel[i] - 1) + 1
        x = x.unfold(2 + i, reach, stride[i])[..., :: dilation[i]]
    # (B, C, places..., kernel...)
    places = list(range(2, 2 + count))
    x = x.permute(0, 1, *range(2 + count, 2 + 2 * count), *places)
    return x.reshape(x.shape[0], x.shape[1] * math.prod(kernel), -1)


def _multiply(at, grad, input, other) -> Yield:
    for parameter, factor in ((other, input), (input, other)):
        if isinstance(parameter, Tensor) and isinstance(factor, Tensor):
            yield parameter, _scaling(at, grad, parameter, factor)


def _scaling(at, grad, parameter, factor):
    def use():
        x = factor.expand_as(grad)
        if _is_vector(parameter, grad):
            width = parameter.numel()
            return ScaledSum(at.tokens(x, width), at.tokens(grad, width))
        return _per_example(at, _wide(grad) * _wide(x), parameter)

    return use


def _add(at, grad, input, other, *, alpha=1) -> Yield:
    if alpha == 1:
        for parameter in (other, input):
            if isinstance(parameter, Tensor):
                yield parameter, lambda p=parameter: _shift(at, grad, p)


def _shift(at, grad, parameter) -> Use:
    if _is_vector(parameter, grad):
        return TokenSum(at.tokens(grad, parameter.numel()))
    return _per_example(at, grad, parameter)


def _expand(at, grad, input, *sizes, implicit=False) -> Yield:
    yield input, lambda: _per_example(at, grad, input)


def _is_vector(parameter: Tensor, output: Tensor) -> bool:
    """Returns whether each token of `output` uses the whole parameter."""
    width = parameter.numel()
    return parameter.shape[-1:] == output.shape[-1:] == (width,) and width > 1


def _per_example(at: Layout, grad: Tensor, parameter: Tensor) -> Use:
    """The gradient of a broadcast parameter, summed over all but the batch."""
    shape = parameter.shape
    if at.size == 1:
        return PerExample(_wide(grad).sum_to_size(shape)[None, None])
    if at.minor or grad.dim() == 0 or grad.shape[0] != at.size:
        raise NotPerExample
    if parameter.dim() == grad.dim() and shape[0] != 1:
        raise NotPerExample
    aligned = (1,) * (grad.dim() - len(shape)) + shape
    total = _wide(grad).sum_to_size(at.size, *aligned[1:])
    return PerExample(total.reshape(at.size, 1, *shape))


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


# Only functions that return a new tensor: after an in-place function, others may hold
# the changed tensor, and its gradient would be missed.
RULES = {
    F.linear: _linear,
    torch.matmul: _matmul,
    torch.Tensor.matmul: _matmul,
    torch.mm: _matmul,
    torch.Tensor.mm: _matmul,
    torch.addmm: _addmm,
    F.embedding: _embedding,
    F.layer_norm: _layer_norm,
    F.rms_norm: _rms_norm,
    F.group_norm: _group_norm,
    F.batch_norm: _batch_norm,
    F.conv1d: _convolution(1),
    F.conv2d: _convolution(2),
    F.conv3d: _convolution(3),
    torch.mul: _multiply,
    torch.Tensor.mul: _multiply,
    torch.add: _add,
    torch.Tensor.add: _add,
    torch.Tensor.expand: _expand,
}
