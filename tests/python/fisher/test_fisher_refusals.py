"""Arguments and data that merganser.fisher refuses."""

import merganser
import pytest
import tiny_models
import torch
from torch import nn


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"estimator": "hessian"}, "estimator must be one of exact, mc,"),
        ({"samples": 2}, "samples applies to mc and mc_batch"),
        ({"estimator": "mc", "samples": 0}, "samples must be at least 1"),
        ({"limit": 0}, "limit must be at least 1"),
        ({"num_examples": 0}, "num_examples must be at least 1"),
        ({"estimator": "mc", "samples": 1.5}, "samples must be an integer, not 1"),
        ({"limit": "all"}, "limit must be an integer, not 'all'"),
        ({"seed": -1}, r"seed must be at least 0 and below 2\*\*63, not -1"),
        ({"seed": 2**63}, r"seed must be at least 0 and below 2\*\*63"),
        ({"seed": None}, "seed must be an integer, not None"),
        ({"estimator": "empirical"}, "no 'labels'"),
        ({"data": []}, "data has no examples"),
        ({"data": [{"text": ["a"]}]}, "return_tensors"),
        ({"data": ["text"]}, "not str"),
        ({"model_path": "absent"}, "absent"),
    ],
    ids=str,
)
def test_bad_arguments(arguments, named):
    arguments = {"model": nn.Linear(4, 2), "data": [torch.randn(3, 4)]} | arguments
    with pytest.raises(merganser.InputError, match=named):
        merganser.fisher(**arguments)


@pytest.mark.parametrize("labels", [[0, 1, 2], [0, -1, 1]])
def test_labels_of_no_class(labels):
    data = [(torch.randn(3, 4), torch.tensor(labels))]
    with pytest.raises(merganser.InputError, match="labels must be from 0 to 1"):
        merganser.fisher(nn.Linear(4, 2), data, "empirical")


@pytest.mark.parametrize("estimator", ["exact", "mc", "empirical", "mc_batch"])
@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (torch.zeros(3), r"labels \(B,\) of integers, not torch\.float32"),
        (torch.zeros(2).long(), r"labels must be a tensor of 3 rows.* shape \(2,\)"),
        (torch.ones(3, 4).long(), r"labels \(B,\) of integers, not .* \(B, 4\)"),
        (torch.ones(3).bool(), r"labels \(B,\) of integers, not torch\.bool"),
        ([0, 1, 1], "labels must be a tensor of 3 rows, one per example, not list"),
    ],
)
def test_labels_that_are_none(estimator, labels, said):
    """For example an attention mask in place of labels."""
    data = [(torch.randn(3, 4), labels)]
    with pytest.raises(merganser.InputError, match=said):
        merganser.fisher(nn.Linear(4, 2), data, estimator)


@pytest.mark.parametrize(
    ("index", "given"),
    [
        (torch.zeros(3), r"torch\.float32"),
        (torch.zeros(2).long(), r"one of shape \(2,\)"),
        (torch.ones(3, 4).long(), r"one of shape \(3, 4\)"),
        ([0, 1, 1], "list"),
    ],
)
def test_index_that_is_none(index, given):
    data = [{"input": torch.randn(3, 4), "index": index}]
    with pytest.raises(
        merganser.InputError, match=f"index must be a tensor of 3 integers.*not {given}"
    ):
        merganser.fisher(nn.Linear(4, 2), data)


def test_labels_twice():
    labels = torch.zeros(3).long()
    data = [({"input": torch.randn(3, 4), "labels": labels}, labels)]
    with pytest.raises(merganser.InputError, match="labels twice"):
        merganser.fisher(nn.Linear(4, 2), data)


def test_single_logit_is_no_class():
    model = tiny_models.bert(num_labels=1)
    with pytest.raises(merganser.InputError, match="K >= 2"):
        merganser.fisher(model, [tiny_models.batch([3, 4])], loss="classification")


def test_no_trainable_parameter():
    with pytest.raises(merganser.InputError, match="no trainable parameter"):
        merganser.fisher(nn.Linear(4, 2).requires_grad_(False), [torch.randn(3, 4)])


def test_not_finite():
    with pytest.raises(merganser.Error, match="weight is not finite"):
        merganser.fisher(nn.Linear(4, 2), [torch.full((1, 4), float("nan"))])
