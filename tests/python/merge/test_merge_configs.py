"""Values of config.json that models must share. transformers is the peer: it names the
values of each architecture, and computes the functions of activations."""

import json

import merganser
import pytest
import torch
from safetensors.torch import save_file

HEADS = ["num_attention_heads", "num_hidden_layers", "hidden_size"]
FAMILIES = [
    *("Bert", "Bart", "Bloom", "DistilBert", "Falcon", "GPT2", "GPTJ", "GPTNeoX"),
    *("Llama", "Mistral", "Mixtral", "ModernBert", "T5", "Whisper", "XLNet", "XLM"),
]


@pytest.fixture
def plan(tmp_path):
    """Plans a merge of two models with these configurations."""
    recipe = {"merge_method": "linear", "models": [{"model": "a"}, {"model": "b"}]}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    for name in "ab":
        (tmp_path / name).mkdir()
        save_file({"w": torch.zeros(2)}, tmp_path / name / "model.safetensors")

    def run(a, b):
        for name, config in (("a", a), ("b", b)):
            (tmp_path / name / "config.json").write_text(json.dumps(config))
        return merganser.plan(tmp_path / "r.yaml")

    return run


def config_of(family, **values):
    import transformers

    return getattr(transformers, family + "Config")(**values).to_dict()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_its_names(plan, family):
    import transformers

    names = getattr(transformers, family + "Config").attribute_map
    config = config_of(family)
    assert plan(config, config)
    for name in HEADS:
        own = names.get(name, name)
        changed = config | {own: 2 * config[own]}
        with pytest.raises(
            merganser.InputError, match=f"has {own} {changed[own]}, but"
        ):
            plan(config, changed)


@pytest.mark.parametrize("family", ["Llama", "GPTNeoX", "ModernBert"])
def test_rotary_embeddings(plan, family):
    config = config_of(family)
    rope = config["rope_parameters"]
    inner = rope.get("full_attention", rope)
    inner["rope_theta"] *= 2
    with pytest.raises(merganser.InputError, match=r"rope_theta [0-9.]+, but"):
        plan(config, config_of(family))


def test_activations_are_one_if_their_functions_are(plan):
    from transformers.activations import ACT2FN

    x = torch.linspace(-6, 6, 97)
    names = ["gelu", "gelu_python", "gelu_new", "gelu_pytorch_tanh", "gelu_fast"]
    names += ["quick_gelu", "silu", "swish", "relu", "gelu_python_tanh"]
    for i, first in enumerate(names):
        for second in names[:i]:
            a, b = (
                config_of("GPT2", activation_function=name) for name in (first, second)
            )
            if torch.allclose(ACT2FN[first](x), ACT2FN[second](x), atol=1e-6):
                assert plan(a, b)
            else:
                with pytest.raises(merganser.InputError, match="activation_function"):
                    plan(a, b)
