"""Examples of docs/python.md, run as printed on small models."""

import merganser
import pytest
import tiny_models
import torch
import transformers
from document_examples import run_example
from hf_training import examples
from merganser import Posterior


@pytest.fixture
def names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    base, *models = (tiny_models.bert() for _ in range(3))
    batch = tiny_models.batch([5, 7, 4, 6])
    fishers = [merganser.fisher(model, [batch]) for model in models]
    fishers[0].save("earlier.fisher.safetensors")
    return {
        "merganser": merganser,
        "transformers": transformers,
        "base": base,
        "model": base,
        "models": models,
        "other": models[0],
        "fishers": fishers,
        "base_fisher": merganser.fisher(base, [batch]),
        "loader": [batch],
        "data": examples(16),
        "args": transformers.TrainingArguments(
            "out",
            max_steps=2,
            learning_rate=1e-3,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
        ),
    }


def test_posteriors(names):
    run_example("Posteriors", names)
    probabilities = names["probabilities"]
    assert probabilities.shape == (4, 3)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(4))
    merged = merganser.merge(
        names["base"],
        names["models"],
        names["fishers"],
        base_fisher=names["base_fisher"],
        parameters={"delta": 0.0},
    )
    mean = Posterior.load("models/merged").mean
    for name, expected in merged.items():
        torch.testing.assert_close(mean[name], expected, rtol=1e-5, atol=1e-6)


def test_the_gradient_along_a_task_vector(names):
    names["model"] = names["models"][0]
    names["base_loader"] = names["loader"]
    run_example("The gradient along a task vector", names)
    assert names["total"].curvature.value > 0
    state = names["base"].state_dict()
    assert any(not torch.equal(state[n], x) for n, x in names["merged"].items())


def test_the_scale_of_a_fisher(names):
    for model in names["models"]:  # the loss of other heads is convex
        model.bert.load_state_dict(names["base"].bert.state_dict())
    names["fishers"] = [merganser.fisher(m, names["loader"]) for m in names["models"]]
    names["experts"], names["loaders"] = names["models"], [names["loader"]] * 2
    arguments = (names["base"], names["models"], names["fishers"])
    plain = merganser.merge(*arguments, base_fisher=names["base_fisher"])
    run_example("The scale of a Fisher", names)
    assert all(fisher.scale is not None for fisher in names["fishers"])
    assert any(not torch.equal(plain[n], x) for n, x in names["merged"].items())


def test_the_subspace_of_the_task_vectors(names, tmp_path):
    load = transformers.AutoModelForSequenceClassification.from_pretrained
    for name, model in zip(("yelp", "amazon"), names["models"], strict=True):
        model.save_pretrained(tmp_path / name)
        names[name] = load(tmp_path / name)
        names[f"{name}_loader"] = [tiny_models.batch([5, 7, 4, 6, 3, 8])]
    names["base"].save_pretrained(tmp_path / "base")
    names["base"] = load(tmp_path / "base")
    names["base_loader"] = [tiny_models.batch([4, 5, 6, 7, 8, 3])]
    run_example("The subspace of the task vectors", names)
    assert (tmp_path / "subspace.safetensors").exists()
    assert names["merged"].keys() == names["base"].state_dict().keys()


@pytest.mark.parametrize("section", ["Several processes", "Sharded models"])
def test_several_processes(section, names, monkeypatch):
    for name, value in {
        "RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "0",
    }.items():
        monkeypatch.setenv(name, value)
    names["model"] = names["models"][0]
    try:
        run_example("Several processes", names)
        if section == "Sharded models":
            run_example(section, names)
    finally:
        torch.distributed.destroy_process_group()
    saved = merganser.FisherResult.load("model.fisher.safetensors")
    for name, f in names["fishers"][0].items():
        torch.testing.assert_close(saved[name], f)


@pytest.mark.slow
def test_tangent_space(names):
    before = {n: x.clone() for n, x in names["base"].state_dict().items()}
    run_example("Tangent space", names)
    saved = type(names["base"]).from_pretrained("models/tangent").state_dict()
    linear = names["linear"].state_dict()
    assert all(torch.equal(linear[n], x) for n, x in saved.items())
    assert any(not torch.equal(before[n], x) for n, x in saved.items())
    assert names["merged"].keys() == before.keys()


@pytest.mark.slow
def test_fishers_from_checkpoints(names):
    args = transformers.TrainingArguments(
        "out",
        max_steps=4,
        per_device_train_batch_size=4,
        save_steps=4,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
    )
    transformers.Trainer(names["model"], args, train_dataset=names["data"]).train()
    run_example("Fishers from checkpoints", names)
    assert names["fisher"].estimator == "adam_checkpoint"
    assert names["merged"].keys() == names["base"].state_dict().keys()


@pytest.mark.slow
def test_earlier_tasks_in_a_trainer(names, capsys):
    run_example("Earlier tasks in a Trainer", names)
    assert names["callback"].value() > 0
    assert str(names["callback"].value()) in capsys.readouterr().out


def test_regmean_layer_by_layer(names):
    names["yelp"], names["tweets"] = names["models"]
    names["yelp_loader"] = names["tweets_loader"] = names["loader"]
    run_example("RegMean layer by layer", names)
    state = names["base"].state_dict()
    assert all(torch.equal(state[name], x) for name, x in names["merged"].items())


@pytest.mark.slow
def test_test_time_coefficients(names, capsys):
    names["yelp"], names["tweets"] = names["models"]
    names["yelp_texts"] = names["tweets_texts"] = names["loader"]
    run_example("Test-time coefficients", names)
    assert "bert.pooler.dense.weight" in capsys.readouterr().out


@pytest.mark.slow
def test_tasks_with_heads_of_their_own(names):
    """Methods with gradients, statistics and test inputs leave the heads alone."""
    names["torch"] = torch
    run_example("Tasks with heads of their own", names)
    encoders = [model.bert for model in (names["base"], *names["models"])]
    heads = {"topics": torch.nn.Linear(16, 4), "mood": torch.nn.Linear(16, 2)}
    base, *experts = (names["Tasks"](encoder, heads).eval() for encoder in encoders)
    data = []
    for task, head in heads.items():
        batch = tiny_models.batch([5, 7, 4, 6], num_labels=head.out_features)
        data.append([{**batch, "task": task}])
    both = [*data[0], *data[1]]
    base_fisher = merganser.fisher(base, both, "exact")
    fishers = [
        merganser.fisher(expert, batches, "exact", base=base, base_data=both)
        for expert, batches in zip(experts, data, strict=True)
    ]
    method = "measured_gradient_matching"
    subspace = merganser.subspace_fisher(base, experts, data, both, groups="global")
    merges = [
        merganser.merge(base, experts, fishers, method, base_fisher=base_fisher),
        merganser.merge(
            base, experts, method="subspace_gradient_matching", subspace=subspace
        ),
        merganser.regmean_plus_plus(experts, data),
        merganser.adamerging(base, experts, data, steps=2).state_dict,
    ]
    for merged in merges:
        assert torch.equal(merged["topics_weight"], heads["topics"].weight)
        assert not torch.equal(
            merged["encoder.pooler.dense.weight"],
            base.state_dict()["encoder.pooler.dense.weight"],
        )
