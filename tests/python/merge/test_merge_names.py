"""Files of one model that name tensors differently: transformers is the peer, which
loads each of them and the output."""

import json

import merganser
import pytest
import torch
from command import run
from safetensors.torch import load_file, save_file

SIZE = dict(
    vocab_size=31,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=24,
    max_position_embeddings=12,
)


def new_model(kind, seed, **options):
    import transformers

    torch.manual_seed(seed)
    config = getattr(transformers, kind[: kind.index("For")] + "Config", None)
    model = getattr(transformers, kind)(config(**SIZE | options))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def load(path, kind):
    """The model as transformers loads it, and the names that it has to invent."""
    import transformers

    model, info = getattr(transformers, kind).from_pretrained(
        path, output_loading_info=True
    )
    return model, set(info["missing_keys"])


def rename(folder, change):
    """Rewrites a model's file; `change` gets and returns its tensors."""
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, {"format": "pt"})


def merge(folder, out="out", **recipe):
    recipe = {"base_model": "base", "merge_method": "task_arithmetic"} | recipe
    (folder / "r.yaml").write_text(json.dumps(recipe))
    run("merge", folder / "r.yaml", folder / out, "--quiet")
    return folder / out


def models(names="ab"):
    return [{"model": name, "parameters": {"weight": 0.4}} for name in names]


def expect_task_arithmetic(merged, base, others):
    """Compares parameters by transformers' names, whatever the names in the files."""
    expected = dict(base.named_parameters())
    tasks = [dict(other.named_parameters()) for other in others]
    found = dict(merged.named_parameters())
    assert found.keys() == expected.keys()
    for name, parameter in expected.items():
        update = sum(0.4 * (task[name] - parameter) for task in tasks)
        torch.testing.assert_close(found[name], parameter + update, msg=name)


@pytest.mark.parametrize("heads", ["base", "per_task"])
@pytest.mark.parametrize(
    "kind, head",
    [
        ("Bert", "BertForMaskedLM"),
        ("Roberta", "RobertaForMaskedLM"),
        ("DistilBert", "DistilBertForMaskedLM"),
        ("Electra", "ElectraForMaskedLM"),
    ],
)
def test_experts_of_a_pretrained_model(tmp_path, kind, head, heads):
    """The setting of task arithmetic: the base has the head of its pretraining."""
    options = {}
    if kind == "DistilBert":
        options = dict(dim=16, n_layers=2, n_heads=2, hidden_dim=24)
    new_model(head, 0, **options).save_pretrained(tmp_path / "base")
    classifier = kind + "ForSequenceClassification"
    for seed, name in enumerate("ab"):
        new_model(classifier, seed + 1, **options).save_pretrained(tmp_path / name)
    out = merge(tmp_path, heads=heads, models=models())
    merged, missing = load(out, head)
    assert not missing
    base, _ = load(tmp_path / "base", head)
    experts = [load(tmp_path / name, classifier)[0].base_model for name in "ab"]
    expect_task_arithmetic(merged.base_model, base.base_model, experts)
    for name, parameter in base.named_parameters():
        if not name.startswith(base.base_model_prefix):
            assert torch.equal(dict(merged.named_parameters())[name], parameter)
    if heads == "per_task":
        own = load_file(out / "heads" / "a.safetensors")
        assert any(name.startswith("classifier.") for name in own)


def test_a_bare_base(tmp_path):
    """BertModel's file has no prefix, a BertForSequenceClassification's has one."""
    classifier = "BertForSequenceClassification"
    for seed, name in enumerate(("base", "a", "b")):
        model = new_model(classifier, seed)
        if name == "base":
            model = model.base_model
        model.save_pretrained(tmp_path / name)
    assert "embeddings.word_embeddings.weight" in load_file(
        tmp_path / "base" / "model.safetensors"
    )
    out = merge(tmp_path, heads="per_task", models=models())
    merged, missing = load(out, "BertModel")
    assert not missing
    base, _ = load(tmp_path / "base", "BertModel")
    experts = [load(tmp_path / name, "BertModel")[0] for name in "ab"]
    expect_task_arithmetic(merged, base, experts)


def old_names(tensors):
    return {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }


@pytest.mark.parametrize("old", ["base", "a"])
def test_old_names_of_layer_norm(tmp_path, old):
    classifier = "BertForSequenceClassification"
    for seed, name in enumerate(("base", "a", "b")):
        new_model(classifier, seed).save_pretrained(tmp_path / name)
    rename(tmp_path / old, old_names)
    out = merge(tmp_path, models=models())
    merged, missing = load(out, classifier)
    assert not missing
    loaded = [load(tmp_path / name, classifier)[0] for name in ("base", "a", "b")]
    expect_task_arithmetic(merged, loaded[0], loaded[1:])


@pytest.mark.parametrize("twice", ["base", "a"])
def test_a_tie_stored_twice(tmp_path, twice):
    """Old files of RoBERTa have lm_head.decoder.weight, new ones do not."""
    head = "RobertaForMaskedLM"
    for seed, name in enumerate(("base", "a", "b")):
        new_model(head, seed).save_pretrained(tmp_path / name)

    def add_tie(tensors):
        table = tensors["roberta.embeddings.word_embeddings.weight"]
        tensors["lm_head.decoder.weight"] = table.clone()
        tensors["lm_head.decoder.bias"] = tensors["lm_head.bias"].clone()
        return tensors

    rename(tmp_path / twice, add_tie)
    out = merge(tmp_path, models=models())
    merged, missing = load(out, head)
    assert not missing
    loaded = [load(tmp_path / name, head)[0] for name in ("base", "a", "b")]
    expect_task_arithmetic(merged, loaded[0], loaded[1:])
    written = load_file(out / "model.safetensors")
    assert ("lm_head.decoder.weight" in written) == (twice == "base")


def test_constants_that_old_files_have(tmp_path):
    classifier = "BertForSequenceClassification"
    for seed, name in enumerate(("base", "a", "b")):
        new_model(classifier, seed).save_pretrained(tmp_path / name)
    ids = torch.arange(12).expand(1, -1).contiguous()
    for name in ("base", "b"):
        key = "bert.embeddings.position_ids"
        rename(tmp_path / name, lambda tensors, key=key: tensors | {key: ids})
    out = merge(tmp_path, models=models())
    merged, missing = load(out, classifier)
    assert not missing
    loaded = [load(tmp_path / name, classifier)[0] for name in ("base", "a", "b")]
    expect_task_arithmetic(merged, loaded[0], loaded[1:])


def test_a_weight_that_t5_does_not_use(tmp_path):
    """The hub's t5-small and its kind have it, and no fine-tuned model does."""
    import transformers

    sizes = dict(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=20)
    kind = "T5ForConditionalGeneration"
    for seed, name in enumerate(("base", "a", "b")):
        torch.manual_seed(seed)
        config = transformers.T5Config(**sizes)
        getattr(transformers, kind)(config).save_pretrained(tmp_path / name)
    key = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    unused = torch.randn(32, 2)
    rename(tmp_path / "base", lambda tensors: tensors | {key: unused})
    out = merge(tmp_path, models=models())
    assert torch.equal(load_file(out / "model.safetensors")[key], unused)
    merged, missing = load(out, kind)
    assert not missing
    loaded = [load(tmp_path / name, kind)[0] for name in ("base", "a", "b")]
    expect_task_arithmetic(merged, loaded[0], loaded[1:])


class TestFishers:
    """Frozen layers and ties that a file stores twice: one rule for both merges."""

    METHODS = ("fisher", "fisher_base", "gradient_matching", "removal")

    @pytest.fixture
    def files(self, tmp_path):
        torch.manual_seed(0)
        frozen = torch.randn(3, 4)
        for n, name in enumerate(("base", "a", "b")):
            table = torch.randn(5, 4)
            tensors = {
                "model.embed_tokens.weight": table,
                "lm_head.weight": table.clone(),
                "model.frozen.weight": frozen.clone(),
                "model.norm.weight": torch.ones(4),
                "model.w": torch.randn(6),
            }
            (tmp_path / name).mkdir()
            (tmp_path / name / "config.json").write_text('{"model_type": "llama"}')
            save_file(tensors, tmp_path / name / "model.safetensors", {"format": "pt"})
            result = merganser.FisherResult(
                {
                    key: torch.rand(tensors[key].shape) * 1e-3
                    for key in ("model.embed_tokens.weight", "model.w")
                },
                num_examples=100 + n,
                num_examples_used=100 + n,
                estimator="exact",
                base_model_hash=merganser.inspect(tmp_path / name)["content_hash"],
            )
            result.save(tmp_path / f"{name}.fisher.safetensors")
        return tmp_path

    @staticmethod
    def recipe(method, **parameters):
        found = [
            {"model": name, "fisher": f"{name}.fisher.safetensors"} for name in "ab"
        ]
        return dict(
            merge_method=method,
            base_fisher="base.fisher.safetensors",
            models=found,
            parameters={"weight": 0.5} | parameters,
        )

    @staticmethod
    def in_memory(folder, method, parameters=None):
        state = {
            name: load_file(folder / name / "model.safetensors")
            for name in ("base", "a", "b")
        }
        fishers = [folder / f"{name}.fisher.safetensors" for name in "ab"]
        return merganser.merge(
            state["base"],
            [state["a"], state["b"]],
            fishers,
            method,
            0.5,
            base_fisher=(
                None if method == "fisher" else folder / "base.fisher.safetensors"
            ),
            parameters=parameters,
        )

    @pytest.mark.parametrize("method", METHODS)
    def test_recipe_and_memory_agree(self, files, method):
        written = load_file(merge(files, **self.recipe(method)) / "model.safetensors")
        merged = self.in_memory(files, method)
        assert written.keys() == merged.keys()
        for name, tensor in merged.items():
            assert torch.equal(written[name], tensor), name
        base = load_file(files / "base" / "model.safetensors")
        assert torch.equal(written["model.frozen.weight"], base["model.frozen.weight"])
        table = "model.embed_tokens.weight"
        assert torch.equal(written["lm_head.weight"], written[table])
        assert not torch.equal(written[table], base[table])

    def test_the_mean_of_a_fisher_has_tied_tensors_once(self, files):
        """Two names of a tensor share one Fisher."""
        normalize = {"normalize_fishers": True}
        recipe = self.recipe("gradient_matching", **normalize)
        written = load_file(merge(files, **recipe) / "model.safetensors")
        merged = self.in_memory(files, "gradient_matching", normalize)
        for name, tensor in merged.items():
            assert torch.equal(written[name], tensor), name
        names = ("base", "a", "b")
        models = [load_file(files / name / "model.safetensors") for name in names]
        h = []
        for name in names:
            result = merganser.FisherResult.load(files / f"{name}.fisher.safetensors")
            mean = torch.cat([f.flatten() for f in result.diagonal.values()]).mean()
            h.append(result.diagonal["model.w"] / mean)
        base, a, b = (model["model.w"] for model in models)
        update = (h[0] + h[1]) * (a - base) + (h[0] + h[2]) * (b - base)
        expected = base + 0.5 * update / (h[0] + 0.5 * (h[1] + h[2]))
        torch.testing.assert_close(written["model.w"], expected)

    @pytest.mark.parametrize("method, name", [("fisher", "a"), ("ewr", None)])
    def test_recipe_and_memory_refuse(self, files, method, name):
        """Only the Fisher of b has a tensor."""
        if name:

            def change(tensors):
                tensors["model.frozen.weight"][0, 0] += 1
                return tensors

            rename(files / name, change)
        path = files / "b.fisher.safetensors"
        fisher = merganser.FisherResult.load(path)
        weight = load_file(files / "b" / "model.safetensors")["model.frozen.weight"]
        fisher.diagonal["model.frozen.weight"] = torch.ones_like(weight)
        fisher.save(path)
        (files / "r.yaml").write_text(
            json.dumps({"base_model": "base"} | self.recipe(method))
        )
        done = run("merge", files / "r.yaml", files / "out", check=False)
        assert done.returncode == 2
        assert "has no Fisher for tensors of" in done.stderr
        assert "model.frozen.weight" in done.stderr
        with pytest.raises(merganser.InputError, match=r"model\.frozen\.weight"):
            self.in_memory(files, method)
