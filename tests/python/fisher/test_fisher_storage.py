"""The forms in which a Fisher's file holds it, against their definition in float64."""

import merganser
import pytest
import tiny_models
import torch
from merganser._C import InputError
from safetensors import safe_open
from torch import Tensor

EPSILON = torch.finfo(torch.float32).eps


def expand(f: Tensor) -> Tensor:
    """r_i c_j / mean of the float32 means of the last two dimensions."""
    r = f.double().mean(-1, keepdim=True).float().double()
    c = f.double().mean(-2, keepdim=True).float().double()
    mean = r.mean(-2, keepdim=True)
    return torch.where(mean > 0, r * c / mean, 0.0)


def values(*shape: int) -> Tensor:
    """Values over many orders of magnitude, as in Fishers."""
    return torch.exp(torch.randn(shape) * 6 - 20)


def fisher(**diagonal: Tensor) -> merganser.FisherResult:
    return merganser.FisherResult(
        diagonal, num_examples=100, num_examples_used=10, estimator="exact"
    )


def stored(path) -> dict[str, Tensor]:
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture
def f(tmp_path):
    torch.manual_seed(1)
    result = fisher(
        weight=values(40, 30),
        conv=values(3, 4, 5, 6),
        narrow=values(3, 4, 2, 2),  # four means for four values
        row=values(1, 30),
        bias=values(30),
        scalar=values(),
        rows=values(9, 8),
        zeros=torch.zeros(5, 6),
        none=torch.zeros(0, 7),
    )
    result["rows"][:3] = 0  # tokens that no text has
    result["rows"][:, 4] = 0
    return result


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "factored"])
def test_is_read_as_defined(f, storage, tmp_path):
    f.save(tmp_path / "f.safetensors", storage=storage)
    read = merganser.FisherResult.load(tmp_path / "f.safetensors")
    assert set(read) == set(f)
    assert (read.num_examples, read.estimator) == (100, "exact")
    factored = {"weight", "conv", "rows", "zeros"} if storage == "factored" else set()
    for name, expected in f.items():
        assert read[name].dtype == torch.float32
        if name in factored:
            torch.testing.assert_close(
                read[name].double(), expand(expected), rtol=EPSILON, atol=1e-45
            )
        elif storage == "bfloat16":
            assert torch.equal(read[name], expected.bfloat16().float())
            assert (read[name] - expected).abs().le(2**-8 * expected).all()
        else:
            assert torch.equal(read[name], expected)
        assert read[name].ge(0).all()
        assert read[name].isfinite().all()
        if name in ("rows", "zeros"):
            assert torch.equal(read[name] == 0, expected == 0)


def test_what_a_file_has(f, tmp_path):
    f.save(tmp_path / "f.safetensors", storage="factored")
    found = stored(tmp_path / "f.safetensors")
    assert {name: tuple(t.shape) for name, t in found.items()} == {
        "weight.row_means": (40,),
        "weight.column_means": (30,),
        "conv.row_means": (3, 4, 5),
        "conv.column_means": (3, 4, 6),
        "narrow": (3, 4, 2, 2),
        "row": (1, 30),
        "bias": (30,),
        "scalar": (),
        "rows.row_means": (9,),
        "rows.column_means": (8,),
        "zeros.row_means": (5,),
        "zeros.column_means": (6,),
        "none": (0, 7),
    }
    weight = f["weight"].double()
    assert torch.equal(found["weight.row_means"], weight.mean(1).float())
    assert torch.equal(found["weight.column_means"], weight.mean(0).float())
    seen = merganser.inspect(tmp_path / "f.safetensors")
    assert seen["metadata"]["storage"] == "factored"
    assert seen["bytes"] == 4 * sum(t.numel() for t in found.values())
    assert {t["name"]: tuple(t["shape"]) for t in seen["tensors"]} == {
        name: tuple(t.shape) for name, t in f.items()
    }
    f.save(tmp_path / "g.safetensors", storage="bfloat16")
    found = stored(tmp_path / "g.safetensors")
    assert {t.dtype for t in found.values()} == {torch.bfloat16}
    f.save(tmp_path / "h.safetensors")
    with safe_open(tmp_path / "h.safetensors", "pt") as file:
        assert "storage" not in file.metadata()


def test_a_product_of_means_is_kept(tmp_path):
    """Factors of what has rank one are exact, so that saving again changes nothing."""
    torch.manual_seed(2)
    rank_one = fisher(w=values(20, 1) * values(1, 30))
    for name in ("once", "twice"):
        rank_one.save(tmp_path / name, storage="factored")
        rank_one = merganser.FisherResult.load(tmp_path / name)
    once, twice = stored(tmp_path / "once"), stored(tmp_path / "twice")
    for name in once:
        torch.testing.assert_close(once[name], twice[name], rtol=4 * EPSILON, atol=0)


def test_refusals(tmp_path):
    path = tmp_path / "f.safetensors"
    with pytest.raises(
        InputError, match="one of float32, bfloat16, factored, not 'int4'"
    ):
        fisher(w=torch.ones(2, 3)).save(path, storage="int4")
    with pytest.raises(InputError, match="tensor w factored: it has negative values"):
        fisher(w=torch.tensor([[1.0, 2, 3], [-1, 9, 9]])).save(path, storage="factored")
    with pytest.raises(InputError, match="tensor w.row_means factored: its name"):
        fisher(**{"w.row_means": torch.ones(3)}).save(path, storage="factored")
    with pytest.raises(merganser.Error, match="not finite"):
        fisher(w=torch.full((5, 5), torch.nan)).save(path, storage="factored")
    with pytest.raises(merganser.Error, match="not finite"):
        fisher(w=torch.full((1,), 3.4e38)).save(path, storage="bfloat16")
    assert not path.exists()


def test_a_posterior_reads_it(tmp_path):
    torch.manual_seed(3)
    model = tiny_models.bert()
    model.save_pretrained(tmp_path / "model")
    f = fisher(**{name: values(*p.shape) for name, p in model.named_parameters()})
    f.save(tmp_path / "f", storage="factored")
    expanded = merganser.FisherResult.load(tmp_path / "f")
    posteriors = [
        merganser.Posterior.laplace(model, fisher)
        for fisher in (tmp_path / "f", expanded)
    ]
    for name, precision in posteriors[1].precision.items():
        assert torch.equal(posteriors[0].precision[name], precision)


def test_refuses_other_storages(f, tmp_path):
    for storage in ("float16", None):
        with pytest.raises(InputError, match="storage"):
            f.save(tmp_path / "f.safetensors", storage=storage)
    with pytest.raises(merganser.Error, match="is not finite in bfloat16"):
        fisher(w=torch.full((2,), 3.4e38)).save(
            tmp_path / "f.safetensors", storage="bfloat16"
        )
    assert not (tmp_path / "f.safetensors").exists()


def test_refuses_means_whose_product_overflows(tmp_path):
    large = torch.zeros(40, 30)
    large[0] = large[:, 0] = 1e37
    large[0, 0] = 3e38
    fisher(w=large).save(tmp_path / "f.safetensors", storage="factored")
    with pytest.raises(InputError, match="row and column means overflows"):
        merganser.FisherResult.load(tmp_path / "f.safetensors")
