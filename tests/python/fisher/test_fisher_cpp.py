"""The C++ Fisher estimators against their definition, a float64 loop over single
examples with transformers' model, and the files that they write."""

import json
from itertools import combinations

import merganser
import pytest
import tiny_models
import torch
from fisher_oracle import assert_fishers_close, define_fisher
from merganser._C import Dataset, Encoder, content_hash, estimate_fisher, evaluate
from safetensors import safe_open

LENGTHS = [5, 12, 1, 9, 7, 3, 10, 2, 12, 4, 6]
N = len(LENGTHS)
PAD = {"bert": 0, "roberta": 1}


class Case:
    """A tiny model in C++ and in transformers, and N examples for it."""

    def __init__(self, name, num_labels, folder):
        self.reference = tiny_models.FACTORIES[name](num_labels).eval()
        self.reference.save_pretrained(folder)
        self.encoder = Encoder.load(folder)
        self.folder = folder
        self.pad = PAD[name]
        batch = tiny_models.batch(LENGTHS, num_labels, pad_id=self.pad)
        self.labels = batch["labels"].tolist()
        rows = zip(batch["input_ids"], LENGTHS, strict=True)
        self.ids = [row[:length].tolist() for row, length in rows]
        # The same token three times: its gradients add up before the square.
        self.ids[1][2] = self.ids[1][5] = self.ids[1][9]
        self.data = Dataset(self.ids, self.labels)

    def estimate(self, *args, **options):
        return estimate_fisher(self.encoder, self.data, self.pad, *args, **options)

    def define(self, label_weights, positions=range(N)):
        examples = [{"input_ids": torch.tensor([self.ids[i]])} for i in positions]
        return define_fisher(self.reference, examples, label_weights)


@pytest.fixture(params=["bert-2", "bert-4", "roberta-2", "roberta-3"])
def case(request, tmp_path):
    name, num_labels = request.param.split("-")
    return Case(name, int(num_labels), tmp_path / "model")


@pytest.fixture
def bert(tmp_path):
    return Case("bert", 3, tmp_path / "model")


def one_hot(label, p):
    return torch.nn.functional.one_hot(torch.as_tensor(label), len(p)).to(p)


def drawn_label(p, index, seed, sample):
    return torch.ops.merganser.sample_labels(
        p[None], torch.tensor([index]), seed, sample
    )[0]


def drawn_weights(seed, samples):
    """Label weights as mc samples them: keyed by (seed, position, sample)."""

    def weights(i, p):
        draws = [one_hot(drawn_label(p, i, seed, s), p) for s in range(samples)]
        return torch.stack(draws).mean(0)

    return weights


def test_exact(case):
    fisher = case.estimate(batch_size=4)
    assert_fishers_close(dict(fisher.diagonal), case.define(lambda i, p: p))
    assert (fisher.num_examples, fisher.num_examples_used) == (N, N)
    assert fisher.labels == "model"


def test_empirical(case):
    fisher = case.estimate(estimator="empirical", batch_size=3)
    expected = case.define(lambda i, p: one_hot(case.labels[i], p))
    assert_fishers_close(dict(fisher.diagonal), expected)
    assert fisher.labels == "data"


@pytest.mark.parametrize("samples", [1, 3])
def test_mc_with_the_same_labels(case, samples):
    fisher = case.estimate(estimator="mc", samples=samples, seed=9, batch_size=4)
    assert_fishers_close(dict(fisher.diagonal), case.define(drawn_weights(9, samples)))


def test_mc_does_not_depend_on_batch_size(case):
    """Nor on the order, although batches are cut from examples sorted by length."""
    fishers = [
        dict(case.estimate(estimator="mc", seed=2, batch_size=size).diagonal)
        for size in (1, 4, N)
    ]
    for other in fishers[1:]:
        assert_fishers_close(other, fishers[0])


def test_mc_depends_on_the_seed(bert):
    a, b = (dict(bert.estimate(estimator="mc", seed=s).diagonal) for s in (1, 2))
    assert any((a[name] - b[name]).norm() > 0.1 * a[name].norm() for name in a)


def test_mc_batch_with_one_example_per_batch_is_mc(case):
    options = dict(seed=5, samples=2, batch_size=1)
    mc = case.estimate(estimator="mc", **options)
    mc_batch = case.estimate(estimator="mc_batch", **options)
    assert_fishers_close(dict(mc_batch.diagonal), dict(mc.diagonal))


@pytest.mark.slow
def test_mc_batch_is_unbiased(bert):
    """Compares the mean over many seeds of each tensor's sum with the exact one, up to
    four of its standard errors. Squares of means without the factor B, or with the
    data's labels, differ by dozens of them."""
    exact = dict(bert.estimate().diagonal)
    names = [n for n in exact if "key.bias" not in n]
    draws = torch.stack(
        [
            torch.stack([dict(fisher.diagonal)[n].double().sum() for n in names])
            for fisher in (
                bert.estimate(estimator="mc_batch", seed=seed, batch_size=4)
                for seed in range(300)
            )
        ]
    )
    expected = torch.stack([exact[n].double().sum() for n in names])
    error = draws.std(0) / len(draws) ** 0.5
    off = (draws.mean(0) - expected) / error
    assert off.abs().max() < 4, dict(zip(names, off.tolist(), strict=True))
    # The test would detect a wrong factor.
    assert (error < 0.1 * expected).all()


def test_limit_draws_a_subset_by_seed(bert):
    fisher = bert.estimate(limit=4, seed=3)
    assert (fisher.num_examples, fisher.num_examples_used) == (N, 4)
    same = bert.estimate(limit=4, seed=3, batch_size=1)
    assert_fishers_close(dict(same.diagonal), dict(fisher.diagonal))
    # A mean over four distinct examples: one choice of four must explain it.
    single = [
        Dataset([ids], [label])
        for ids, label in zip(bert.ids, bert.labels, strict=True)
    ]
    name = "classifier.bias"
    values = torch.stack(
        [
            dict(estimate_fisher(bert.encoder, data, bert.pad).diagonal)[name]
            for data in single
        ]
    )
    got = dict(fisher.diagonal)[name]
    found = [
        chosen
        for chosen in combinations(range(N), 4)
        if torch.allclose(values[list(chosen)].mean(0), got, rtol=1e-4)
    ]
    assert len(found) == 1
    assert all(
        bert.estimate(limit=limit).num_examples_used == N for limit in (-1, N, N + 1)
    )


@pytest.mark.parametrize("estimator", ["exact", "mc_batch"])
def test_bfloat16_is_near_and_sums_are_float32(bert, estimator):
    """bfloat16 has 8 bits; squares double its relative error."""
    plain, half = (
        bert.estimate(estimator=estimator, seed=1, bfloat16=b) for b in (False, True)
    )
    for (name, a), (_, b) in zip(plain.diagonal, half.diagonal, strict=True):
        assert b.dtype == torch.float32
        if "key.bias" not in name:
            assert (a - b).norm() < 0.1 * a.norm(), name
            assert not torch.equal(a, b), name


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("estimator", ["exact", "mc_batch"])
def test_model_is_left_as_it_was(bert, estimator, training):
    bert.encoder.train(training)
    before = [(n, p.clone()) for n, p in bert.encoder.named_parameters()]
    first = bert.estimate(estimator=estimator)
    assert bert.encoder.training is training
    for (name, p), (_, old) in zip(
        bert.encoder.named_parameters(), before, strict=True
    ):
        assert torch.equal(p, old)
        assert p.grad is None, name
    # Eval mode has no dropout, so a second run is equal.
    second = bert.estimate(estimator=estimator)
    assert_fishers_close(dict(second.diagonal), dict(first.diagonal))


def test_ordinary_gradients_work_after_an_estimate(bert):
    bert.estimate()
    logits = bert.encoder.forward(torch.tensor([[2, 3, 4]]), torch.tensor([3]))
    logits.sum().backward()
    assert all(p.grad is not None for _, p in bert.encoder.named_parameters())


def test_progress_and_an_exception_from_it(bert):
    calls = []
    bert.estimate(batch_size=4, progress=lambda *args: calls.append(args))
    assert calls == [(4, N, ""), (8, N, ""), (N, N, "")]

    def stop(*args):
        raise KeyboardInterrupt

    bert.encoder.train()
    with pytest.raises(KeyboardInterrupt):
        bert.estimate(progress=stop)
    assert bert.encoder.training
    # The sink is also removed: an ordinary backward pass gives gradients again.
    test_ordinary_gradients_work_after_an_estimate(bert)


def test_file(bert, tmp_path):
    fisher = bert.estimate(estimator="mc", samples=2, seed=2**64 - 1, limit=5)
    fisher.model_hash = content_hash(bert.folder)
    fisher.save(tmp_path / "f.safetensors")
    with safe_open(tmp_path / "f.safetensors", "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    assert metadata == {
        "format_version": "1",
        "estimator": "mc",
        "num_examples": str(N),
        "num_examples_used": "5",
        "samples": "2",
        "seed": str(2**64 - 1),
        "labels": "model",
        "base_model_hash": content_hash(bert.folder),
    }
    assert set(tensors) == {n for n, _ in bert.reference.named_parameters()}
    for name, f in fisher.diagonal:
        assert tensors[name].dtype == torch.float32
        assert torch.equal(tensors[name], f)
        assert (f >= 0).all()
    loaded = merganser.FisherResult.load(tmp_path / "f.safetensors")
    assert loaded.seed == 2**64 - 1


def test_a_fisher_that_is_not_finite_is_not_written(bert, tmp_path):
    with torch.no_grad():
        dict(bert.encoder.named_parameters())["classifier.weight"].fill_(1e38)
    fisher = bert.estimate()
    with pytest.raises(merganser.Error, match="not finite"):
        fisher.save(tmp_path / "f.safetensors")
    assert list(tmp_path.iterdir()) == [bert.folder]


REFUSED = [
    (dict(estimator="exct"), "'exct'; available: exact, mc, empirical, mc_batch"),
    (dict(batch_size=0), "batch_size must be at least 1, got 0"),
    (dict(limit=0), "limit must be at least 1"),
    (dict(estimator="mc", samples=1000001), "samples must be between 1 and 1000000"),
    (dict(estimator="mc", samples=0), "samples must be between 1 and 1000000, got 0"),
    (dict(estimator="exact", samples=2), "samples no labels"),
    (dict(estimator="empirical", samples=2), "samples no labels"),
]


@pytest.mark.parametrize(("options", "words"), REFUSED)
def test_options_out_of_range(bert, options, words):
    with pytest.raises(merganser.InputError, match=words):
        bert.estimate(**options)


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_evaluate(case, batch_size):
    """Accuracy and mean negative log-likelihood, for any batches."""
    losses, hits = [], 0
    model = case.reference.double()
    for ids, label in zip(case.ids, case.labels, strict=True):
        log_p = torch.log_softmax(model(torch.tensor([ids])).logits[0], 0)
        losses.append(-log_p[label].item())
        hits += int(log_p.argmax() == label)
    case.encoder.train()
    calls = []
    result = evaluate(
        case.encoder,
        case.data,
        case.pad,
        batch_size=batch_size,
        progress=lambda *args: calls.append(args),
    )
    assert case.encoder.training
    assert result.examples == N
    assert result.accuracy == hits / N
    assert result.loss == pytest.approx(sum(losses) / N, rel=1e-6)
    assert calls[-1] == (N, N, f"accuracy {100 * hits / N:.1f} %")


def test_data_from_a_file(tmp_path):
    """Texts give the same values as ids."""
    words = [f"w{i}" for i in range(38)]
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    case = Case("bert", 2, tmp_path / "model")
    (case.folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    texts = ["w1 w2", "w3", "w30 nothing w2 w7", "w9 w9"]
    labels = [0, 1, 1, 0]
    file = tmp_path / "data.jsonl"
    file.write_text(
        "\n".join(
            json.dumps({"text": t, "label": y})
            for t, y in zip(texts, labels, strict=True)
        )
    )
    data = Dataset.load(file, case.folder, max_length=5, num_labels=2)
    ids = [[2, 6, 7, 3], [2, 8, 3], [2, 35, 1, 7, 3], [2, 14, 14, 3]]
    assert (data.ids, data.labels) == (ids, labels)
    from_file = estimate_fisher(case.encoder, data, 0)
    from_ids = estimate_fisher(case.encoder, Dataset(ids, labels), 0)
    assert_fishers_close(dict(from_file.diagonal), dict(from_ids.diagonal))
