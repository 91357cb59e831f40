"""What ProximalCallback takes, leaves alone and refuses."""

import merganser
import pytest
import torch
from hf_training import SPLITS, bert, examples, make_trainer
from merganser import FisherResult, InputError, Posterior
from merganser.hf import FisherCallback, ProximalCallback
from proximal_runs import displaced, draw_fisher

pytestmark = pytest.mark.usefixtures("quick_collections")


def test_dropout_is_as_without_it(tmp_path):
    """The measurement in the first forward pass leaves the random state."""
    models = []
    for weight in (None, 0.0):
        model = bert(dropout=True)
        callbacks = []
        if weight is not None:
            callbacks = [ProximalCallback(draw_fisher(model), weight)]
        options = {"learning_rate": 1e-2, **SPLITS["2x4"]}
        make_trainer(tmp_path, model, examples(20), callbacks, **options).train()
        models.append(model.state_dict())
    assert all(torch.equal(models[0][n], x) for n, x in models[1].items())


@pytest.mark.parametrize("decoupled", [False, True])
def test_without_weight_training_is_as_without_it(decoupled, tmp_path):
    models = []
    for callbacks in (False, True):
        model = bert(dropout=True)
        callback = ProximalCallback(draw_fisher(model), 0.0, decoupled=decoupled)
        options = {"learning_rate": 1e-2, "num_train_epochs": 2}
        make_trainer(
            tmp_path, model, examples(20), [callback] * callbacks, **options
        ).train()
        models.append(model.state_dict())
    assert all(torch.equal(models[0][n], x) for n, x in models[1].items())


def test_fishers_add_up(tmp_path):
    """A list, files and a Posterior give the same term."""
    model = bert()
    a, b = (draw_fisher(model, seed, n) for seed, n in ((1, 20), (2, 50)))
    b.save(tmp_path / "b.safetensors")
    total = {n: a.H[n] + b.H[n] for n in a}
    forms = [
        [a, tmp_path / "b.safetensors"],
        Posterior(model.state_dict(), total),
        FisherResult(total, 1, 1, "exact"),
    ]
    values = []
    for fisher in forms:
        callback = ProximalCallback(fisher, start=displaced(model), num_examples=10)
        make_trainer(tmp_path / "out", bert(), examples(8), [callback]).train()
        values.append(callback.value())
    start = displaced(model)
    expected = sum(
        float((total[n] * (p - start[n]).square()).sum()) / 20
        for n, p in model.state_dict().items()
        if n in total
    )
    assert values == pytest.approx([expected] * 3, rel=1e-5)


def test_trainable_parameters_only(tmp_path):
    model = bert()
    fisher = draw_fisher(model)
    model.bert.requires_grad_(False)
    head = {n: f for n, f in fisher.items() if n.startswith("classifier")}
    values = []
    for diagonal in (fisher.diagonal, head):
        callback = ProximalCallback(
            FisherResult(diagonal, 5, 5, "exact"), start=displaced(model)
        )
        make_trainer(tmp_path, model, examples(8), [callback]).train()
        assert model.bert.embeddings.word_embeddings.weight.grad is None
        values.append(callback.value())
    assert values[0] == values[1] > 0


def test_peft(tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        task_type="SEQ_CLS", r=2, target_modules=["query"], init_lora_weights=False
    )
    model = peft.get_peft_model(bert(), config)
    fisher = merganser.fisher(model, torch.utils.data.DataLoader(examples(8), 8))
    callback = ProximalCallback(fisher)
    options = {"learning_rate": 1e-2}
    make_trainer(tmp_path, model, examples(8), [callback], **options).train()
    assert callback.value() > 0


@pytest.mark.slow
@pytest.mark.parametrize("decoupled", [False, True])
def test_resumes(decoupled, tmp_path):
    options = {
        "num_train_epochs": 2,
        "learning_rate": 1e-2,
        "save_strategy": "steps",
        "save_steps": 1,
    }

    def train(step, start):
        model = bert(dropout=True)
        callback = ProximalCallback(
            draw_fisher(model), decoupled=decoupled, start=start
        )
        make_trainer(tmp_path, model, examples(20), [callback], **options).train(
            resume_from_checkpoint=step and str(tmp_path / f"checkpoint-{step}")
        )
        return model.state_dict()

    expected = train(None, None)
    with pytest.raises(InputError, match="resumes at step 3: pass start"):
        train(3, None)
    found = train(3, bert())
    assert all(torch.equal(found[n], x) for n, x in expected.items())


def test_start_in_files(tmp_path):
    model = bert()
    model.save_pretrained(tmp_path)
    fisher = draw_fisher(model)
    make_trainer(
        tmp_path / "out", model, examples(8), [ProximalCallback(fisher, start=tmp_path)]
    ).train()
    fisher.base_model_hash = "of another model"
    trainer = make_trainer(
        tmp_path / "out", model, examples(8), [ProximalCallback(fisher, start=tmp_path)]
    )
    with pytest.raises(InputError, match="belongs to a different model than start"):
        trainer.train()
    # Online EWC: only the Fisher of the last task is of theta_0.
    last = draw_fisher(model)
    last.base_model_hash = merganser._C.content_hash(tmp_path)
    callback = ProximalCallback([fisher, last], start=tmp_path)
    make_trainer(tmp_path / "out", model, examples(8), [callback]).train()


def test_the_fisher_of_another_model_without_start(tmp_path):
    bert().save_pretrained(tmp_path)
    model = type(bert()).from_pretrained(tmp_path)
    fisher, other = draw_fisher(model), draw_fisher(model)
    fisher.base_model_hash = merganser._C.content_hash(tmp_path)
    other.base_model_hash = "of another model"

    def train(*fishers):
        callback = ProximalCallback(list(fishers))
        make_trainer(tmp_path / "out", model, examples(8), [callback]).train()

    with pytest.raises(
        InputError, match="belongs to a different model than the one to"
    ):
        train(other)
    train(other, fisher)


def test_together_with_a_fisher(tmp_path):
    model, data = bert(), examples(16)
    for order in (1, -1):
        proximal = ProximalCallback(draw_fisher(model))
        callbacks = [proximal, FisherCallback("adam")][::order]
        with pytest.raises(InputError, match="square the gradient of the term"):
            make_trainer(tmp_path, model, data, callbacks).train()
    model.zero_grad()
    results = []
    for proximal in (False, True):
        callback = FisherCallback("adam")
        added = [ProximalCallback(draw_fisher(model), decoupled=True)] * proximal
        make_trainer(tmp_path, model, data, [callback, *added]).train()
        results.append(callback.result)
    assert all(torch.equal(results[0][n], f) for n, f in results[1].items())
    callbacks = [ProximalCallback(draw_fisher(model)), FisherCallback("online_mc")]
    make_trainer(tmp_path, model, data, callbacks).train()


def spoiled(**tensors):
    fisher = draw_fisher(bert())
    for name, tensor in tensors.items():
        name = name.replace("__", ".")
        if tensor is None:
            del fisher.diagonal[name]
        else:
            fisher.diagonal[name] = tensor
    return fisher


@pytest.mark.parametrize(
    "change, message",
    [
        ({"classifier__bias": None}, "fisher lacks trainable.*'classifier.bias'"),
        ({"head": torch.ones(3)}, "fisher has tensors that the model lacks: 'head'"),
        ({"classifier__bias": torch.ones(2)}, r"'classifier.bias' has shape \[2\]"),
        ({"classifier__bias": -torch.ones(3)}, "must be finite and not negative"),
        ({"classifier__bias": torch.full((3,), torch.inf)}, "must be finite"),
    ],
)
def test_refuses_fishers(change, message, tmp_path):
    callback = ProximalCallback(spoiled(**change))
    with pytest.raises(InputError, match=message):
        make_trainer(tmp_path, bert(), examples(8), [callback]).train()


def test_refuses_steps_that_overshoot(tmp_path):
    fisher = draw_fisher(bert(), num_examples=10**6)
    callback = ProximalCallback(fisher, decoupled=True)
    trainer = make_trainer(
        tmp_path, bert(), examples(8), [callback], learning_rate=1e-2
    )
    with pytest.raises(InputError, match="decoupled step would overshoot theta_0"):
        trainer.train()


def test_refuses_a_weight_that_overflows(tmp_path):
    callback = ProximalCallback(draw_fisher(bert()), 1e300)
    trainer = make_trainer(tmp_path, bert(), examples(8), [callback])
    message = r"weight \* H / N overflows torch.float32 in tensor .* is 1.25e\+299: use"
    with pytest.raises(InputError, match=message):
        trainer.train()


def test_refuses_trainers(tmp_path):
    trainer = make_trainer(tmp_path, bert(), examples(8))
    trainer.args.fp16 = True
    with pytest.raises(InputError, match="ProximalCallback does not support fp16"):
        ProximalCallback(draw_fisher(bert())).on_train_begin(
            trainer.args,
            trainer.state,
            trainer.control,
            model=trainer.model,
            train_dataloader=None,
        )


def test_refuses_arguments(tmp_path):
    fisher = draw_fisher(bert())
    for weight in (-1.0, float("nan"), float("inf"), "1"):
        with pytest.raises(InputError, match="weight must be a finite number"):
            ProximalCallback(fisher, weight)
    for given in ([], None, 3):
        with pytest.raises(InputError, match="fisher must be a FisherResult"):
            ProximalCallback(given)
    with pytest.raises(InputError, match="a Fisher must be a FisherResult"):
        ProximalCallback([fisher, 3])
    with pytest.raises(InputError, match="num_examples must be at least 1"):
        ProximalCallback(fisher, num_examples=0)
    with pytest.raises(InputError, match="once training has begun"):
        ProximalCallback(fisher).value()
    with pytest.raises(InputError, match="start lacks a tensor of the model"):
        callback = ProximalCallback(fisher, start={"w": torch.ones(1)})
        make_trainer(tmp_path, bert(), examples(8), [callback]).train()
