"""merganser.fisher_from_checkpoint reads the same state from every format; other
optimizers' states against their definition."""

import functools
import json

import merganser
import optimizer_files
import pytest
import torch
from merganser import InputError
from optimizer_files import SETTINGS, WRITERS, make_state
from optimizer_runs import variance_and_mean
from torch import nn


def module_of(state):
    """A model with these parameters, in the same order."""
    model = nn.Module()
    for name, values in state.items():
        *path, last = name.split(".")
        parent = model
        for part in path:
            if part not in parent._modules:
                parent.add_module(part, nn.Module())
            parent = parent._modules[part]
        parent.register_parameter(last, nn.Parameter(torch.zeros_like(values)))
    return model


@pytest.fixture
def read(tmp_path):
    def read(checkpoint, **options):
        options = {"max_grad_norm": 0, "num_examples": 320, "batch_size": 8, **options}
        out = tmp_path / "out.safetensors"
        return merganser.fisher_from_checkpoint(checkpoint, out, **options)

    return read


def define(state, n=8, steps=40):
    """n v / (1 - 0.999^t), times the correction for the mean gradient."""
    squares = {
        k: s["exp_avg_sq"].double() / (1 - 0.999**steps) for k, s in state.items()
    }
    means = {k: s["exp_avg"].double() / (1 - 0.9**steps) for k, s in state.items()}
    total = sum(v.sum() for v in squares.values())
    of_means = sum((m**2).sum() for m in means.values())
    k = (0.1 / 1.9) * (1 + 0.9**steps) / (1 - 0.9**steps)
    s, mu = variance_and_mean(total, of_means, k)
    factor = (n * s + mu) / total
    return {name: factor * v for name, v in squares.items()}


@pytest.mark.parametrize("form", WRITERS)
def test_formats(form, read, tmp_path):
    state = make_state()
    WRITERS[form](tmp_path, state)
    options = {}
    if form == "optimizer.pt":
        options["model"] = module_of({n: s["exp_avg"] for n, s in state.items()})
    if form == "safetensors":
        with pytest.raises(InputError, match="betas are unknown; pass betas"):
            read(tmp_path)
        with pytest.raises(InputError, match="number of steps is unknown; pass step"):
            read(tmp_path, betas=(0.9, 0.999))
        options = {"betas": (0.9, 0.999), "step": 40}
    fisher = read(tmp_path, **options)
    expected = define(state)
    assert set(fisher) == set(expected)
    for name, f in expected.items():
        torch.testing.assert_close(fisher[name].double(), f, rtol=1e-6, atol=0)


def test_a_file_by_its_name(read, tmp_path):
    optimizer_files.write_fsdp(tmp_path, make_state())
    fisher = read(tmp_path / "optimizer.bin")
    assert set(fisher) == set(make_state())


def facts(path):
    metadata = merganser.inspect(path, hashes=False)["metadata"]
    return json.loads(metadata["optimizer_state"])


@pytest.mark.parametrize("kind", ["torch", "transformers"])
def test_adafactor(kind, read, tmp_path):
    """One step's squares are their rows' and columns' product; later ones have the
    weights 1 - (1 - s^-0.8)."""
    from transformers.optimization import Adafactor

    torch.manual_seed(0)
    model = nn.Linear(6, 5)
    optimizer = (
        torch.optim.Adafactor(model.parameters(), lr=0.0)
        if kind == "torch"
        else Adafactor(model.parameters(), lr=1e-9, relative_step=False)
    )
    rows, columns, vector = torch.zeros(5), torch.zeros(6), torch.zeros(5)
    for step in range(1, 8):
        model.weight.grad, model.bias.grad = torch.randn(5, 6), torch.randn(5)
        new = step**-0.8
        rows = (1 - new) * rows + new * (model.weight.grad**2).mean(1)
        columns = (1 - new) * columns + new * (model.weight.grad**2).mean(0)
        vector = (1 - new) * vector + new * model.bias.grad**2
        optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    fisher = read(tmp_path, model=model)
    expected = 8 * torch.outer(rows, columns) / rows.mean()
    torch.testing.assert_close(fisher["weight"], expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(fisher["bias"], 8 * vector, rtol=1e-4, atol=0)
    notes = facts(tmp_path / "out.safetensors")["notes"]
    assert "rows and columns" in notes[0]
    with pytest.raises(InputError, match="does not keep the squares whole"):
        read(tmp_path, model=model, start=tmp_path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("blocks", [256, 2048, None])
def test_adam_8bit(blocks, packed, read, tmp_path):
    """Each value is its code's entry of a table, times the largest of its block."""
    generator = torch.Generator().manual_seed(3)
    shape = (70, 100)
    state, expected = {}, {}
    for number in (1, 2):
        table = torch.rand(256, generator=generator)
        codes = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
        if blocks is None:
            largest = torch.rand(1, generator=generator)
            state[f"max{number}"] = largest
        else:
            count = -(-7000 // blocks)
            largest = torch.rand(count, generator=generator)
            state[f"absmax{number}"] = largest
        state |= {f"state{number}": codes, f"qmap{number}": table}
        values = torch.empty(7000)
        for i, code in enumerate(codes.flatten().tolist()):
            scale = largest[0 if blocks is None else i // blocks]
            values[i] = table[code] * scale
        expected[number] = values.view(shape)
    if packed:
        state = {"__bnb_optimizer_quant_state__": state}
    small = {"state1": torch.zeros(3), "state2": torch.rand(3), "step": 40}
    groups = [{**SETTINGS, "params": [0, 1], "param_names": ["big", "small"]}]
    torch.save(
        {"state": {0: {**state, "step": 40}, 1: small}, "param_groups": groups},
        tmp_path / "optimizer.pt",
    )
    fisher = read(tmp_path)
    pairs = {
        "big": {"exp_avg": expected[1], "exp_avg_sq": expected[2]},
        "small": {"exp_avg": small["state1"], "exp_avg_sq": small["state2"]},
    }
    for name, f in define(pairs).items():
        torch.testing.assert_close(fisher[name].double(), f, rtol=1e-5, atol=0)
    assert "8 bits" in facts(tmp_path / "out.safetensors")["notes"][0]


def step_of(optimizer, model):
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    return optimizer.state_dict()


def lion(model):
    return {
        "state": {
            i: {"exp_avg": torch.ones(p.shape)}
            for i, p in enumerate(model.parameters())
        },
        "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.99), "params": [0, 1]}],
    }


MATRIX = functools.partial(nn.Linear, 4, 4, bias=False)
OTHERS = {
    "SGD's state": lambda m: step_of(torch.optim.SGD(m.parameters(), momentum=0.9), m),
    "at most the mean": lambda m: step_of(torch.optim.SGD(m.parameters()), m),
    "square_avg": lambda m: step_of(torch.optim.RMSprop(m.parameters()), m),
    "Lion's state": lion,
}


@pytest.mark.parametrize("reason", OTHERS)
def test_other_optimizers(reason, read, tmp_path):
    model = nn.Linear(4, 4)
    torch.save(OTHERS[reason](model), tmp_path / "optimizer.pt")
    with pytest.raises(InputError, match=reason):
        read(tmp_path, model=model)


def test_muon(read, tmp_path):
    model = MATRIX()
    torch.save(step_of(torch.optim.Muon(model.parameters()), model), tmp_path / "o.pt")
    with pytest.raises(InputError, match="Muon's momentum"):
        read(tmp_path / "o.pt", model=model)
