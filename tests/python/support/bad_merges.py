"""Changes of a test directory's merged/ that commands refuse."""

import json
import shutil

import tensor_files


def other_shapes(folder):
    """Layers that are narrower than the base's."""
    merged = folder / "merged"
    shutil.rmtree(merged)
    shutil.copytree(folder / "base", merged)
    config = json.loads((merged / "config.json").read_text())
    config["intermediate_size"] = 20
    (merged / "config.json").write_text(json.dumps(config))
    for layer in (0, 1):
        prefix = f"bert.encoder.layer.{layer}."
        change(folder, f"{prefix}intermediate.dense.weight", lambda w: w[:20])
        change(folder, f"{prefix}intermediate.dense.bias", lambda b: b[:20])
        change(folder, f"{prefix}output.dense.weight", lambda w: w[:, :20].contiguous())


def gradients_overflow(folder):
    """A large input of the pooler times a large gradient of its output."""
    for name, factor in {
        "bert.encoder.layer.1.output.LayerNorm.weight": 1e25,
        "bert.encoder.layer.1.output.LayerNorm.bias": 1e25,
        "bert.pooler.dense.weight": 1e-25,
        "classifier.weight": 1e25,
    }.items():
        change(folder, name, lambda x, factor=factor: factor * x)


def change(folder, name, edit):
    tensor_files.change(folder / "merged" / "model.safetensors", name, edit)
