"""Outputs of examples alone and in a batch: what counts as rounding."""

import pytest
import torch
from merganser._fisher.closeness import close


def logits(dtype):
    generator = torch.Generator().manual_seed(0)
    return (10 * torch.randn(3, 16, 40, generator=generator)).to(dtype)


@pytest.mark.parametrize(
    ("dtype", "noise"),
    [
        (torch.bfloat16, 1e-2),
        (torch.float16, 1e-2),
        (torch.float32, 1e-5),
        (torch.float64, 1e-10),
    ],
)
def test_rounding_is_close(dtype, noise):
    a = logits(dtype)
    b = (a.double() + noise * torch.randn(a.shape)).to(dtype)
    assert close(a, b)
    b[1, 3, 5] = a[1, 3, 5] = -torch.inf  # a masked token
    assert close(a, b)
    assert not close(a, a[:, :, :-1])


def test_half_types_may_differ_at_one_position():
    """As of a decoder of 30 layers, which amplifies its rounding there."""
    a = logits(torch.bfloat16)
    b = a.clone()
    b[2, 10] += 0.08 * a.abs().max() * torch.randn(40).clamp(-1, 1).bfloat16()
    assert close(a, b)
    assert not close(a.float(), b.float())
    with torch.autocast("cpu", torch.bfloat16):
        assert close(a.float(), b.float())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_another_example_is_not_close(dtype):
    a = logits(dtype)
    assert not close(a, a.flip(0))
    one = a.clone()
    one[1] = a[0]
    assert not close(a, one)
    shifted = a.clone()
    shifted[2] = a[2].roll(1, 0)
    assert not close(a, shifted)


@pytest.mark.parametrize("place", [0, 7])
def test_one_value_that_is_not_finite_is_not_close(place):
    a = logits(torch.bfloat16)
    b = a.clone()
    b[0, place, 0] = torch.nan
    assert not close(a, b)
