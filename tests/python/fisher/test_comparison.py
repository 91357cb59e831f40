"""compare_fishers against the definitions in float64, and divisions by 0."""

import math

import numpy as np
import pytest
import torch
from merganser import FisherResult, InputError
from merganser.comparison import compare_fishers

SHAPES = {"b.weight": (7, 5), "a.bias": (11,), "c": (2, 3, 4), "d.scalar": ()}


def fisher(seed, dtype=torch.float32, ties=False):
    """Values over many orders of magnitude, some of them 0."""
    generator = torch.Generator().manual_seed(seed)
    values = {}
    for name, shape in SHAPES.items():
        exponents = torch.randn(shape, generator=generator, dtype=torch.float64)
        f = 10 ** (3 * exponents - 9)
        f = f.mul(1e9).round().clamp(max=4) if ties else f
        values[name] = torch.where(exponents < -1, 0.0, f).to(dtype)
    return values


def numbers(row):
    return [
        row.relative_error,
        row.cosine,
        row.rank_correlation,
        row.ratio_of_means,
    ]


def ranks(x):
    """Number of smaller values plus half the number of equal ones."""
    smaller, equal = x[:, None] > x, x[:, None] == x
    return smaller.sum(1) + (equal.sum(1) + 1) / 2


@np.errstate(divide="ignore", invalid="ignore")
def expected(a, b):
    a, b = (x.double().numpy().ravel() for x in (a, b))
    rank = np.corrcoef(ranks(a), ranks(b))[0, 1] if a.size > 1 else math.nan
    return [
        np.linalg.norm(a - b) / np.linalg.norm(b),
        np.vdot(a, b) / (np.linalg.norm(a) * np.linalg.norm(b)),
        rank,
        a.mean() / b.mean(),
    ]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(
    "dtypes",
    [
        (torch.float32, torch.float32),
        (torch.float64, torch.float32),
        (torch.bfloat16, torch.float64),
        (torch.float16, torch.bfloat16),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_values(seed, dtypes, ties):
    a, b = (fisher(2 * seed + k, dtype, ties) for k, dtype in enumerate(dtypes))
    found = compare_fishers(a, b)
    assert [row.name for row in found.tensors] == sorted(SHAPES)
    for row in found.tensors:
        assert row.elements == a[row.name].numel()
        np.testing.assert_allclose(
            numbers(row), expected(a[row.name], b[row.name]), rtol=1e-12, atol=1e-12
        )
    together = [torch.cat([f[n].double().flatten() for n in SHAPES]) for f in (a, b)]
    np.testing.assert_allclose(
        numbers(found.total), expected(*together), rtol=1e-12, atol=1e-12
    )
    assert found.total.elements == together[0].numel()


def test_signs_and_zeros():
    """Ranks of values of both signs, as outside of Fishers; -0 equals 0."""
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(1000, generator=generator).mul(3).round()
    b = a + torch.randn(1000, generator=generator)
    a[a == 0] = torch.tensor([0.0, -0.0]).repeat(1000)[: int((a == 0).sum())]
    row = compare_fishers({"w": a}, {"w": b}).total
    np.testing.assert_allclose(numbers(row), expected(a, b), rtol=1e-12)


def test_equal_and_scaled():
    b = fisher(0)
    np.testing.assert_allclose(numbers(compare_fishers(b, b).total), [0, 1, 1, 1])
    scaled = {name: 3 * f.double() for name, f in b.items()}
    np.testing.assert_allclose(numbers(compare_fishers(scaled, b).total), [2, 1, 1, 3])


def test_fisher_results():
    a, b = (FisherResult(fisher(s), 10, 10, "exact") for s in (0, 1))
    assert str(compare_fishers(a, b)) == str(compare_fishers(a.diagonal, b.diagonal))
    assert compare_fishers(a.H, b).total.ratio_of_means == pytest.approx(
        10 * compare_fishers(a, b).total.ratio_of_means
    )


def test_nothing_is_hidden():
    one, zero = torch.ones(3), torch.zeros(3)
    ramp = torch.arange(3.0)
    nan, inf = math.nan, math.inf

    def row(a, b):
        return numbers(compare_fishers({"w": a}, {"w": b}).total)

    np.testing.assert_equal(row(ramp, zero), [inf, nan, nan, inf])
    np.testing.assert_equal(row(zero, zero), [nan, nan, nan, nan])
    np.testing.assert_equal(row(zero, ramp), [1, nan, nan, 0])
    np.testing.assert_equal(row(one, ramp)[2], nan)
    np.testing.assert_equal(row(torch.tensor([1, nan, 2]), ramp), [nan] * 4)
    np.testing.assert_equal(row(torch.tensor([1, 2, inf]), ramp)[0], inf)
    np.testing.assert_equal(row(torch.empty(0), torch.empty(0)), [nan] * 4)


def test_order_and_tables():
    a = {"z": torch.tensor([1.0, 2]), "<y>": torch.zeros(2), "x": torch.ones(2)}
    b = {"x": torch.ones(2), "z": torch.tensor([1.0, 1]), "<y>": torch.zeros(2)}
    by_name = compare_fishers(a, b)
    assert [row.name for row in by_name.tensors] == ["<y>", "x", "z"]
    by_error = compare_fishers(a, b, sort="error")
    assert [row.name for row in by_error.tensors] == ["<y>", "z", "x"]
    assert by_error.total == by_name.total

    lines = str(by_error).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert (
        lines[0].split()
        == "tensor elements relative error cosine rank "
        "correlation ratio of means".split()
    )
    assert lines[2].split() == ["<y>", "2", "nan", "nan", "nan", "nan"]
    assert lines[-1].split()[:3] == ["total", "6", "0.5"]
    html = by_error._repr_html_()
    assert "&lt;y&gt;" in html and "<y>" not in html
    assert html.count("<tr>") == 5


@pytest.mark.parametrize(
    "a, b, message",
    [
        ({"w": 1}, {"v": 1, "w": 1}, "tensor 'v' is in b but not in a"),
        ({"v": 1, "w": 1}, {"w": 1}, "tensor 'v' is in a but not in b"),
        (
            {"v": 1, "w": 1},
            {"v": 2, "w": 1},
            r"'v' has shape \[1\] in a and \[2\] in b",
        ),
        ({}, {}, "no tensor"),
    ],
)
def test_refuses(a, b, message):
    a, b = ({name: torch.ones(n) for name, n in f.items()} for f in (a, b))
    with pytest.raises(InputError, match=message):
        compare_fishers(a, b)


def test_refuses_other_things():
    f = {"w": torch.ones(1)}
    with pytest.raises(InputError, match="a must be a mapping"):
        compare_fishers([f], f)
    with pytest.raises(InputError, match="b: 'w' is .*float"):
        compare_fishers(f, {"w": 1.0})
    with pytest.raises(InputError, match="complex64, not a real tensor"):
        compare_fishers({"w": f["w"].cfloat()}, f)
    with pytest.raises(InputError, match="sort must be"):
        compare_fishers(f, f, sort="size")
