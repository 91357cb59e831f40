"""merganser.fisher against curvlinops, an independent library.

The expected values are stored (tests/golden/make_fishers.py writes them), as
curvlinops needs a separate environment.
"""

import json

import merganser
import pytest
from fisher_oracle import assert_fishers_close
from repository import GOLDEN
from safetensors import safe_open
from torch import nn


def mlp(config):
    return nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3, bias=False)
    )


def bert(config):
    from transformers import BertConfig, BertForSequenceClassification

    return BertForSequenceClassification(BertConfig(**json.loads(config)))


def load(make):
    """A model with its weights, its batch and the groups of expected values."""
    groups = {}
    with safe_open(GOLDEN / f"fisher_{make.__name__}.safetensors", "pt") as file:
        for key in file.keys():
            group, _, name = key.partition("/")
            groups.setdefault(group, {})[name] = file.get_tensor(key)
        model = make(file.metadata()["config"])
    model.load_state_dict(groups.pop("weights"))
    inputs = groups.pop("inputs")
    batch = (inputs.get("", inputs), groups.pop("labels")[""])
    return model, batch, groups


@pytest.mark.parametrize("estimator", ["exact", "empirical"])
@pytest.mark.parametrize("make", [mlp, bert])
def test_equals_curvlinops(make, estimator):
    model, batch, expected = load(make)
    assert set(expected) == {"exact", "empirical"}
    result = merganser.fisher(model, [batch], estimator)
    assert_fishers_close(result, expected[estimator])


def test_curvlinops_tells_the_estimators_apart():
    _, _, expected = load(bert)
    with pytest.raises(AssertionError, match="off by"):
        assert_fishers_close(expected["exact"], expected["empirical"])


@pytest.mark.slow
def test_many_samples_come_to_the_exact_fisher():
    """mc against curvlinops: with many samples from p, it equals the exact Fisher up to
    its sampling error, of order 1 / sqrt(samples)."""
    model, batch, expected = load(bert)
    result = merganser.fisher(model, [batch], "mc", samples=300)
    for name, f in expected["exact"].items():
        assert (result[name] - f).norm() <= 0.15 * f.norm() + 1e-9, name
