"""merganser.fisher_from_checkpoint on checkpoints of transformers' Trainer, against the
squared gradients of the same steps in float64."""

import json

import hf_training
import merganser
import pytest
import torch
from fisher_oracle import assert_fishers_close
from hf_training import bert, examples, gpt2, make_trainer, sentences
from merganser import InputError
from optimizer_runs import clip_factor, mean_factor, weighted_squares

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_collections")]
BETAS = (0.9, 0.999)


def train(folder, model, data, **options):
    """Two epochs in the data's order at weights that do not move."""
    options = {
        "num_train_epochs": 2,
        "save_strategy": "steps",
        "save_steps": 3,
        "save_total_limit": 5,
        "max_grad_norm": 0.0,
        **options,
    }
    make_trainer(folder, model, data, **options).train()


def mean_gradients(model, data, batch, epochs=2):
    """{name: gradients of the steps' mean losses}, and their norms."""
    found, norms = {}, []
    for _ in range(epochs):
        for start in range(0, len(data), batch):
            rows = torch.utils.data.default_collate(data[start : start + batch])
            terms = 1 / rows["labels"][..., 1:].ne(-100).sum()
            if rows["labels"].dim() == 1:
                terms = 1 / len(rows["labels"])
            gradients = hf_training.gradients(model, [(rows, terms)])
            for name, g in gradients.items():
                found.setdefault(name, []).append(g)
            norms.append(float(sum((g**2).sum() for g in gradients.values()).sqrt()))
    return found, norms


def define(gradients, norms, examples, n, clip=0.0, begin=0):
    """examples * (corrections) * the average of squared clipped gradients."""
    clipped = {
        name: [
            g * min(1, clip / norm) if clip else g
            for g, norm in zip(found, norms, strict=True)
        ]
        for name, found in gradients.items()
    }
    factor = examples * mean_factor(gradients, norms, clip, BETAS, n, begin)
    if clip:
        factor *= clip_factor(norms, clip, BETAS[1], begin)
    return {
        name: factor * weighted_squares(found, BETAS[1], begin)
        for name, found in clipped.items()
    }


def facts_of(path):
    return json.loads(
        merganser.inspect(path, hashes=False)["metadata"]["optimizer_state"]
    )


@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_bert(clip, tmp_path):
    """Names of two parameter groups and shapes from config.json, 24 examples in 6 steps
    of 4, the hash of the checkpoint's model."""
    model, data = bert(), examples(24)
    train(tmp_path, model, data, per_device_train_batch_size=4, max_grad_norm=clip)
    checkpoint = tmp_path / "checkpoint-12"
    fisher = merganser.fisher_from_checkpoint(
        checkpoint, tmp_path / "f.safetensors", num_examples=24, max_grad_norm=clip
    )
    gradients, norms = mean_gradients(model, data, 4)
    assert_fishers_close(fisher, define(gradients, norms, 4, 4, clip), rtol=1e-4)
    assert fisher.base_model_hash == merganser.inspect(checkpoint)["content_hash"]
    facts = facts_of(tmp_path / "f.safetensors")
    assert facts["file"] == "optimizer.pt" and facts["batch_size"] == 4
    assert (facts["clipping_factor"] > 1.5) == (clip > 0)


def test_two_checkpoints(tmp_path):
    model, data = bert(), examples(24)
    train(tmp_path, model, data, per_device_train_batch_size=4)
    fisher = merganser.fisher_from_checkpoint(
        tmp_path / "checkpoint-12",
        tmp_path / "f.safetensors",
        num_examples=24,
        max_grad_norm=0,
        start=tmp_path / "checkpoint-6",
    )
    gradients, norms = mean_gradients(model, data, 4)
    expected = define(gradients, norms, 4, 4, begin=6)
    # The later average is mostly the earlier one, and has its rounding.
    assert_fishers_close(fisher, expected, rtol=1e-3)


def test_accumulation(tmp_path):
    """BERT ignores num_items_in_batch, so that Trainer adds the means of 4
    micro-batches of 2 examples: the divisor of a step's loss is 2."""
    model, data = bert(), examples(24)
    train(
        tmp_path,
        model,
        data,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=4,
    )
    fisher = merganser.fisher_from_checkpoint(
        tmp_path / "checkpoint-6",
        tmp_path / "f.safetensors",
        num_examples=24,
        max_grad_norm=0,
        loss_terms=2,
    )
    gradients, norms = mean_gradients(model, data, 8)
    for found in gradients.values():
        found[:] = [4 * g for g in found]
    expected = define(gradients, norms, 2**2 / 8, 8)
    assert_fishers_close(fisher, expected, rtol=1e-4)


def test_language_model(tmp_path):
    """Tied weights; the loss is a mean over the tokens of a step."""
    model, data = gpt2(), sentences(24)
    model.loss_type = "ForCausalLM"  # by which Trainer counts the tokens
    train(tmp_path, model, data, per_device_train_batch_size=4)
    tokens = sum(int(row["labels"][1:].ne(-100).sum()) for row in data) / 6
    fisher = merganser.fisher_from_checkpoint(
        tmp_path / "checkpoint-12",
        tmp_path / "f.safetensors",
        num_examples=24,
        max_grad_norm=0,
        loss_terms=tokens,
    )
    gradients, norms = mean_gradients(model, data, 4)
    expected = define(gradients, norms, tokens**2 / 4, 4)
    assert_fishers_close(fisher, expected, rtol=1e-4)
    assert "lm_head.weight" not in fisher


def test_adapter(tmp_path):
    """Of a PEFT checkpoint, the adapter's and the head's, by the names in its file."""
    peft = pytest.importorskip("peft")
    base = bert()
    base.save_pretrained(tmp_path / "base")
    base = type(base).from_pretrained(tmp_path / "base")
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        r=2,
        target_modules=["query", "value"],
        lora_dropout=0.0,
        init_lora_weights=False,
    )
    model, data = peft.get_peft_model(base, config), examples(24)
    train(tmp_path, model, data, per_device_train_batch_size=4)
    checkpoint = tmp_path / "checkpoint-12"
    fisher = merganser.fisher_from_checkpoint(
        checkpoint, tmp_path / "f.safetensors", num_examples=24, max_grad_norm=0
    )
    gradients, norms = mean_gradients(model, data, 4)
    expected = {
        name.replace(".modules_to_save.default", "").replace(".default", ""): f
        for name, f in define(gradients, norms, 4, 4).items()
    }
    assert_fishers_close(fisher, expected, rtol=1e-4)
    adapter = merganser.inspect(checkpoint / "adapter_model.safetensors")
    assert {tensor["name"] for tensor in adapter["tensors"]} == set(fisher)
    assert fisher.base_model_hash == adapter["content_hash"]


@pytest.mark.parametrize("name", ["adafactor", "adamw_torch"])
def test_scale_of_a_real_training(name, tmp_path):
    """Weights that move: the sum is within a factor of 2 of the empirical Fisher's."""
    model, data = bert(), examples(64)
    train(
        tmp_path,
        model,
        data,
        per_device_train_batch_size=4,
        num_train_epochs=3,
        save_steps=48,
        learning_rate=1e-4,
        max_grad_norm=1.0,
        optim=name,
    )
    fisher = merganser.fisher_from_checkpoint(
        tmp_path / "checkpoint-48",
        tmp_path / "f.safetensors",
        num_examples=64,
        max_grad_norm=1.0,
    )
    batch = torch.utils.data.default_collate(data)
    exact = merganser.fisher(model, [batch], "empirical")
    ratio = sum(f.sum() for f in fisher.values()) / sum(f.sum() for f in exact.values())
    assert 0.5 < float(ratio) < 2
    closeness = merganser.compare_fishers(fisher, exact)
    assert closeness.total.cosine > 0.8
    if name == "adafactor":
        assert "Adafactor" in facts_of(tmp_path / "f.safetensors")["notes"][0]


def test_optimizers_without_squares(tmp_path):
    train(tmp_path, bert(), examples(8), optim="sgd", save_steps=1)
    with pytest.raises(InputError, match="SGD's state"):
        merganser.fisher_from_checkpoint(
            tmp_path / "checkpoint-1",
            tmp_path / "f.safetensors",
            num_examples=8,
            max_grad_norm=0,
        )


def test_frozen_parameters(tmp_path):
    """The model as it was trained gives the names; without it the sizes differ."""
    model, data = bert(), examples(24)
    for p in model.bert.embeddings.parameters():
        p.requires_grad = False
    train(tmp_path, model, data, per_device_train_batch_size=4)
    out = tmp_path / "f.safetensors"
    options = {"num_examples": 24, "max_grad_norm": 0}
    with pytest.raises(InputError, match="same parameters frozen"):
        merganser.fisher_from_checkpoint(tmp_path / "checkpoint-12", out, **options)
    fisher = merganser.fisher_from_checkpoint(
        tmp_path / "checkpoint-12", out, **options, model=model
    )
    gradients, norms = mean_gradients(model, data, 4)
    assert_fishers_close(fisher, define(gradients, norms, 4, 4), rtol=1e-4)
