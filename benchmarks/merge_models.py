"""Models of random weights to merge, and how much two merges differ."""

import json
import math

import torch
import transformers
from peers.workers import Failed
from safetensors import safe_open

NAMES = ("base", "expert1", "expert2", "expert3", "expert4")
CONFIGS = {
    "minilm": lambda: transformers.BertConfig(
        num_hidden_layers=6, hidden_size=384, intermediate_size=1536
    ),
    "roberta": lambda: transformers.RobertaConfig(
        vocab_size=50265, max_position_embeddings=514, type_vocab_size=1
    ),
    "llama-0.3b": lambda: transformers.LlamaConfig(
        num_hidden_layers=16,
        hidden_size=1024,
        intermediate_size=4096,
        num_attention_heads=16,
        num_key_value_heads=4,
    ),
    "llama-1b": lambda: transformers.LlamaConfig(
        num_hidden_layers=22,
        hidden_size=2048,
        intermediate_size=5632,
        num_key_value_heads=4,
    ),
    "llama-70b": lambda: transformers.LlamaConfig(
        num_hidden_layers=80,
        hidden_size=8192,
        intermediate_size=28672,
        num_attention_heads=64,
        num_key_value_heads=8,
    ),
}
CLASSES = {
    "bert": transformers.BertForSequenceClassification,
    "roberta": transformers.RobertaForSequenceClassification,
    "llama": transformers.LlamaForCausalLM,
}
SHARD_BYTES = {"llama-1b": 10**9, "llama-70b": 98 * 10**8}  # the latter in 15 shards
TYPES = {
    "float32": (torch.float32, "F32"),
    "bfloat16": (torch.bfloat16, "BF16"),
}


class TensorFile:
    """A safetensors file that is written tensor by tensor; shapes: name -> shape."""

    def __init__(self, path, shapes, dtype):
        self._dtype, code = TYPES[dtype]
        self._file = path.open("wb")
        header, self._size = {"__metadata__": {"format": "pt"}}, 0
        for name, shape in shapes.items():
            end = self._size + math.prod(shape) * self._dtype.itemsize
            offsets = [self._size, end]
            header[name] = {"dtype": code, "shape": shape, "data_offsets": offsets}
            self._size = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        self._file.write(len(text).to_bytes(8, "little") + text)

    def append(self, tensor):
        """The next of the tensors."""
        values = tensor.to(self._dtype).flatten()
        self._file.write(values.view(torch.uint8).numpy())

    def leave_empty(self):
        """A hole in place of all tensors."""
        self._file.truncate(self._file.tell() + self._size)

    def close(self):
        self._file.close()


def describe(model, dtype):
    """The configuration, and the tensors of each file: file name -> name -> shape."""
    config = CONFIGS[model]()
    of_type = CLASSES[config.model_type]
    config.architectures = [of_type.__name__]
    config.dtype = dtype
    with torch.device("meta"):
        state = of_type(config).state_dict()
    limit = SHARD_BYTES.get(model, math.inf)
    shards, size = [{}], 0
    for name, tensor in state.items():
        more = tensor.numel() * TYPES[dtype][0].itemsize
        if shards[-1] and size + more > limit:
            shards.append({})
            size = 0
        shards[-1][name] = list(tensor.shape)
        size += more
    if len(shards) == 1:
        return config, {"model.safetensors": shards[0]}
    return config, {
        f"model-{i + 1:05}-of-{len(shards):05}.safetensors": shard
        for i, shard in enumerate(shards)
    }


def make_models(model, dtype, folder):
    """The experts are near the base, as fine-tuned models are."""

    def write(shapes, files):
        for shape in shapes.values():
            base = torch.randn(shape).mul_(0.02)
            files[0].append(base)
            for file in files[1:]:
                file.append(torch.randn(shape).mul_(0.002).add_(base))

    _write_models(model, dtype, folder, write)


def make_sparse(model, dtype, folder):
    """Headers alone."""

    def write(shapes, files):
        for file in files:
            file.leave_empty()

    _write_models(model, dtype, folder, write)


def _write_models(model, dtype, folder, write):
    """Writes model directories; write(shapes, files) fills one file of each."""
    config, shards = describe(model, dtype)
    index = {name: file for file, shapes in shards.items() for name in shapes}
    for name in NAMES:
        config.save_pretrained(folder / name)
        if len(shards) > 1:
            text = json.dumps({"metadata": {}, "weight_map": index})
            (folder / name / "model.safetensors.index.json").write_text(text)
    for file, shapes in shards.items():
        files = [TensorFile(folder / name / file, shapes, dtype) for name in NAMES]
        write(shapes, files)
        for each in files:
            each.close()


def make_fishers(model, folder):
    """Over many orders of magnitude, as Fishers are."""
    shards = describe(model, "float32")[1].values()
    shapes = {name: shape for shard in shards for name, shape in shard.items()}
    for name in NAMES:
        file = TensorFile(folder / f"{name}_fisher.safetensors", shapes, "float32")
        for shape in shapes.values():
            file.append(torch.rand(shape).pow_(8).mul_(1e-5))
        file.close()


def difference(folder, reference):
    """The largest |a - b| / max |b| of a tensor, of all tensors of two models."""
    ours, theirs = _open_tensors(reference), _open_tensors(folder)
    if ours.keys() != theirs.keys():
        odd = sorted(ours.keys() ^ theirs.keys())
        raise Failed(f"{len(odd)} tensors only in one of two: {odd[0]}, ...")
    worst = 0.0
    for name, file in ours.items():
        a, b = theirs[name].get_tensor(name), file.get_tensor(name)
        if a.dtype != b.dtype:
            raise Failed(f"{name} is {a.dtype}, not {b.dtype}")
        worst = max(worst, float((a.float() - b).abs().max() / b.abs().max()))
    return worst


def _open_tensors(folder):
    """Tensor name -> the open file that holds it."""
    files = [safe_open(path, "pt") for path in folder.glob("*.safetensors")]
    return {name: file for file in files for name in file.keys()}
