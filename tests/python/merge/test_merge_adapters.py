"""LoRA adapters in recipes."""

import json
import subprocess
from pathlib import Path

import merganser
import numpy
import pytest
import yaml
from command import executable
from merge_runs import assert_close, run
from safetensors.numpy import save_file


@pytest.mark.slow
@pytest.mark.parametrize("rank_stabilised", [False, True])
def test_adapters_against_peft(folder, tmp_path, rank_stabilised):
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(folder / "base")
    torch.manual_seed(0)
    adapted = get_peft_model(
        model,
        LoraConfig(
            r=5,
            lora_alpha=7,
            use_rslora=rank_stabilised,
            target_modules=["query", "dense"],
            rank_pattern={"query": 3},
            task_type="SEQ_CLS",
        ),
    )
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "adapter")
    expected = adapted.merge_and_unload().state_dict()
    recipe = {
        "merge_method": "linear",
        "models": [{"model": f"base+{tmp_path / 'adapter'}"}],
    }
    found = run(folder, recipe, out=tmp_path / "out")
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert_close(values, expected[name].numpy())


@pytest.mark.parametrize("targets", [["attn.c_proj", "score"], "all-linear"])
def test_conv1d_and_linear_against_peft(tmp_path, targets):
    """GPT-2's Conv1D stores (in, out), and attn.c_proj is square."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import GPT2Config, GPT2ForSequenceClassification

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=20, n_embd=16, n_layer=1, n_head=2, n_positions=16, pad_token_id=0
    )
    GPT2ForSequenceClassification(config).save_pretrained(tmp_path / "base")

    def base():
        return GPT2ForSequenceClassification.from_pretrained(tmp_path / "base")

    adapted = get_peft_model(base(), LoraConfig(r=2, target_modules=targets))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(base(), tmp_path / "adapter")
    expected = loaded.merge_and_unload().state_dict()
    recipe = {"merge_method": "passthrough", "models": [{"model": "base+adapter"}]}
    found = run(tmp_path, recipe, out=tmp_path / "out")
    for name, values in found.items():
        assert_close(values, expected[name].numpy())


@pytest.mark.parametrize("init", ["pissa", "olora", "orthogonal", "gaussian"])
def test_initializations_against_peft(folder, tmp_path, init):
    """Those that change the base are refused; converted, they are plain LoRA."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import AutoModelForSequenceClassification

    def base():
        return AutoModelForSequenceClassification.from_pretrained(folder / "base")

    torch.manual_seed(0)
    adapted = get_peft_model(
        base(), LoraConfig(r=4, target_modules=["query"], init_lora_weights=init)
    )
    adapted.save_pretrained(tmp_path / "initial")
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(base(), tmp_path / "adapter")
    expected = loaded.merge_and_unload().state_dict()
    recipe = {
        "merge_method": "passthrough",
        "models": [{"model": "base", "adapter": str(tmp_path / "adapter")}],
    }
    if init in ("pissa", "olora"):
        (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
        command = [executable(), "plan", "r.yaml"]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 2
        assert f'init_lora_weights "{init}" changes the weights' in done.stderr
        # The remedy of the message: relative to the initial adapter, which PEFT
        # needs with init_lora_weights=True.
        converted = tmp_path / "initial" / "adapter_config.json"
        config = json.loads(converted.read_text())
        converted.write_text(json.dumps({**config, "init_lora_weights": True}))
        adapted.save_pretrained(
            tmp_path / "converted",
            path_initial_model_for_weight_conversion=str(tmp_path / "initial"),
        )
        recipe["models"][0]["adapter"] = str(tmp_path / "converted")
    found = run(folder, recipe, out=tmp_path / "out")
    assert found.keys() == expected.keys()
    for name, values in found.items():
        assert_close(values, expected[name].numpy())


def test_a_head_that_only_the_adapter_has(tmp_path):
    """A classifier on a masked language model, which has no pooler either."""
    import torch
    from peft import LoraConfig, PeftModel, get_peft_model
    from transformers import (
        AutoModelForSequenceClassification,
        BertConfig,
        BertForMaskedLM,
    )

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
    )
    BertForMaskedLM(config).save_pretrained(tmp_path / "base")

    def base():
        return AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")

    lora = LoraConfig(
        r=2,
        task_type="SEQ_CLS",
        target_modules=["query"],
        modules_to_save=["pooler", "classifier"],
    )
    adapted = get_peft_model(base(), lora)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn_like(parameter))
    adapted.save_pretrained(tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(base(), tmp_path / "adapter")
    expected = loaded.merge_and_unload().state_dict()
    recipe = {"merge_method": "passthrough", "models": [{"model": "base+adapter"}]}
    found = run(tmp_path, recipe, out=tmp_path / "out")
    assert "classifier.weight" in found
    for name, values in expected.items():
        assert_close(found[name], values.numpy())
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    for name, values in merged.state_dict().items():
        assert_close(values.numpy(), expected[name].numpy())


def test_adapters_are_read_once_per_tensor(tmp_path):
    """Not once per chunk, if several models have an adapter."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("the system does not count what is read")
    random = numpy.random.default_rng(0)
    size, rank = 512, 64
    models = []
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    weights = random.standard_normal((size, size), numpy.float32)
    save_file({"w.weight": weights}, tmp_path / "base" / "model.safetensors")
    for name in ("x", "y"):
        adapter = tmp_path / name
        adapter.mkdir()
        config = {"peft_type": "LORA", "lora_alpha": 4, "r": rank}
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        shapes = {"A": (rank, size), "B": (size, rank)}
        tensors = {
            f"base_model.model.w.lora_{matrix}.weight": random.standard_normal(
                shape, numpy.float32
            )
            for matrix, shape in shapes.items()
        }
        save_file(tensors, adapter / "adapter_model.safetensors")
        models.append({"model": "base", "adapter": name})
    recipe = {"merge_method": "linear", "models": models}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))

    def read():
        return int(counters.read_text().split()[1])

    before = read()
    merganser.merge_recipe(tmp_path / "r.yaml", tmp_path / "out", threads=1)
    # The base once per model, the adapters for the merge and for their hashes.
    expected = 4 * (2 * size * size + 2 * 2 * 2 * rank * size)
    assert read() - before < 1.2 * expected


@pytest.mark.parametrize("transposed", [False, True])
def test_adapters_of_two_models(tmp_path, transposed):
    """Weights (out, in), or (in, out) as in GPT-2's Conv1D, of several chunks."""
    random = numpy.random.default_rng(0)
    width, height, rank = 517, 130, 3
    weights = random.standard_normal((height, width))
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("{}")
    save_file({"w.weight": weights}, tmp_path / "base" / "model.safetensors")
    updates = []
    for name in ("x", "y"):
        adapter = tmp_path / name
        adapter.mkdir()
        config = {"peft_type": "LORA", "lora_alpha": 6, "r": rank}
        (adapter / "adapter_config.json").write_text(
            json.dumps(config | {"fan_in_fan_out": transposed})
        )
        a = random.standard_normal((rank, height if transposed else width))
        b = random.standard_normal((width if transposed else height, rank))
        prefix = "base_model.model.w"
        save_file(
            {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b},
            adapter / "adapter_model.safetensors",
        )
        updates.append(2 * (b @ a).T if transposed else 2 * b @ a)
    models = [{"model": "base", "adapter": name} for name in ("x", "y")]
    found = run(
        tmp_path, {"merge_method": "linear", "models": models}, out=tmp_path / "out"
    )
    assert numpy.abs(found["w.weight"] - weights - sum(updates) / 2).max() < 1e-12


@pytest.mark.parametrize("matrix", ["A", "B"])
def test_adapters_that_are_not_finite(folder, tmp_path, matrix):
    """The error names the adapter's file and tensor, not the model's."""
    name = "bert.pooler.dense"
    tensors = {
        f"base_model.model.{name}.lora_A.weight": numpy.ones((2, 32), numpy.float32),
        f"base_model.model.{name}.lora_B.weight": numpy.ones((32, 2), numpy.float32),
    }
    bad = f"base_model.model.{name}.lora_{matrix}.weight"
    tensors[bad].reshape(-1)[7] = numpy.nan
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    save_file(tensors, adapter / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "lora_alpha": 4, "r": 2}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    (folder / "r.yaml").write_text(
        f"merge_method: linear\nmodels: [{{model: base, adapter: {adapter}}}]\n"
    )
    process = subprocess.run(
        [executable(), "merge", "r.yaml", tmp_path / "out", "--quiet"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2
    place = f"{adapter}/adapter_model.safetensors: tensor '{bad}' is nan at index 7"
    assert place in process.stderr
