"""merganser gram, the executable, against float64 inputs of transformers' layers and
against merganser.gram on the same model."""

import json

import command
import merganser
import pytest
import torch
from merganser._C import Dataset, content_hash, draw_subset
from safetensors import safe_open
from training_inputs import MODELS, make_data
from transformers import AutoModelForSequenceClassification

PAD = {"bert": 0, "roberta": 1}
N = 11


class Case:
    """A model directory, its data, and the same in transformers."""

    def __init__(self, name, folder):
        self.name = name
        self.folder = folder
        MODELS[name](folder / "model")
        make_data(folder / "data.jsonl", N, seed=4)
        self.model = AutoModelForSequenceClassification.from_pretrained(
            folder / "model"
        ).eval()
        self.ids = Dataset.load(
            folder / "data.jsonl", folder / "model", max_length=24, num_labels=3
        ).ids
        assert len({len(ids) for ids in self.ids}) > 3

    def run(self, *options, out="gram.safetensors", **more):
        return command.run(
            "gram",
            *("--model", self.folder / "model", "--data", self.folder / "data.jsonl"),
            *("--out", self.folder / out, "--max-length", "24", *options),
            **more,
        )

    def load(self, out="gram.safetensors"):
        return merganser.GramResult.load(self.folder / out)

    def batches(self, size, positions=range(N)):
        rows = [torch.tensor(self.ids[i]) for i in positions]
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            mask = [torch.ones_like(row) for row in part]
            yield {
                "input_ids": pad(part, PAD[self.name]),
                "attention_mask": pad(mask, 0),
            }

    def define(self, positions=range(N)):
        """Inputs of nn.Linear modules by hooks, one text at a time, in float64."""
        model = AutoModelForSequenceClassification.from_pretrained(
            self.folder / "model"
        )
        model = model.double().eval()
        sums = {}

        def hook(name):
            def add(module, args):
                a = args[0].reshape(-1, args[0].shape[-1])
                sums[name] = sums.get(name, 0) + a.T @ a / len(positions)

            return add

        for name, module in model.named_modules():
            if isinstance(module, torch.nn.Linear):
                module.register_forward_pre_hook(hook(f"{name}.weight"))
        with torch.no_grad():
            for batch in self.batches(1, positions):
                model(**batch)
        return sums


def pad(rows, value):
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)


def assert_close(found, expected, tolerance=1e-5):
    assert found.keys() == expected.keys()
    for name, matrix in expected.items():
        assert found[name].dtype == torch.float32
        error = (found[name] - matrix).norm() / matrix.norm()
        assert error < tolerance, name


@pytest.fixture(params=MODELS)
def case(request, tmp_path):
    return Case(request.param, tmp_path)


@pytest.fixture
def bert(tmp_path):
    return Case("bert", tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 4])
def test_against_python_and_the_definition(case, size):
    case.run("--batch-size", size)
    found = case.load()
    assert_close(found, merganser.gram(case.model, list(case.batches(3))))
    assert_close(found, case.define(), 2e-6)
    assert found.num_examples == found.num_examples_used == N


@pytest.mark.slow
def test_limit_draws_the_examples_of_the_fisher(bert):
    done = bert.run("--limit", "4", "--seed", "3", "--json", "-q")
    assert json.loads(done.stdout) == {
        "out": str(bert.folder / "gram.safetensors"),
        "num_examples": N,
        "num_examples_used": 4,
    }
    assert done.stderr == ""
    found = bert.load()
    assert_close(found, bert.define(draw_subset(N, 4, 3)))
    assert (found.num_examples, found.num_examples_used) == (N, 4)


@pytest.mark.slow
def test_bfloat16(bert):
    bert.run("--dtype", "bfloat16")
    expected = bert.define()
    assert_close(bert.load(), expected, 0.02)
    with pytest.raises(AssertionError):
        assert_close(bert.load(), expected)


@pytest.mark.slow
def test_file(bert):
    """The metadata that merganser.gram writes."""
    done = bert.run()
    assert "14 Gram matrices of" in done.stdout
    merganser.gram(
        bert.model, list(bert.batches(3)), model_path=bert.folder / "model"
    ).save(bert.folder / "python.safetensors")

    def metadata(name):
        with safe_open(bert.folder / name, "pt") as file:
            return file.metadata()

    assert metadata("gram.safetensors") == metadata("python.safetensors")
    own = metadata("gram.safetensors")["base_model_hash"]
    assert own == content_hash(bert.folder / "model")


def fisher(case, out, **options):
    return command.run(
        "fisher",
        *("--model", case.folder / "model", "--data", case.folder / "data.jsonl"),
        *("--out", case.folder / out, "--max-length", "24", "--limit", "2"),
        **options,
    )


@pytest.mark.slow
def test_grams_and_fishers_do_not_replace_each_other(bert):
    bert.run("--limit", "2")
    bert.run("--limit", "3")
    assert bert.load().num_examples_used == 3
    fisher(bert, "fisher.safetensors")
    before = (bert.folder / "fisher.safetensors").read_bytes()
    done = bert.run(out="fisher.safetensors", check=False)
    assert done.returncode == 2 and "exists and is not a Gram file" in done.stderr
    assert (bert.folder / "fisher.safetensors").read_bytes() == before
    done = fisher(bert, "gram.safetensors", check=False)
    assert done.returncode == 2 and "exists and is not a Fisher file" in done.stderr
    assert bert.load().num_examples_used == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--limit", "0"], "limit must be at least 1"),
        (["--batch-size", "0"], "--batch-size"),
        (["--estimator", "mc"], "--estimator"),
    ],
)
def test_refusals(bert, options, words):
    done = bert.run(*options, check=False)
    assert done.returncode == 2 and words in done.stderr
    assert not (bert.folder / "gram.safetensors").exists()


@pytest.mark.slow
def test_a_gram_that_is_not_finite_is_not_written(bert):
    with torch.no_grad():
        bert.model.bert.embeddings.LayerNorm.weight.fill_(3e38)  # its outputs overflow
    bert.model.save_pretrained(bert.folder / "model")
    done = bert.run(check=False)
    assert done.returncode == 1 and "the Gram matrix of bert.encoder" in done.stderr
    assert not (bert.folder / "gram.safetensors").exists()
