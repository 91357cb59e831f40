"""Files next to the weights: transformers and tokenizers are the peers, which read the
output."""

import json
import shutil

import pytest
import tiny_models
import torch
from command import run
from safetensors.torch import save_file

TEXT = ["a b ab", "hello hello world", "b  a"]


def merge(folder, names="ab", check=True, **recipe):
    content = {"merge_method": "linear", "models": [{"model": n} for n in names]}
    (folder / "r.yaml").write_text(json.dumps(content | recipe))
    return run("merge", folder / "r.yaml", folder / "out", "--quiet", check=check)


@pytest.fixture
def folder(tmp_path):
    """Two models with weights and config.json only."""
    for name in "ab":
        tiny_models.bert().save_pretrained(tmp_path / name)
    return tmp_path


def bpe_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=280, special_tokens=["<pad>"])
    tokenizer.train_from_iterator(TEXT * 3, trainer)
    return tokenizer


def test_chat_templates(folder):
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe_tokenizer())
    templates = {"default": "{{ messages }}", "rag": "{{ documents }}"}
    tokenizer.chat_template = templates
    for name in "ab":
        tokenizer.save_pretrained(folder / name)
    assert (folder / "a" / "additional_chat_templates" / "rag.jinja").exists()
    merge(folder)
    found = AutoTokenizer.from_pretrained(folder / "out")
    assert found.chat_template == templates
    assert found(TEXT)["input_ids"] == tokenizer(TEXT)["input_ids"]


def test_processors(folder):
    from transformers import AutoFeatureExtractor, WhisperFeatureExtractor

    extractor = WhisperFeatureExtractor(feature_size=13)
    for name in "ab":
        extractor.save_pretrained(folder / name)
    merge(folder)
    found = AutoFeatureExtractor.from_pretrained(folder / "out")
    assert found.to_dict() == extractor.to_dict()


def test_code_that_auto_map_names(folder, monkeypatch):
    from transformers import AutoConfig

    monkeypatch.setenv("HF_MODULES_CACHE", str(folder / "modules"))
    code = (
        "from transformers import BertConfig\n\n\n"
        "class OwnConfig(BertConfig):\n    model_type = 'own'\n    own = 7\n"
    )
    for name in "ab":
        file = folder / name / "config.json"
        config = json.loads(file.read_text())
        auto_map = {"AutoConfig": "configuration_own.OwnConfig"}
        file.write_text(
            json.dumps(config | {"model_type": "own", "auto_map": auto_map})
        )
        (folder / name / "configuration_own.py").write_text(code)
    merge(folder)
    config = AutoConfig.from_pretrained(folder / "out", trust_remote_code=True)
    assert config.own == 7


def test_modules_of_sentence_transformers(folder):
    modules = [
        {"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
    for name in "ab":
        (folder / name / "modules.json").write_text(json.dumps(modules))
        (folder / name / "sentence_bert_config.json").write_text("{}")
        (folder / name / "1_Pooling").mkdir()
        (folder / name / "1_Pooling" / "config.json").write_text("{}")
        (folder / name / "training_args.bin").write_text("")
    merge(folder)
    out = folder / "out"
    for module in modules:
        assert (out / module["path"]).is_dir()
    assert (out / "1_Pooling" / "config.json").exists()
    assert (out / "sentence_bert_config.json").exists()
    assert not (out / "training_args.bin").exists()


def test_one_vocabulary_of_two_versions(folder):
    """Merges as pairs or joined: tokenizers encodes the same with both."""
    from tokenizers import Tokenizer

    new = folder / "a" / "tokenizer.json"
    old = folder / "b" / "tokenizer.json"
    bpe_tokenizer().save(str(new))
    content = json.loads(new.read_text())
    model = content["model"]
    assert isinstance(model["merges"][0], list)
    model["merges"] = [" ".join(merge) for merge in model["merges"]]
    del model["ignore_merges"], model["byte_fallback"], model["dropout"]
    del content["pre_tokenizer"]["use_regex"]
    old.write_text(json.dumps(content))
    for text in TEXT:
        first, second = (
            Tokenizer.from_file(str(file)).encode(text).ids for file in (old, new)
        )
        assert first == second
    merge(folder)
    shutil.rmtree(folder / "out")
    model["merges"] = model["merges"][::-1]
    old.write_text(json.dumps(content))
    done = merge(folder, check=False)
    assert done.returncode == 2
    assert "different vocabularies" in done.stderr


def test_vocabularies_of_every_kind_are_compared(folder):
    for name in "ab":
        (folder / name / "spm.model").write_bytes(name.encode())
    done = merge(folder, check=False)
    assert done.returncode == 2
    assert "spm.model" in done.stderr


def test_the_type_under_both_keys(folder):
    from transformers import AutoModelForSequenceClassification

    for name in "ab":
        file = folder / name / "config.json"
        config = json.loads(file.read_text())
        both = {"dtype": "float32", "torch_dtype": "float32"}
        file.write_text(json.dumps(config | both))
    merge(folder, out_dtype="bfloat16")
    config = json.loads((folder / "out" / "config.json").read_text())
    assert config["dtype"] == config["torch_dtype"] == "bfloat16"
    found = AutoModelForSequenceClassification.from_pretrained(folder / "out")
    assert found.dtype == torch.bfloat16


def test_quantized_models_are_refused(folder):
    save_file(
        {"w": torch.zeros(4, dtype=torch.int8), "w_scale": torch.ones(1)},
        folder / "b" / "model.safetensors",
    )
    config = json.loads((folder / "b" / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "compressed-tensors"}
    (folder / "b" / "config.json").write_text(json.dumps(config))
    done = merge(folder, "b", check=False)
    assert done.returncode == 2
    assert "has quantization_config" in done.stderr


LAYERS = dict(d_model=8, encoder_layers=2, decoder_layers=2, vocab_size=20)
HEADS = dict(encoder_attention_heads=2, decoder_attention_heads=2)
WIDTHS = dict(encoder_ffn_dim=8, decoder_ffn_dim=8)
TWO_STACKS = {
    "T5": dict(d_model=8, d_kv=4, d_ff=8, num_layers=2, num_heads=2, vocab_size=20),
    "Bart": LAYERS | HEADS | WIDTHS,
    "Whisper": LAYERS | HEADS | WIDTHS | {"pad_token_id": 1},
    "CLIP": {
        "text_config": dict(
            hidden_size=8, num_hidden_layers=2, num_attention_heads=2, vocab_size=20
        ),
        "vision_config": dict(
            hidden_size=8, num_hidden_layers=2, num_attention_heads=2, image_size=32
        ),
    },
}


@pytest.mark.parametrize("kind", TWO_STACKS)
def test_slices_of_two_stacks_are_refused(tmp_path, kind):
    import transformers

    config = getattr(transformers, kind + "Config")(**TWO_STACKS[kind])
    getattr(transformers, kind + "Model")(config).save_pretrained(tmp_path / "a")
    slices = [{"sources": [{"model": "a", "layer_range": [0, 1]}]}]
    recipe = {"merge_method": "passthrough", "slices": slices}
    (tmp_path / "r.yaml").write_text(json.dumps(recipe))
    done = run("merge", tmp_path / "r.yaml", tmp_path / "out", check=False)
    assert done.returncode == 2
    assert "stack" in done.stderr
