"""The bytes of a merge do not depend on sharding, threads or memory: random shapes,
dtypes and shardings."""

import json
import random
import subprocess

import pytest
import torch
import yaml
from command import executable
from safetensors.torch import load_file, save_file

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
CHUNK = 16384
STRIP = 16 * CHUNK
SIZES = [0, 1, 3, 255, 257, CHUNK - 1, CHUNK, CHUNK + 1, STRIP - 1, STRIP + 1]
METHODS = ["linear", "gradient_matching", "ties", "della_linear", "model_stock"]


def shape(draw):
    numel = draw.choice(SIZES)
    if draw.random() < 0.5:
        return (numel,)
    rows = draw.choice([1, 2, 5, 64])
    return (rows, -(-numel // rows))


def save(folder, state, shards, draw):
    """Writes one file, or several with an index."""
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    if shards == 1:
        save_file(state, folder / "model.safetensors", {"format": "pt"})
        return
    parts = [{} for _ in range(shards)]
    for name, tensor in state.items():
        draw.choice(parts)[name] = tensor
    shard_of = {}
    for i, part in enumerate(p for p in parts if p):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        save_file(part, folder / file, {"format": "pt"})
        shard_of |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": shard_of}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def run(folder, out, *arguments):
    process = subprocess.run(
        [executable(), "merge", "r.yaml", out, "--quiet", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    state = {}
    for file in (folder / out).glob("*.safetensors"):
        state |= load_file(file)
    return {name: (x.dtype, x.shape, raw(x)) for name, x in state.items()}


def raw(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("seed", range(20))
def test_bytes(tmp_path, seed):
    draw = random.Random(seed)
    torch.manual_seed(seed)
    shapes = {f"layer.{i}.w": shape(draw) for i in range(draw.randint(1, 6))}
    base = {
        name: torch.randn(size).to(draw.choice(DTYPES)) for name, size in shapes.items()
    }
    states = {"base": base}
    for model in "abc":
        states[model] = {
            name: (x.double() + 0.1 * torch.randn(x.shape)).to(draw.choice(DTYPES))
            for name, x in base.items()
        }
    method = METHODS[seed % len(METHODS)]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for folder, most in [(whole, 1), (cut, 3)]:
        folder.mkdir()
        for model, state in states.items():
            save(folder / model, state, draw.randint(1, most), draw)
            torch.manual_seed(len(model) + ord(model[0]))
            fisher = {n: torch.rand(x.shape) ** 4 for n, x in state.items()}
            save_file(fisher, folder / f"{model}.safetensors")
        recipe = {
            "merge_method": method,
            "base_model": "base",
            "base_fisher": "base.safetensors",
            "base_num_examples": 100,
            "models": [
                {"model": m, "fisher": f"{m}.safetensors", "num_examples": 50}
                for m in "abc"
            ],
            "parameters": {"density": 0.6},
        }
        (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    expected = run(whole, "one", "--threads", "1")
    assert run(cut, "many", "--threads", str(draw.randint(2, 5))) == expected
    plan = subprocess.check_output(
        [executable(), "plan", "r.yaml", "--threads", "1", "--json"], cwd=cut
    )
    least = json.loads(plan)["peak_memory"]
    assert run(cut, "least", "--memory", str(least)) == expected
    assert run(cut, "more", "--memory", str(2 * least - 1)) == expected
    refused = subprocess.run(
        [executable(), "merge", "r.yaml", "less", "--memory", str(least - 1)],
        cwd=cut,
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 2 and "raise --memory" in refused.stderr
    assert run(cut, "cut", "--shard-size", "100kB") == expected
