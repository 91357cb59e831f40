"""The section of a Trainer's model card: its place, and what its recipe merges."""

import re
import types

import pytest
import torch
import transformers
from command import run
from hf_training import bert, examples, make_trainer
from huggingface_hub import ModelCard
from merganser import FisherResult, InputError
from merganser.hf import FisherCallback, ProximalCallback, extend_model_card
from proximal_runs import draw_fisher
from safetensors.torch import load_file

pytestmark = pytest.mark.usefixtures("quick_collections")


def trained(folder, callbacks=None, model=None, **options):
    model = model or bert()
    callbacks = [FisherCallback()] if callbacks is None else callbacks
    trainer = make_trainer(folder, model, examples(16), callbacks, **options)
    trainer.train()
    return trainer


def section(folder):
    """The text between the marks, and the rest of the card."""
    card = (folder / "README.md").read_text()
    found = re.findall("<!-- merganser -->.*?<!-- /merganser -->", card, re.DOTALL)
    assert len(found) == 1
    return found[0], card.replace(found[0], "")


ORDERS = {
    "after": ["save_model", "create_model_card", "extend"],
    "before": ["extend", "save_model", "create_model_card"],
    "between": ["create_model_card", "extend", "save_model"],
    "again": ["create_model_card", "extend", "extend", "create_model_card", "extend"],
}


@pytest.mark.parametrize("order", ORDERS)
def test_any_order(order, tmp_path):
    trainer = trained(tmp_path)
    trainer.create_model_card()
    plain = (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").unlink()
    for step in ORDERS[order]:
        if step == "extend":
            extend_model_card(trainer)
        else:
            getattr(trainer, step)()
    text, rest = section(tmp_path)
    assert rest.rstrip() == plain.rstrip()
    for part in ("`fisher.safetensors`", "`adam`", "labels of the data", "16 of 16"):
        assert part in text
    tags = ModelCard.load(tmp_path / "README.md").data.tags
    assert tags == ModelCard(plain).data.tags == ["generated_from_trainer"]


def test_before_training(tmp_path):
    callback = FisherCallback("online_mc")
    trainer = make_trainer(tmp_path, bert(), examples(16), [callback])
    extend_model_card(trainer)
    trainer.create_model_card()
    assert "merganser" not in (tmp_path / "README.md").read_text()
    trainer.train()
    trainer.create_model_card(tags="mine")
    text, _ = section(tmp_path)
    assert "`online_mc`" in text and "labels drawn from the model" in text
    assert ModelCard.load(tmp_path / "README.md").data.tags[0] == "mine"


def test_push_to_hub(tmp_path, monkeypatch):
    """The card that is uploaded has the section, and the Fisher is next to it."""
    uploads = []

    def upload_folder(folder_path, **_):
        uploads.append(section(tmp_path)[0])
        assert (tmp_path / "fisher.safetensors").exists()

    hub = types.SimpleNamespace(
        create_repo=lambda name, **_: types.SimpleNamespace(repo_id=name),
        upload_folder=upload_folder,
    )
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda: hub)
    trainer = trained(tmp_path)
    extend_model_card(trainer)
    trainer.push_to_hub()
    assert len(uploads) == 1


def test_the_recipe_merges(tmp_path):
    """Against the mean weighted by N F, in float64."""
    for seed, name in enumerate(["my: model", "other"]):
        torch.manual_seed(seed)
        model = bert()
        with torch.no_grad():
            for p in model.parameters():
                p += 0.1 * torch.randn_like(p)
        trainer = trained(tmp_path / name, [FisherCallback("online_mc")], model)
        trainer.save_model()
        trainer.create_model_card()
        extend_model_card(trainer)
    text, _ = section(tmp_path / "my: model")
    (recipe,) = re.findall("```yaml\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "r.yaml"
    path.write_text(recipe.replace("OTHER", "other"))
    run("merge", path, tmp_path / "merged", "-q")
    models = [tmp_path / name for name in ("my: model", "other")]
    fishers = [FisherResult.load(m / "fisher.safetensors") for m in models]
    tensors = [load_file(m / "model.safetensors") for m in models]
    compared = 0
    for name, found in load_file(tmp_path / "merged" / "model.safetensors").items():
        h = [f.num_examples * f[name].double() for f in fishers]
        total = h[0] + h[1]
        expected = (h[0] * tensors[0][name] + h[1] * tensors[1][name]) / total
        used = total > 1e-20
        compared += int(used.sum())
        torch.testing.assert_close(
            found[used].double(), expected[used], rtol=1e-5, atol=1e-6
        )
    assert compared > 1000


def test_a_card_of_the_user(tmp_path):
    """Its bytes stay, and the section of an earlier run is replaced."""
    before = b"---\r\ntags: [mine]\r\n---\r\n# Caf\xe9 \r\n\r\n"
    extended = []
    for estimator in ("adam", "online_mc"):
        tmp_path.joinpath("README.md").write_bytes(
            extended[-1] + b"more\r\n" if extended else before
        )
        extend_model_card(trained(tmp_path, [FisherCallback(estimator)]))
        extended.append((tmp_path / "README.md").read_bytes())
    first, second = extended
    assert first.startswith(before) and b"`adam`" in first
    assert second.startswith(before) and b"`online_mc`" in second
    assert b"`adam`" not in second and second.endswith(b"<!-- /merganser -->\nmore\r\n")


def test_proximal_callback(tmp_path):
    model = bert()
    fishers = [draw_fisher(model), draw_fisher(model, seed=5)]
    callback = ProximalCallback(fishers, 0.5, decoupled=True)
    trainer = trained(tmp_path, [callback, FisherCallback()], model)
    extend_model_card(trainer)
    trainer.create_model_card()
    text, _ = section(tmp_path)
    expected = "decoupled, with weight 0.5 and the Fishers of 2 tasks before"
    assert expected in text and "`fisher.safetensors`" in text
    assert text.count("## ") == 1


def test_peft(tmp_path):
    """Saving an adapter rewrites README.md; a recipe merges other tensors."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False
    )
    trainer = trained(tmp_path, model=peft.get_peft_model(bert(), config))
    trainer.save_model()
    extend_model_card(trainer)
    trainer.save_model()
    section(tmp_path)
    trainer.create_model_card()
    trainer.save_model()
    text, _ = section(tmp_path)
    assert "`adam`" in text and "yaml" not in text
    assert ModelCard.load(tmp_path / "README.md").data.library_name == "peft"


def test_other_processes_leave_the_card(tmp_path):
    trainer = trained(tmp_path)
    trainer.create_model_card()
    before = (tmp_path / "README.md").read_bytes()
    trainer.is_world_process_zero = lambda: False
    extend_model_card(trainer)
    assert (tmp_path / "README.md").read_bytes() == before


def test_refusals(tmp_path):
    with pytest.raises(InputError, match="neither a FisherCallback nor a ProximalC"):
        extend_model_card(make_trainer(tmp_path, bert(), examples(8)))
    callback = FisherCallback(out=tmp_path / "f.safetensors")
    trainer = make_trainer(tmp_path / "out", bert(), examples(8), [callback])
    with pytest.raises(InputError, match="in its directory .*: omit `out` of Fisher"):
        extend_model_card(trainer)


def test_a_file_in_a_directory_below(tmp_path):
    callback = FisherCallback(out=tmp_path / "out" / "fishers" / "f.safetensors")
    (tmp_path / "out" / "fishers").mkdir(parents=True)
    trainer = trained(tmp_path / "out", [callback])
    trainer.create_model_card()
    extend_model_card(trainer)
    assert 'fisher: "out/fishers/f.safetensors"' in section(tmp_path / "out")[0]
