"""Groups of parameters, by name."""

from collections.abc import Iterable

GROUPS = ("global", "block", "tensor")

_HEAD = {"classifier", "pooler", "score", "lm_head", "pre_classifier", "qa_outputs"}
_HEAD |= {"cls", "head", "classification_head"}
_EMBEDDINGS = {"wte", "wpe", "shared"}
_ATTENTION = {"attention", "attn", "self_attn", "cross_attn", "selfattention"}
_ATTENTION |= {"encdecattention", "crossattention", "sa_layer_norm"}


def group_names(names: Iterable[str], groups: str) -> dict[str, str]:
    """The group of each parameter.

    "global": one group, "all". "tensor": one per parameter. "block": the attention and
    the MLP of each layer (with the norms that follow the MLP, and any other parameter
    of the layer), "embeddings", "head" and "rest".
    """
    if groups == "global":
        return dict.fromkeys(names, "all")
    if groups == "tensor":
        return {name: name for name in names}
    return {name: _block_of(name) for name in names}


def layer_of(name: str) -> str | None:
    """The name up to its first number, such as encoder.layer.3; None without one.

    A number that begins the name, of an nn.Sequential, counts only without a second
    one: a SentenceTransformer has 0.model.encoder.layer.3.
    """
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    if not numbers:
        return None
    number = numbers[1] if numbers[0] == 0 and len(numbers) > 1 else numbers[0]
    return ".".join(parts[: number + 1])


def _block_of(name: str) -> str:
    parts = name.lower().split(".")
    if _HEAD.intersection(parts):
        return "head"
    if any(part in _EMBEDDINGS or part.startswith("embed") for part in parts):
        return "embeddings"
    layer = layer_of(name)
    if layer is None:
        return "rest"
    within = parts[len(layer.split(".")) :]
    return f"{layer} {'attention' if _ATTENTION.intersection(within) else 'mlp'}"
