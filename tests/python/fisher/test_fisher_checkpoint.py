"""A Fisher that is stopped and resumed is bit-identical to an uninterrupted one."""

import os

import merganser
import pytest
import torch
from fisher_checkpoints import (
    COUNT,
    SIZES,
    Stopped,
    assert_identical,
    broken,
    data_of,
    plain,
    recurrent,
    run,
    stopped,
)
from merganser._fisher import partial_sums
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

ESTIMATORS = ["exact", "mc", "empirical", "mc_batch"]


@pytest.fixture(autouse=True)
def write_after_each_batch(monkeypatch):
    monkeypatch.setattr(partial_sums, "SECONDS", 0)


@pytest.mark.parametrize("batches", range(1, len(SIZES) + 1))
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("make", [plain, recurrent])
def test_stopped_after_a_batch(make, estimator, batches, tmp_path):
    model = make()
    data = data_of(model)
    path = tmp_path / "fisher.partial"
    options = {"samples": 2} if estimator.startswith("mc") else {}
    expected = run(model, data, estimator, **options)
    stopped(model, data, batches, path, estimator, **options)
    seen = []
    result = run(
        make(),
        data,
        estimator,
        checkpoint=path,
        progress=lambda done, total, _: seen.append((done, total)),
        **options,
    )
    assert_identical(result, expected)
    done = [sum(SIZES[: b + 1]) for b in range(len(SIZES))]
    assert seen == [(count, COUNT) for count in done]
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_stopped_by_the_data_again_and_again(estimator, tmp_path):
    model = recurrent()
    data = data_of(model)
    path = tmp_path / "partial"
    for count in (2, 2, 3, 5):
        with pytest.raises(Stopped):
            run(model, broken(data[:count]), estimator, checkpoint=path)
    result = run(model, iter(data), estimator, checkpoint=path)
    assert_identical(result, run(model, iter(data), estimator))


def test_finished(tmp_path):
    """Returns the same without a forward pass, and continues with added data."""
    model, path = plain(), tmp_path / "partial"
    data = data_of(model)
    first = run(model, data[:3], checkpoint=path)
    calls = []
    handle = model.register_forward_hook(lambda *_: calls.append(1))
    assert_identical(run(model, data[:3], checkpoint=path), first)
    assert not calls
    handle.remove()
    assert_identical(run(model, data, checkpoint=path), run(model, data))


def test_limit(tmp_path):
    model, path = plain(), tmp_path / "partial"
    data = data_of(model)
    first = run(model, data, limit=7, checkpoint=path)
    assert_identical(first, run(model, data, limit=7))
    assert_identical(run(model, data, limit=7, checkpoint=path), first)
    with pytest.raises(merganser.InputError, match="partial"):  # half of a batch
        run(model, data, checkpoint=path)


class Rare(nn.Module):
    """Uses a layer in few examples."""

    def __init__(self):
        super().__init__()
        self.common = nn.Linear(5, 4)
        self.rare = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        y = self.common(x)
        return self.head(y + (x[:, :1] > 9) * self.rare(y).tanh())


def test_parameters_that_earlier_batches_do_not_reach(tmp_path):
    """A resumed run probes again for single examples; the rounding differs."""
    model, data = Rare(), data_of(plain())
    data[4][0][:, 0] = 10
    expected = run(model, data)
    stopped(model, data, 4, tmp_path / "sums.pt")
    result = run(model, data, checkpoint=tmp_path / "sums.pt")
    for name, f in expected.items():
        assert f.any()
        torch.testing.assert_close(result[name], f, rtol=1e-5, atol=1e-7)


def test_half_precision(tmp_path):
    model, path = plain(), tmp_path / "partial"
    model = model.to(torch.bfloat16)
    data = [(x.bfloat16(), y) for x, y in data_of(plain())]
    expected = run(model, data)
    stopped(model, data, 2, path)
    assert_identical(run(model, data, checkpoint=path), expected)


def changed(data, batch, change):
    data = list(data)
    x, y = data[batch]
    data[batch] = change(x.clone(), y.clone())
    return data


def other_input(x, y):
    x[0, 0] += 1
    return x, y


def other_label(x, y):
    y[0] = (y[0] + 1) % 3
    return x, y


def trained():
    model = plain()
    with torch.no_grad():
        model[0].bias[0] += 1e-6
    return model


def frozen():
    model = plain()
    model[0].bias.requires_grad_(False)
    return model


def with_index(data):
    return [
        {"input": x, "labels": y, "index": torch.arange(len(x)) + 50} for x, y in data
    ]


# Model, data and options of the second run.
OTHERS = {
    "order": ({}, lambda data: data[::-1], {}),
    "order within a batch": (
        {},
        lambda data: changed(data, 0, lambda x, y: (x.flip(0), y.flip(0))),
        {},
    ),
    "input": ({}, lambda data: changed(data, 1, other_input), {}),
    "label": ({}, lambda data: changed(data, 1, other_label), {}),
    "index": ({}, with_index, {}),
    "batches": (
        {},
        lambda data: [
            (torch.cat([data[0][0], data[1][0]]), torch.cat([data[0][1], data[1][1]])),
            *data[2:],
        ],
        {},
    ),
    "fewer data": ({}, lambda data: data[:1], {}),
    "estimator": ({}, list, {"estimator": "empirical", "samples": 1}),
    "samples": ({}, list, {"samples": 3}),
    "seed": ({}, list, {"seed": 1}),
    "loss": ({}, list, {"loss": "classification"}),
    "dtype": ({}, list, {"dtype": torch.bfloat16}),
    "weights": ({"model": trained}, list, {}),
    "trainable parameters": ({"model": frozen}, list, {}),
}


@pytest.mark.parametrize("name", OTHERS)
def test_another_run(name, tmp_path):
    path = tmp_path / "sums.pt"
    data = data_of(plain())
    stopped(plain(), data, 2, path, "mc", samples=2)
    kept = path.read_bytes()
    models, other, options = OTHERS[name]
    model = models.get("model", plain)()
    options = {"estimator": "mc", "samples": 2, **options}
    with pytest.raises(merganser.InputError, match=r"sums\.pt") as caught:
        run(model, other(data), checkpoint=path, **options)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == kept
    # The file still resumes the first run.
    result = run(plain(), data, "mc", samples=2, checkpoint=path)
    assert_identical(result, run(plain(), data, "mc", samples=2))


def test_shuffled_data(tmp_path):
    model, path = plain(), tmp_path / "sums.pt"
    inputs = torch.randn(40, 5)
    data = TensorDataset(inputs, torch.zeros(40).long())
    loader = DataLoader(data, 4, shuffle=True)
    stopped(model, loader, 2, path)
    with pytest.raises(merganser.InputError, match=r"sums\.pt.*shuffling"):
        run(model, loader, checkpoint=path)


def test_interrupted_write(tmp_path, monkeypatch):
    """Ctrl-C within a write leaves the earlier file, and nothing of the new one."""
    model, path = plain(), tmp_path / "sums.pt"
    data = data_of(model)
    stopped(model, data, 2, path)
    kept = path.read_bytes()

    def interrupted(saved, file):
        file.write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(model, data, checkpoint=path)
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_bytes() == kept
    assert_identical(run(model, data, checkpoint=path), run(model, data))
