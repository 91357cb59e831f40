"""merganser.Posterior against torch.distributions, gradient matching and loops."""

import copy
import math
import re

import hf_training
import merganser
import pytest
import tiny_models
import torch
from merganser import FisherResult, InputError, Posterior
from torch import nn

SHAPES = {"w": (5, 3), "b": (5,)}


def draw(seed, dtype=torch.float64, zeros=False):
    """A state dict with a constant buffer, and a Fisher of 2 to 9 examples."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        n: torch.randn(s, generator=generator, dtype=dtype) for n, s in SHAPES.items()
    }
    diagonal = {
        n: torch.rand(s, generator=generator, dtype=dtype) for n, s in SHAPES.items()
    }
    if zeros:
        diagonal["w"][seed % 5 :] = 0
    state |= {"scale": torch.ones(2, dtype=dtype), "count": torch.tensor(seed)}
    return state, FisherResult(diagonal, 2 + seed, 1, "exact")


def normal(posterior):
    """The same distribution by torch."""
    return {
        n: torch.distributions.Normal(posterior.mean[n], p.rsqrt())
        for n, p in posterior.precision.items()
    }


def experts(dtype=torch.float64, zeros=False, delta=1e-12):
    base, base_fisher = draw(0, dtype, zeros)
    drawn = [draw(seed, dtype, zeros) for seed in (1, 2, 3)]
    prior = Posterior.laplace(base, base_fisher, delta=delta)
    posteriors = [
        Posterior.laplace(state, fisher, base_fisher, delta=delta)
        for state, fisher in drawn
    ]
    return prior, posteriors, base, base_fisher, *map(list, zip(*drawn, strict=True))


@pytest.mark.parametrize("delta", [0.0, 1e-12, 0.5])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float64, 1e-14), (torch.float32, 2e-6)]
)
def test_product_is_gradient_matching(dtype, tolerance, zeros, delta):
    prior, posteriors, base, base_fisher, states, fishers = experts(dtype, zeros, delta)
    for weights in (1.0, [0.3, 1.0, 2.5]):
        product = Posterior.product(posteriors, prior, weights)
        merged = merganser.merge(
            base,
            states,
            fishers,
            weights=weights,
            base_fisher=base_fisher,
            parameters={"delta": delta},
        )
        assert list(product.mean) == list(merged)
        for name, expected in merged.items():
            assert product.mean[name].dtype == expected.dtype
            torch.testing.assert_close(
                product.mean[name], expected, rtol=tolerance, atol=tolerance
            )
        alphas = [weights] * 3 if weights == 1.0 else weights
        for name in SHAPES:
            total = base_fisher.H[name].double() + delta
            for a, fisher in zip(alphas, fishers, strict=True):
                total = total + a * fisher.H[name].double()
            torch.testing.assert_close(
                product.precision[name].double(), total, rtol=tolerance, atol=tolerance
            )


def test_product_divides_by_the_base():
    """log q = log p_0 + sum_t a_t (log p_t - log p_0), up to a constant."""
    prior, posteriors, base, *_ = experts(delta=0.1)
    weights = [0.3, 1.0, 0.7]
    product = Posterior.product(posteriors, prior, weights)
    constants = []
    for seed in range(4):
        state = base | {n: draw(10 + seed)[0][n] for n in SHAPES}
        own = prior.log_density(state)
        expected = own + sum(
            w * (p.log_density(state | {"count": p.mean["count"]}) - own)
            for w, p in zip(weights, posteriors, strict=True)
        )
        constants.append(product.log_density(state) - expected)
    assert max(constants) - min(constants) < 1e-9


def test_log_density_is_that_of_torch():
    state, fisher = draw(4)
    posterior = Posterior.laplace(state, fisher, delta=0.2)
    other = state | {n: draw(5)[0][n] for n in SHAPES}
    expected = sum(d.log_prob(other[n]).sum() for n, d in normal(posterior).items())
    assert math.isclose(posterior.log_density(other), float(expected), rel_tol=1e-12)


def test_laplace_on_ridge_regression():
    """The Fisher of a Gaussian model plus the prior is its Hessian's diagonal."""
    torch.manual_seed(0)
    x = torch.randn(40, 6, dtype=torch.float64)
    model = nn.Linear(6, 1, bias=False).double()
    fisher = merganser.fisher(model, [x], loss="regression")
    posterior = Posterior.laplace(model, fisher, delta=0.3)
    hessian = x.T @ x + 0.3 * torch.eye(6)
    torch.testing.assert_close(posterior.precision["weight"][0], hessian.diagonal())


@pytest.mark.slow
def test_samples_have_the_mean_and_the_precision():
    state, fisher = draw(6)
    posterior = Posterior.laplace(state, fisher, delta=0.2)
    generator = torch.Generator().manual_seed(1)
    drawn = [posterior.sample(generator) for _ in range(4000)]
    for name, p in posterior.precision.items():
        x = torch.stack([s[name] for s in drawn])
        scores = (x.mean(0) - posterior.mean[name]) * (4000 * p).sqrt()
        assert scores.abs().max() < 4.5
        assert (x.var(0) * p - 1).abs().max() < 4.5 * math.sqrt(2 / 4000)
    assert all(torch.equal(s["scale"], state["scale"]) for s in drawn)


def test_a_seed_determines_the_sample():
    posterior = Posterior.laplace(*draw(6), delta=0.2)
    a, b, c = (posterior.sample(seed) for seed in (3, 3, 4))
    assert all(torch.equal(a[n], b[n]) for n in a)
    assert not torch.equal(a["w"], c["w"])


def test_samples_are_those_of_cpp():
    """The numbers of tests/cpp/fisher/test_posterior.cpp."""
    mean = {"b": torch.tensor([1.0, 2.0]), "w": torch.zeros(20)}
    precision = {"b": torch.tensor([4.0, 16.0]), "w": torch.ones(20)}
    posterior = Posterior(mean, precision)
    generator = torch.Generator().manual_seed(7)
    for b, w in (
        ([0.9266025, 2.1965353], [-0.1669960, 1.4058529]),
        ([1.8895775, 1.7705173], [2.5116029, 0.5920297]),
    ):
        drawn = posterior.sample(generator)
        assert drawn["b"].tolist() == pytest.approx(b, abs=1e-6)
        assert drawn["w"][[0, 19]].tolist() == pytest.approx(w, abs=1e-6)


def test_zeros_are_refused_until_a_prior_is_added():
    state, fisher = draw(3, zeros=True)
    posterior = Posterior.laplace(state, fisher)
    assert posterior.zeros == {"w": 6}
    assert "6 with precision 0" in repr(posterior)
    for act in (
        posterior.sample,
        lambda: posterior.log_density(state),
        lambda: posterior.predict(nn.Linear(3, 5), [torch.ones(1, 3)]),
    ):
        with pytest.raises(InputError, match="6 of tensor 'w'.*call with_prior"):
            act()
    proper = posterior.with_prior(0.1)
    assert proper.zeros == {}
    assert torch.equal(proper.precision["w"], posterior.precision["w"] + 0.1)
    proper.sample()


def classifier():
    model = tiny_models.bert()
    texts = [tiny_models.batch([3, 5, 4], pad_to=6), tiny_models.batch([6, 2])]
    fisher = merganser.fisher(model, texts)
    return model, texts, Posterior.laplace(model, fisher, delta=50.0)


def test_predictive_average():
    model, texts, posterior = classifier()
    model.train()
    before = copy.deepcopy(model.state_dict())
    found = posterior.predict(model, texts, samples=3, seed=5)
    assert model.training
    assert all(torch.equal(x, before[n]) for n, x in model.state_dict().items())

    generator = torch.Generator().manual_seed(5)
    other = copy.deepcopy(model).eval()
    sums = 0
    for _ in range(3):
        other.load_state_dict(posterior.sample(generator))
        with torch.no_grad():
            logits = [other(**(b | {"labels": None})).logits for b in texts]
        sums = sums + torch.cat(logits).softmax(1)
    torch.testing.assert_close(found, sums / 3)


def test_predictive_average_of_a_shuffled_loader():
    model, _, posterior = classifier()
    rows = hf_training.rows(tiny_models.batch([4] * 6))
    found = []
    for samples in (1, 2):
        torch.manual_seed(9)
        loader = torch.utils.data.DataLoader(rows, 2, shuffle=True)
        found.append(posterior.predict(model, loader, samples=samples))
    torch.manual_seed(9)
    batches = list(torch.utils.data.DataLoader(rows, 2, shuffle=True))
    expected = posterior.predict(model, batches, samples=2)
    torch.testing.assert_close(found[1], expected)


@pytest.mark.parametrize("loss", ["regression", "multilabel"])
def test_predictive_average_of_values(loss):
    model = nn.Linear(4, 3).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    posterior = Posterior.laplace(model, merganser.fisher(model, [x], loss=loss))
    posterior = posterior.with_prior(2.0)
    found = posterior.predict(model, [x], samples=2, loss=loss)
    generator = torch.Generator().manual_seed(0)
    expected = 0
    for _ in range(2):
        state = posterior.sample(generator)
        z = x @ state["weight"].T + state["bias"]
        expected = expected + (z if loss == "regression" else z.sigmoid()) / 2
    torch.testing.assert_close(found, expected)


def test_tied_tensors_are_sampled_once(tmp_path):
    model = hf_training.gpt2()
    batch = {"input_ids": tiny_models.batch([5, 5])["input_ids"]}
    fisher = merganser.fisher(model, [batch], "mc")
    posterior = Posterior.laplace(model, fisher, delta=30.0)
    sample = posterior.sample()
    tied = ("transformer.wte.weight", "lm_head.weight")
    assert torch.equal(*(sample[name] for name in tied))
    assert not torch.equal(sample[tied[0]], model.state_dict()[tied[0]])
    posterior.save(tmp_path)
    again = Posterior.load(tmp_path)
    assert "lm_head.weight" not in again.mean
    a, b = (
        p.predict(model, [batch], samples=2, loss="causal_lm")
        for p in (posterior, again)
    )
    assert torch.equal(a, b)


def test_round_trip(tmp_path):
    model, texts, posterior = classifier()
    model.save_pretrained(tmp_path)
    posterior.save(tmp_path)
    again = Posterior.load(tmp_path)
    assert again.mean.keys() == posterior.mean.keys()
    for part in ("mean", "precision"):
        a, b = getattr(again, part), getattr(posterior, part)
        assert all(torch.equal(a[n], b[n]) for n in b)
    a, b = again.sample(2), posterior.sample(2)
    assert all(torch.equal(a[n], b[n]) for n in b)

    # The directory is an ordinary model, and the precision a Fisher of it.
    loaded = type(model).from_pretrained(tmp_path)
    assert torch.equal(loaded.classifier.weight, posterior.mean["classifier.weight"])
    fisher = FisherResult.load(tmp_path / "posterior.safetensors")
    assert torch.equal(fisher.H["classifier.bias"], again.H["classifier.bias"])
    from_files = Posterior.laplace(tmp_path, tmp_path / "posterior.safetensors")
    assert torch.equal(
        from_files.precision["classifier.bias"], again.precision["classifier.bias"]
    )

    loaded.classifier.weight.data += 1
    loaded.save_pretrained(tmp_path)
    unknown = FisherResult.load(tmp_path / "posterior.safetensors")
    unknown.base_model_hash = ""  # fits any model, as in merges
    with pytest.raises(InputError, match="belongs to a different model"):
        Posterior.load(tmp_path)
    with pytest.raises(InputError, match="its hash differs"):
        Posterior.laplace(tmp_path, tmp_path / "posterior.safetensors")
    unknown.save(tmp_path / "posterior.safetensors")
    assert torch.equal(
        Posterior.load(tmp_path).mean["classifier.weight"], loaded.classifier.weight
    )


def file_bytes(header, data):
    header = header.encode()
    header += b" " * (-len(header) % 8)
    return len(header).to_bytes(8, "little") + header + data


def test_laplace_refuses_the_fisher_of_another_module():
    torch.manual_seed(0)
    model, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    fisher = merganser.fisher(model, [torch.randn(4, 2)], loss="classification")
    for given in (model, model.state_dict(), copy.deepcopy(other).double()):
        Posterior.laplace(given, fisher)  # the last one's dtype differs: unknown
    for given in (other, other.state_dict()):
        with pytest.raises(InputError, match="^fisher belongs to a different model"):
            Posterior.laplace(given, fisher)


# The bytes of tests/cpp/fisher/test_posterior.cpp, which C++ also reads and writes.
FILES = {
    "model.safetensors": file_bytes(
        '{"__metadata__":{"format":"pt"},'
        '"count":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},'
        '"w":{"dtype":"F32","shape":[1,2],"data_offsets":[8,16]},'
        '"b":{"dtype":"BF16","shape":[1],"data_offsets":[16,18]}}',
        b"\3\0\0\0\0\0\0\0" + b"\0\0\xc0\x3f\0\0\0\xc0" + b"\x80\x3e",
    ),
    "posterior.safetensors": file_bytes(
        '{"__metadata__":{"base_model_hash":'
        '"6a09ab56524e4b4fc795441a46aa5882b73ec499ce18ebf0e67e7024f4ef0fc8",'
        '"estimator":"posterior","format_version":"1","labels":"",'
        '"num_examples":"1","num_examples_used":"1","samples":"1","seed":"0"},'
        '"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
        '"w":{"dtype":"F32","shape":[1,2],"data_offsets":[4,12]}}',
        b"\0\0\0\x40" + b"\0\0\x80\x40\0\0\0\x3f",
    ),
}


def test_files_have_the_bytes_of_cpp(tmp_path):
    mean = {
        "b": torch.tensor([0.25], dtype=torch.bfloat16),
        "count": torch.tensor([3]),
        "w": torch.tensor([[1.5, -2.0]]),
    }
    precision = {"b": torch.tensor([2.0]), "w": torch.tensor([[4.0, 0.5]])}
    Posterior(mean, precision).save(tmp_path / "saved")
    (tmp_path / "given").mkdir()
    for name, expected in FILES.items():
        assert (tmp_path / "saved" / name).read_bytes() == expected
        (tmp_path / "given" / name).write_bytes(expected)
    loaded = Posterior.load(tmp_path / "given")
    for found, expected in ((loaded.mean, mean), (loaded.precision, precision)):
        assert found.keys() == expected.keys()
        for name, x in expected.items():
            assert found[name].dtype == x.dtype and torch.equal(found[name], x)


@pytest.mark.parametrize("value", [1e50, 1e-50])
def test_save_refuses_what_float32_cannot_hold(value, tmp_path):
    precision = {"w": torch.tensor([1.0, value, 0.0], dtype=torch.float64)}
    posterior = Posterior({"w": torch.ones(3).double()}, precision)
    message = f"cannot save the precision of tensor 'w': {value:g} is out of"
    with pytest.raises(InputError, match=re.escape(message)):
        posterior.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    precision["w"][1] = 1e-44  # not normalized, but not 0
    Posterior(posterior.mean, precision).save(tmp_path / "out")
    assert float(Posterior.load(tmp_path / "out").precision["w"][1]) > 0


def test_a_failing_save_leaves_the_files_of_before(tmp_path, monkeypatch):
    old, new = (Posterior.laplace(*draw(seed), delta=1.0) for seed in (1, 2))
    old.save(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert before.keys() == {"model.safetensors", "posterior.safetensors"}

    def fail(*_):
        raise merganser.Error("no space")

    monkeypatch.setattr(FisherResult, "save", fail)
    with pytest.raises(merganser.Error, match="no space"):
        new.save(tmp_path)
    with pytest.raises(merganser.Error, match="no space"):
        new.save(tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
    (tmp_path / "out").rmdir()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_save_refuses_a_path_that_is_no_directory(tmp_path):
    posterior = Posterior.laplace(*draw(1), delta=1.0)
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(InputError, match=f"{file}: exists and is not a directory"):
        posterior.save(file)
    with pytest.raises(InputError, match="below: cannot be written: Not a directory"):
        posterior.save(file / "below")
    assert file.read_text() == "kept"


def test_the_mean_is_a_copy():
    model = nn.Linear(3, 2)
    fisher = merganser.fisher(model, [torch.ones(1, 3)], loss="regression")
    posterior = Posterior.laplace(model, fisher)
    before = model.weight.detach().clone()
    model.weight.data += 1
    assert torch.equal(posterior.mean["weight"], before)


def spoil(change):
    state, fisher = draw(1)
    change(state, fisher)
    return state, fisher


def changed(part, **tensors):
    return lambda state, fisher: (state, fisher.diagonal)[part].update(tensors)


@pytest.mark.parametrize(
    "change, message",
    [
        (changed(0, w=torch.full((5, 3), torch.nan)), "mean.*'w' must be finite"),
        (changed(1, w=torch.full((5, 3), -1.0)), "'w' must be finite and not negative"),
        (changed(1, w=torch.zeros(2)), r"fisher.*'w' has shape \[2\]"),
        (changed(1, extra=torch.zeros(2)), "fisher has tensors .* lacks: 'extra'"),
        (changed(1, count=torch.tensor(1.0)), "precision has tensors.*'count'"),
    ],
)
def test_refuses_laplace(change, message):
    with pytest.raises(InputError, match=message):
        Posterior.laplace(*spoil(change))


def test_refuses_arguments(tmp_path):
    state, fisher = draw(1)
    posterior = Posterior.laplace(state, fisher, delta=1.0)
    for delta in (-1.0, math.nan, "1"):
        with pytest.raises(InputError, match="delta must be a finite number, not neg"):
            Posterior.laplace(state, fisher, delta=delta)
    with pytest.raises(InputError, match="delta must be a finite number, positive"):
        posterior.with_prior(0.0)
    with pytest.raises(InputError, match="must be a FisherResult or the path"):
        Posterior.laplace(state, fisher.diagonal)
    other = FisherResult({"w": fisher["w"]}, 1, 1, "exact")
    with pytest.raises(InputError, match="different tensors: 'b'"):
        Posterior.laplace(state, fisher, other)
    with pytest.raises(InputError, match="state lacks tensors.*'b'"):
        posterior.log_density({"w": state["w"]})
    with pytest.raises(InputError, match="'scale' differs from the mean"):
        posterior.log_density(state | {"scale": 2 * state["scale"]})
    with pytest.raises(InputError, match="the posterior has tensors.*'b'"):
        posterior.predict(nn.Linear(3, 5), [torch.ones(1, 3)])
    with pytest.raises(InputError, match="samples must be at least 1"):
        posterior.predict(nn.Linear(3, 5), [torch.ones(1, 3)], samples=0)
    with pytest.raises(InputError, match="seed must be at least 0"):
        posterior.sample(-1)
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(InputError, match="sharded model"):
        posterior.save(tmp_path)


def test_refuses_products():
    prior, posteriors, _, _, states, fishers = experts()
    for weights in ("a", "abc", None, ["a"] * 3, [None] * 3, [1.0, 2.0, -1]):
        with pytest.raises(InputError, match="^weights must be "):
            Posterior.product(posteriors, prior, weights)
    with pytest.raises(InputError, match="weights must have 3 items"):
        Posterior.product(posteriors, prior, [1.0])
    with pytest.raises(InputError, match="not negative, not -1"):
        Posterior.product(posteriors, prior, -1.0)
    with pytest.raises(InputError, match="at least one item"):
        Posterior.product([], prior)
    with pytest.raises(InputError, match=r"posteriors\[0\] must be a Posterior"):
        Posterior.product(states, prior)
    without = Posterior.laplace(states[0], fishers[0])
    with pytest.raises(InputError, match="'w' is below the base's: it must include"):
        Posterior.product([without], posteriors[1])
    less = Posterior(prior.mean, {"w": prior.precision["w"]})
    with pytest.raises(InputError, match="precisions of different tensors: 'b'"):
        Posterior.product([less], prior)
    state = posteriors[0].mean | {"scale": torch.zeros(2, dtype=torch.float64)}
    with pytest.raises(InputError, match="'scale' differs from the base's"):
        Posterior.product([Posterior(state, posteriors[0].precision)], prior)
