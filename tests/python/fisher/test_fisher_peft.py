"""merganser.fisher with adapters, half precision, gradient checkpointing, frozen
parameters and devices."""

import copy
import math
import warnings

import architectures
import merganser
import pytest
import tiny_models
import torch
from fisher_oracle import assert_fishers_close, define_fisher, single_examples
from torch import nn
from torch.utils.checkpoint import checkpoint

LENGTHS = [[5, 1, 9], [3, 7]]


def batches():
    generator = torch.Generator().manual_seed(11)
    return [tiny_models.batch(row, generator=generator) for row in LENGTHS]


def weights(i, p):
    return p


def lora(**options):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=2,
        lora_alpha=2,  # larger adapters saturate the attention
        target_modules=["query", "value", "dense"],
        init_lora_weights=False,
        lora_dropout=0.3,
        **options,
    )
    return peft.get_peft_model(tiny_models.bert(), config)


@pytest.mark.parametrize("estimator", ["exact", "mc", "empirical"])
@pytest.mark.parametrize("options", [{}, {"bias": "all"}, {"use_rslora": True}])
def test_lora(estimator, options):
    """Has adapters and the head only, the tensors that are saved; no warnings."""
    model = lora(**options).train()
    data = batches()
    labels = torch.cat([batch["labels"] for batch in data])

    def chosen(i, p):
        if estimator == "exact":
            return p
        index = torch.tensor([i])
        drawn = torch.ops.merganser.sample_labels(p[None], index, 4, 0)[0]
        label = labels[i] if estimator == "empirical" else drawn
        return nn.functional.one_hot(label, len(p)).to(p.dtype)

    expected = define_fisher(model, list(single_examples(data)), chosen)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "no rule gives")
        result = merganser.fisher(model, data, estimator, seed=4)
    assert_fishers_close(result, expected)
    trainable = {n for n, p in model.named_parameters() if p.requires_grad}
    assert set(result) == trainable
    assert any("lora_B" in name for name in result)
    assert model.training


@pytest.mark.slow
def test_dora_is_computed_with_single_examples():
    model = lora(use_dora=True)
    expected = define_fisher(model, list(single_examples(batches())), weights)
    with pytest.warns(UserWarning, match="lora_magnitude_vector"):
        result = merganser.fisher(model, batches())
    assert_fishers_close(result, expected)


def test_causal_lm_adapter_is_a_language_model():
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"])
    model = peft.get_peft_model(architectures.make("llama_lm"), config)
    data, _ = architectures.batches("llama_lm")
    for batch in data:
        del batch["labels"]
    expected = merganser.fisher(model, data, "mc", loss="causal_lm")
    assert_fishers_close(merganser.fisher(model, data, "mc"), expected)


def total_error(a, b):
    a = torch.cat([a[name].flatten() for name in b])
    b = torch.cat([f.flatten() for f in b.values()])
    return (a - b).norm() / b.norm()


class Deep(nn.Module):
    """As deep as the tiny models, with weights of the usual size."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(43, 16)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(16, 3)

    def forward(self, input_ids, attention_mask):
        x = self.table(input_ids)
        x = self.layers(x, src_key_padding_mask=attention_mask == 0)
        return self.head(x[:, 0])


@pytest.mark.parametrize("estimator", ["exact", "mc", "empirical"])
@pytest.mark.parametrize("how", ["dtype", "autocast", "model"])
def test_bfloat16(how, estimator):
    model, data = Deep(), batches()
    expected = merganser.fisher(model, data, estimator)
    if how == "dtype":
        result = merganser.fisher(model, data, estimator, dtype=torch.bfloat16)
    elif how == "autocast":
        with torch.autocast("cpu", torch.bfloat16):
            result = merganser.fisher(model, data, estimator)
    else:
        result = merganser.fisher(copy.deepcopy(model).bfloat16(), data, estimator)
    assert all(f.dtype == torch.float32 for f in result.values())
    # A half-precision model's weights are rounded as well.
    assert 0 < total_error(result, expected) < (0.05 if how == "model" else 0.02)
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_dtypes_that_are_refused():
    for dtype in (torch.float32, torch.float64, torch.int8):
        with pytest.raises(merganser.InputError, match="dtype must be None, or"):
            merganser.fisher(lora(), batches(), dtype=dtype)


def test_gradient_checkpointing_of_transformers():
    """transformers only checkpoints in train mode."""
    model = tiny_models.bert()
    expected = merganser.fisher(model, batches())
    model.gradient_checkpointing_enable()
    model.train()
    assert_fishers_close(merganser.fisher(model, batches()), expected)
    assert model.is_gradient_checkpointing


class Checkpointed(nn.Module):
    """Blocks that may recompute their activations in the backward pass."""

    def __init__(self, reentrant=None, parameters_before=True):
        super().__init__()
        self.before = nn.Linear(5, 4)
        self.before.requires_grad_(parameters_before)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 4))
            for _ in range(2)
        )
        self.reentrant = reentrant
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.before(x)
        for block in self.blocks:
            if self.reentrant is None:
                x = x + block(x)
            else:
                x = x + checkpoint(block, x, use_reentrant=self.reentrant)
        return self.head(x)


@pytest.mark.parametrize("estimator", ["exact", "empirical", "mc_batch"])
@pytest.mark.parametrize("parameters_before", [True, False])
def test_gradient_checkpointing(estimator, parameters_before):
    model = Checkpointed(parameters_before=parameters_before)
    data = [(torch.randn(n, 5), torch.randint(0, 3, (n,))) for n in (4, 1, 3)]
    expected = merganser.fisher(model, data, estimator)
    model.reentrant = False
    assert_fishers_close(merganser.fisher(model, data, estimator), expected)


@pytest.mark.parametrize("estimator", ["exact", "mc_batch"])
@pytest.mark.parametrize("parameters_before", [True, False])
def test_reentrant_checkpointing_is_no_silent_zero(estimator, parameters_before):
    model = Checkpointed(True, parameters_before)
    with pytest.raises(
        (RuntimeError, merganser.InputError), match="use_reentrant=False"
    ):
        merganser.fisher(model, [torch.randn(4, 5)], estimator)


@pytest.mark.parametrize("estimator", ["exact", "mc_batch"])
def test_frozen_parameters_on_request(estimator):
    model = tiny_models.bert()
    expected = merganser.fisher(model, batches(), estimator)
    model.bert.embeddings.requires_grad_(False)
    model.classifier.bias.requires_grad_(False)
    before = [p.requires_grad for p in model.parameters()]
    result = merganser.fisher(model, batches(), estimator, trainable_only=False)
    assert_fishers_close(result, expected)
    assert [p.requires_grad for p in model.parameters()] == before
    for broken in ([{"input_ids": None}], [], iter([{"nothing": torch.ones(2)}])):
        with pytest.raises(Exception):  # noqa: B017 (any exception)
            merganser.fisher(model, broken, estimator, trainable_only=False)
        assert [p.requires_grad for p in model.parameters()] == before


def test_nothing_to_train():
    model = tiny_models.bert().requires_grad_(False)
    with pytest.raises(merganser.InputError, match="no trainable parameter"):
        merganser.fisher(model, batches())
    result = merganser.fisher(model, batches(), trainable_only=False)
    assert set(result) == {name for name, _ in model.named_parameters()}
    with pytest.raises(merganser.InputError, match="the model has no parameter"):
        merganser.fisher(nn.Tanh(), [torch.ones(2, 2)])


def test_integer_parameters_stay_out():
    """For example those of quantized layers."""
    model = nn.Sequential(nn.Linear(4, 3))
    model.table = nn.Parameter(torch.ones(3, dtype=torch.int8), requires_grad=False)
    result = merganser.fisher(model, [torch.randn(3, 4)], trainable_only=False)
    assert set(result) == {"0.weight", "0.bias"}


@pytest.mark.parametrize("place", [None, "cpu", torch.device("cpu")])
def test_device(place):
    model = nn.Linear(4, 3)
    data = [torch.randn(3, 4)]
    expected = merganser.fisher(model, data)
    result = merganser.fisher(model, data, device=place)
    assert_fishers_close(result, expected)


@pytest.mark.parametrize("place", ["meta", "cuda", "nowhere"])
def test_device_that_does_not_work(place):
    """The model's weights stay on their device."""
    if place == "cuda" and torch.cuda.is_available():
        pytest.skip("it works here")
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises((merganser.InputError, RuntimeError, AssertionError)) as caught:
        merganser.fisher(model, [torch.randn(3, 4)], device=place)
    assert "\n" not in str(caught.value)
    for name, value in model.state_dict().items():
        assert value.device.type == "cpu"
        assert torch.equal(value, before[name])


def test_not_finite():
    model = nn.Linear(4, 3)
    data = torch.randn(3, 4)
    data[1, 2] = math.inf
    with pytest.raises((merganser.Error, RuntimeError)):
        merganser.fisher(model, [data], "mc")
    with pytest.raises(merganser.Error, match="weight is not finite"):
        merganser.fisher(model, [(data, torch.zeros(3).long())], "empirical")
