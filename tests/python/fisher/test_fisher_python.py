"""merganser.fisher against its definition, a float64 loop over single examples."""

import math

import merganser
import pytest
import tiny_models
import torch
from fisher_oracle import (
    assert_fishers_close,
    define_fisher,
    logits_of,
    single_examples,
)
from merganser import _C
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaConfig, LlamaForCausalLM

LENGTHS = [[5, 1, 9], [12, 12], [3, 7, 2, 10]]
COUNT = 9


def batches_for(name, num_labels=3, lengths=LENGTHS):
    generator = torch.Generator().manual_seed(11)
    pad = {"bert": 0, "roberta": 1, "distilbert": 0}[name]
    return [
        tiny_models.batch(row, num_labels, pad_id=pad, generator=generator)
        for row in lengths
    ]


def all_labels(batches):
    return torch.cat([batch["labels"] for batch in batches])


def one_hot(label, p):
    return nn.functional.one_hot(label, len(p)).to(p.dtype)


def sampled_weights(seed, samples):
    """Label weights as the mc estimators sample them, example by example."""

    def weights(i, p):
        total = torch.zeros_like(p)
        for sample in range(samples):
            index = torch.tensor([i])
            label = torch.ops.merganser.sample_labels(p[None], index, seed, sample)
            total += one_hot(label[0], p) / samples
        return total

    return weights


@pytest.mark.parametrize("name", tiny_models.FACTORIES)
@pytest.mark.parametrize("num_labels", [2, 3, 5])
def test_exact(name, num_labels):
    model = tiny_models.FACTORIES[name](num_labels)
    batches = batches_for(name, num_labels)
    expected = define_fisher(model, list(single_examples(batches)), lambda i, p: p)
    result = merganser.fisher(model, batches)
    assert_fishers_close(result, expected)
    assert result.num_examples == result.num_examples_used == COUNT


@pytest.mark.parametrize("name", tiny_models.FACTORIES)
def test_empirical(name):
    model = tiny_models.FACTORIES[name]()
    batches = batches_for(name)
    labels = all_labels(batches)
    expected = define_fisher(
        model, list(single_examples(batches)), lambda i, p: one_hot(labels[i], p)
    )
    result = merganser.fisher(model, batches, "empirical")
    assert_fishers_close(result, expected)
    assert result.labels == "data"


@pytest.mark.parametrize("name", tiny_models.FACTORIES)
@pytest.mark.parametrize("samples", [1, 3])
def test_mc(name, samples):
    model = tiny_models.FACTORIES[name]()
    batches = batches_for(name)
    expected = define_fisher(
        model, list(single_examples(batches)), sampled_weights(5, samples)
    )
    result = merganser.fisher(model, batches, "mc", samples=samples, seed=5)
    assert_fishers_close(result, expected)
    assert (result.labels, result.samples, result.seed) == ("model", samples, 5)


def mlp():
    return nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3, bias=False)
    )


def mlp_batches(*sizes):
    return [(torch.randn(size, 6), torch.randint(0, 3, (size,))) for size in sizes]


def test_plain_layers():
    model = mlp()
    batches = mlp_batches(4, 1, 7)
    examples = [x[None] for inputs, _ in batches for x in inputs]
    expected = define_fisher(model, examples, lambda i, p: p)
    assert_fishers_close(merganser.fisher(model, batches), expected)


class Changed(nn.Module):
    """Changes its layers' outputs in place: of the first or a later layer, 2-D or 3-D
    (views), in whole or in part."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.first = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.second = nn.Linear(4, 4, bias=False)
        self.head = nn.Linear(4, 3)

    def forward(self, ids):
        h = self.embedding(ids)
        h *= 3
        h[:, 0] = 0
        h = self.first(h)
        h += 1
        h[..., 0] *= 2
        h = self.norm(h)
        h.view(-1).relu_()
        h = self.second(h.mean(1))
        h.tanh_()
        logits = self.head(h)
        logits *= 2
        return logits


@pytest.mark.parametrize(
    ("model", "width"),
    [
        (lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(True), nn.Linear(8, 3)), 6),
        (Changed, None),
    ],
)
def test_outputs_changed_in_place(model, width):
    model = model()
    batch = torch.randn(5, width) if width else torch.randint(0, 10, (5, 4))
    expected = define_fisher(model, batch.split(1), lambda i, p: p)
    assert all(f.any() for f in expected.values())
    assert_fishers_close(merganser.fisher(model, [batch[:3], batch[3:]]), expected)


def hook_before(layer, args):
    return (args[0] - 1,)


def hook_after(layer, args, output):
    return 2 * output


def test_layers_with_hooks():
    model = mlp()
    model[0].register_forward_pre_hook(hook_before)
    model[0].register_forward_hook(hook_after, prepend=True)
    model[3].register_forward_hook(hook_after)
    examples = torch.randn(6, 6)
    expected = define_fisher(model, examples.split(1), lambda i, p: p)
    assert_fishers_close(merganser.fisher(model, [examples]), expected)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["mc", "mc_batch"])
def test_sampling_is_unbiased(estimator):
    """The mean over seeds equals the exact one within its standard error."""
    model = mlp()
    batches = mlp_batches(4, 3, 5)
    exact = merganser.fisher(model, batches)
    seeds = 200
    draws = {name: [] for name in exact}
    for seed in range(seeds):
        result = merganser.fisher(model, batches, estimator, seed=seed)
        for name, f in result.items():
            draws[name].append(f)
    inside = total = 0
    for name, f in exact.items():
        values = torch.stack(draws[name])
        error = (values.mean(0) - f).abs()
        standard_error = values.std(0) / math.sqrt(seeds)
        assert (error < 5 * standard_error).all()
        inside += int((error < 2 * standard_error).sum())
        total += f.numel()
    # Two standard errors cover about 95 % if the errors are not larger than stated.
    assert inside > 0.9 * total


def test_mc_batch_squares_the_sum_over_each_batch():
    """Compares with the definition, B (batch-mean gradient)^2 averaged over batches."""
    model = tiny_models.roberta()
    batches = batches_for("roberta")
    parameters = dict(model.named_parameters())
    expected = {name: torch.zeros_like(p) for name, p in parameters.items()}
    start = 0
    for batch in batches:
        inputs = {k: v for k, v in batch.items() if k != "labels"}
        logits = logits_of(model.eval(), inputs)
        size = len(logits)
        labels = torch.ops.merganser.sample_labels(
            logits.detach().softmax(1), torch.arange(start, start + size), 3, 0
        )
        loss = nn.functional.cross_entropy(logits, labels)
        gradients = torch.autograd.grad(loss, parameters.values(), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                expected[name] += size / COUNT * size * gradient**2
        start += size
    result = merganser.fisher(model, batches, "mc_batch", seed=3)
    # Both sides are float32 here.
    assert_fishers_close(result, expected, rtol=1e-4)


@pytest.mark.parametrize("estimator", ["exact", "mc", "empirical"])
@pytest.mark.parametrize("name", tiny_models.FACTORIES)
def test_batch_size_order_and_padding_do_not_matter(name, estimator):
    model = tiny_models.FACTORIES[name]()
    pad = {"bert": 0, "roberta": 1, "distilbert": 0}[name]
    batches = batches_for(name)
    expected = merganser.fisher(model, batches, estimator, seed=2)

    labels = all_labels(batches)
    rows = list(single_examples(batches))
    order = torch.randperm(COUNT).tolist()
    width = 17
    shuffled = []
    for chunk in (order[:1], order[1:6], order[6:]):
        ids = torch.full((len(chunk), width), pad)
        mask = torch.zeros_like(ids)
        for row, i in enumerate(chunk):
            length = rows[i]["input_ids"].shape[1]
            ids[row, :length] = rows[i]["input_ids"][0]
            mask[row, :length] = 1
        shuffled.append(
            {
                "input_ids": ids,
                "attention_mask": mask,
                "labels": labels[chunk],
                "index": torch.tensor(chunk),
            }
        )
    result = merganser.fisher(model, shuffled, estimator, seed=2)
    assert_fishers_close(result, expected)


def test_eager_attention():
    model = tiny_models.bert(attn_implementation="eager")
    batches = batches_for("bert")
    expected = define_fisher(model, list(single_examples(batches)), lambda i, p: p)
    assert_fishers_close(merganser.fisher(model, batches), expected)


def test_only_trainable_parameters():
    model = tiny_models.distilbert()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("embeddings" not in name and "q_lin" not in name)
    batches = batches_for("distilbert")
    expected = define_fisher(model, list(single_examples(batches)), lambda i, p: p)
    result = merganser.fisher(model, batches)
    assert len(result) < len(dict(model.named_parameters()))
    assert_fishers_close(result, expected)


def test_half_precision_models_keep_small_values():
    """Sums are float32: bfloat16 would lose values below 1/256 of the sum, and
    float16 those below 6e-8."""
    model = tiny_models.bert()
    with torch.no_grad():
        model.classifier.weight.mul_(1e-3)
    batches = batches_for("bert")
    expected = merganser.fisher(model, batches)
    result = merganser.fisher(model.to(torch.bfloat16), batches)
    assert all(f.dtype == torch.float32 for f in result.values())
    a = torch.cat([f.flatten() for f in result.values()])
    b = torch.cat([f.flatten() for f in expected.values()])
    # bfloat16 has 8 bits; forward and backward pass have about 30 roundings.
    assert (a - b).norm() < 0.05 * b.norm()


def test_autocast():
    model = tiny_models.bert()
    batches = batches_for("bert")
    expected = merganser.fisher(model, batches)
    with torch.autocast("cpu", torch.bfloat16):
        result = merganser.fisher(model, batches)
    a = torch.cat([f.flatten() for f in result.values()])
    b = torch.cat([f.flatten() for f in expected.values()])
    assert 0 < (a - b).norm() < 0.05 * b.norm()


def state_of(model):
    return (
        [module.training for module in model.modules()],
        [p.requires_grad for p in model.parameters()],
        [p.grad for p in model.parameters()],
        [list(vars(module)) for module in model.modules()],
        [len(module._forward_hooks) for module in model.modules()],
        {name: value.clone() for name, value in model.state_dict().items()},
    )


def assert_same_state(model, before):
    after = state_of(model)
    assert after[:5] == before[:5]
    for name, value in before[5].items():
        assert torch.equal(after[5][name], value)


@pytest.mark.parametrize("estimator", ["exact", "mc_batch"])
def test_model_is_left_as_found(estimator):
    model = tiny_models.bert()
    model.train()
    model.bert.encoder.layer[0].eval()
    model.bert.pooler.requires_grad_(False)
    random_state = torch.get_rng_state()
    before = state_of(model)
    with torch.no_grad():
        merganser.fisher(model, batches_for("bert"), estimator)
        assert not torch.is_grad_enabled()
    assert_same_state(model, before)
    assert torch.equal(torch.get_rng_state(), random_state)


@pytest.mark.parametrize("estimator", ["exact", "mc_batch"])
def test_model_is_left_as_found_after_an_exception(estimator):
    model = tiny_models.bert()
    model.train()
    before = state_of(model)

    def broken():
        yield batches_for("bert")[0]
        raise OSError("the data went away")

    with pytest.raises(OSError, match="went away"):
        merganser.fisher(model, broken(), estimator)
    assert_same_state(model, before)

    def stop(done, total, text):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        merganser.fisher(model, batches_for("bert"), estimator, progress=stop)
    assert_same_state(model, before)


def test_weight_gradients_are_not_computed():
    """One matrix product per linear layer and backward pass, for the gradient of
    its input; an ordinary backward pass needs a second one for the weight's."""
    layers = 4
    model = nn.Sequential(*[nn.Linear(5, 5) for _ in range(layers)])
    inputs = torch.randn(3, 5)

    class Products(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            self.count += func is torch.ops.aten.mm.default
            return func(*args, **(kwargs or {}))

    with Products() as plain:
        model(inputs).sum().backward()
    with Products() as fisher:
        merganser.fisher(model, [(inputs, torch.zeros(3).long())], "empirical")
    assert plain.count == 2 * layers - 1
    # Two extra passes, one per example, check that examples do not mix.
    assert fisher.count == (2 + 1) * (layers - 1)


def tied_llama():
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=43,
            hidden_size=16,
            intermediate_size=28,
            num_hidden_layers=2,
            num_attention_heads=4,
            tie_word_embeddings=True,
        )
    )
    assert model.lm_head.weight is model.model.embed_tokens.weight
    ids = torch.randint(2, 43, (5, 6))
    return model, {"input_ids": ids, "labels": ids}


@pytest.mark.parametrize(
    "make", [tied_llama, lambda: (mlp(), mlp_batches(5)[0])], ids=["llama", "mlp"]
)
@pytest.mark.parametrize("batches", [1, 3])
def test_a_graph_is_probed_once(make, batches):
    """By a pass over three examples and one over each of them."""
    model, batch = make()
    passes = []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    merganser.fisher(model, [batch] * batches, "empirical")
    assert len(passes) == 1 + 3 + batches


@pytest.mark.slow
def test_limit():
    model = tiny_models.bert()
    batches = batches_for("bert")
    examples = list(single_examples(batches))
    chosen = [examples[i] for i in _C.draw_subset(COUNT, 4, 0)]
    result = merganser.fisher(model, batches, limit=4)
    assert_fishers_close(result, define_fisher(model, chosen, lambda i, p: p))
    assert (result.num_examples, result.num_examples_used) == (COUNT, 4)
    expected = define_fisher(model, examples[:4], lambda i, p: p)
    with pytest.warns(match="takes the first 4 examples") as caught:
        result = merganser.fisher(model, iter(batches), limit=4, num_examples=700)
    assert [warning.filename for warning in caught] == [__file__]
    assert_fishers_close(result, expected)
    assert (result.num_examples, result.num_examples_used) == (700, 4)
    with pytest.raises(merganser.InputError, match="num_examples"):
        merganser.fisher(model, iter(batches), limit=4)


@pytest.mark.parametrize("estimator", ["exact", "mc", "empirical", "mc_batch"])
@pytest.mark.parametrize("name, limit", [("bert", -1), ("roberta", -1), ("bert", 3)])
def test_equal_to_the_cpp_estimator(name, limit, estimator, tmp_path):
    model = tiny_models.FACTORIES[name]()
    model.save_pretrained(tmp_path / "model")
    # One batch, so that mc_batch squares the sum over the same examples.
    batches = batches_for(name, lengths=[sum(LENGTHS, [])])
    expected = _C.estimate_fisher(
        _C.Encoder.load(tmp_path / "model"),
        _C.Dataset(
            [row["input_ids"][0].tolist() for row in single_examples(batches)],
            all_labels(batches).tolist(),
        ),
        int(model.config.pad_token_id),
        estimator=estimator,
        seed=6,
        batch_size=COUNT,
        limit=limit,
    )
    result = merganser.fisher(
        model, batches, estimator, seed=6, limit=limit if limit > 0 else None
    )
    assert result.num_examples_used == expected.num_examples_used
    assert_fishers_close(result, dict(expected.diagonal))
    assert (result.labels, result.samples) == (expected.labels, expected.samples)


def test_data_loader():
    model = mlp()
    inputs, labels = mlp_batches(10)[0]
    data = torch.utils.data.TensorDataset(inputs, labels)
    loader = torch.utils.data.DataLoader(data, batch_size=4)
    progress = []
    result = merganser.fisher(
        model, loader, limit=6, progress=lambda *state: progress.append(state)
    )
    assert (result.num_examples, result.num_examples_used) == (10, 6)
    assert progress == [(4, 6, ""), (6, 6, "")]
    chosen = inputs[_C.draw_subset(10, 6, 0)]
    expected = define_fisher(model, [x[None] for x in chosen], lambda i, p: p)
    assert_fishers_close(result, expected)


def test_pairs_of_a_dict_and_labels():
    model = tiny_models.bert()
    batches = batches_for("bert")
    expected = merganser.fisher(model, batches, "empirical")
    pairs = [
        ({k: v for k, v in batch.items() if k != "labels"}, batch["labels"].int())
        for batch in batches
    ]
    result = merganser.fisher(model, pairs, "empirical")
    assert all(torch.equal(result[name], f) for name, f in expected.items())


def test_save_and_load(tmp_path):
    model = tiny_models.distilbert()
    model.save_pretrained(tmp_path / "model")
    result = merganser.fisher(
        model,
        batches_for("distilbert"),
        "mc",
        samples=2,
        seed=9,
        limit=5,
        model_path=tmp_path / "model",
    )
    file = tmp_path / "fisher.safetensors"
    result.save(file)
    loaded = merganser.FisherResult.load(file)
    assert set(loaded) == set(result)
    for name, f in result.items():
        assert torch.equal(loaded[name], f)
        assert torch.equal(loaded.H[name], COUNT * f)
    for key in ("num_examples", "num_examples_used", "estimator", "samples", "seed"):
        assert getattr(loaded, key) == getattr(result, key)
    assert loaded.labels == "model"
    assert loaded.base_model_hash == result.base_model_hash != ""


def test_file_is_read_by_safetensors(tmp_path):
    import safetensors

    model = mlp()
    result = merganser.fisher(model, mlp_batches(3))
    result.save(tmp_path / "f.safetensors")
    with safetensors.safe_open(tmp_path / "f.safetensors", "pt") as file:
        assert set(file.keys()) == set(result)
        assert all(torch.equal(file.get_tensor(n), f) for n, f in result.items())
        assert file.metadata() == {
            "format_version": "1",
            "estimator": "exact",
            "num_examples": "3",
            "num_examples_used": "3",
            "samples": "1",
            "seed": "0",
            "labels": "model",
            "base_model_hash": "",
        }


def test_load_refuses_other_files(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.ones(2)}, tmp_path / "plain.safetensors")
    with pytest.raises(
        merganser.InputError, match=r"plain\.safetensors.*format_version"
    ):
        merganser.FisherResult.load(tmp_path / "plain.safetensors")
    with pytest.raises(merganser.InputError, match=r"absent\.safetensors"):
        merganser.FisherResult.load(tmp_path / "absent.safetensors")
