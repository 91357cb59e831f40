"""Models inside torch.compile, DataParallel and DDP: the names of the model inside."""

import merganser
import pytest
import torch
from hf_training import bert, examples, make_trainer
from merganser.hf import FisherCallback
from torch import nn

X = torch.linspace(0, 9, 24).sin().view(6, 4)
Y = torch.arange(6).remainder(3)


class Model(nn.Module):
    """Has an own part named as those of wrappers are."""

    def __init__(self):
        super().__init__()
        self.module = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
        self.head = nn.Linear(5, 3)

    def forward(self, x):
        return self.head(self.module(x).tanh())


def compiled(model):
    return torch.compile(model, backend="eager")


def compiled_part(model):
    model.module = compiled(model.module)
    return model


@pytest.fixture
def process_group(tmp_path):
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


WRAPPERS = {
    "compile": compiled,
    "a compiled part": compiled_part,
    "DataParallel": nn.DataParallel,
    "DDP": nn.parallel.DistributedDataParallel,
    "compiled DDP": lambda m: compiled(nn.parallel.DistributedDataParallel(m)),
}


@pytest.fixture(params=WRAPPERS)
def wrapped(request, process_group):
    torch.manual_seed(0)
    return WRAPPERS[request.param](Model())


def inside():
    torch.manual_seed(0)
    return Model()


def assert_identical(actual, expected):
    assert list(actual) == list(expected)
    assert all(torch.equal(actual[name], x) for name, x in expected.items())


@pytest.mark.parametrize("estimator", ["exact", "mc_batch"])
def test_fisher(wrapped, estimator):
    expected = merganser.fisher(inside(), [(X, Y)], estimator)
    assert list(expected) == [name for name, _ in inside().named_parameters()]
    assert_identical(merganser.fisher(wrapped, [(X, Y)], estimator), expected)


def test_gram(wrapped):
    assert_identical(
        merganser.gram(wrapped, [(X, Y)]), merganser.gram(inside(), [(X, Y)])
    )


@pytest.mark.parametrize("is_base", [False, True])
def test_merge(wrapped, is_base):
    other = Model()
    models = [other, wrapped] if is_base else [wrapped, other]
    merged = merganser.merge(models[1], models[:1], method="task_arithmetic")
    assert list(merged) == list(other.state_dict())
    expected = other if is_base else inside()
    for name, x in expected.state_dict().items():
        torch.testing.assert_close(merged[name].to(x.dtype), x, msg=name)


@pytest.mark.slow
def test_adamw_fisher(wrapped):
    expected = inside()
    results = []
    for model in (wrapped, expected):
        optimizer = merganser.AdamWFisher(model.named_parameters())
        nn.functional.cross_entropy(model(X), Y).backward()
        optimizer.batch_size = 6
        optimizer.step()
        results.append(optimizer.fisher(6))
    assert_identical(*results)


def test_the_loss_of_a_compiled_language_model():
    """The loss depends on the class of the model inside."""
    import transformers as tf

    config = tf.GPT2Config(vocab_size=20, n_embd=8, n_layer=1, n_head=2, n_positions=8)
    model = tf.GPT2LMHeadModel(config)
    batch = {"input_ids": torch.randint(20, (2, 6)), "labels": torch.zeros(2, 6).long()}
    expected = merganser.fisher(model, [batch], "empirical")
    assert_identical(merganser.fisher(compiled(model), [batch], "empirical"), expected)


@pytest.mark.slow
def test_callback_of_a_compiled_model(tmp_path):
    results = []
    for wrap in (lambda model: model, compiled):
        callback = FisherCallback("online_mc", interval=1)
        options = {"remove_unused_columns": False}  # it would read the wrapper's
        make_trainer(tmp_path, wrap(bert()), examples(8), [callback], **options).train()
        results.append(callback.result)
    assert_identical(*results)
