"""Fishers by curvlinops, the expected values of test_fisher_peers.py:

    benchmarks/peers/setup curvlinops
    build/peers/curvlinops/bin/python tests/golden/make_fishers.py

Writes fisher_NAME.safetensors next to this file: the model's weights, the batch, and
the diagonals of curvlinops' generalized Gauss-Newton matrix of the cross-entropy
(which is the Fisher, "exact") and of its empirical Fisher, each multiplied out
against the identity in float64 and stored in float32.
"""

import json
from importlib.metadata import version
from pathlib import Path

import torch
from curvlinops import EFLinearOperator, GGNLinearOperator
from safetensors.torch import save_file
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

BERT = {
    "vocab_size": 20,
    "max_position_embeddings": 8,
    "hidden_size": 8,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 12,
    "num_labels": 3,
}
COLUMNS = 256  # of the identity at a time


class Logits(nn.Module):
    """A transformers model as curvlinops calls it: the inputs as one dict."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, inputs):
        return self.model(**inputs).logits


def mlp():
    model = nn.Sequential(
        nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3, bias=False)
    )
    return model, model, torch.randn(7, 6)


def bert():
    model = BertForSequenceClassification(
        BertConfig(**BERT, attn_implementation="eager")
    )
    lengths = torch.tensor([[8], [1], [5], [3], [8]])
    mask = (torch.arange(8) < lengths).long()
    # Few different words, so that they come several times in an example.
    ids = torch.randint(2, 8, mask.shape) * mask
    return model, Logits(model), {"input_ids": ids, "attention_mask": mask}


def diagonal(operator, model, inputs, labels):
    """The operator's diagonal for the mean loss, by parameter name."""
    parameters = dict(model.named_parameters())
    matrix = operator(
        model,
        nn.CrossEntropyLoss(),
        list(parameters.values()),
        [(inputs, labels)],
        batch_size_fn=lambda x: len(labels),
    )
    size = matrix.shape[0]
    values = []
    for columns in torch.eye(size, dtype=torch.float64).split(COLUMNS):
        values.append(((matrix @ columns.T) * columns.T).sum(0))
    values = torch.cat(values).split([p.numel() for p in parameters.values()])
    return {
        name.removeprefix("model."): value.view_as(p)
        for value, (name, p) in zip(values, parameters.items(), strict=True)
    }


def write(make):
    torch.manual_seed(3)
    model, called, inputs = make()
    with torch.no_grad():  # away from the zeros and ones of the initialisation
        for p in model.parameters():
            p.add_(0.3 * torch.randn_like(p))
    rows = len(inputs["input_ids"] if isinstance(inputs, dict) else inputs)
    labels = torch.randint(0, 3, (rows,))
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}

    called.double().eval()
    doubled = inputs if isinstance(inputs, dict) else inputs.double()
    groups = {
        "weights": weights,
        "inputs": inputs if isinstance(inputs, dict) else {"": inputs},
        "labels": {"": labels},
        "exact": diagonal(GGNLinearOperator, called, doubled, labels),
        "empirical": diagonal(EFLinearOperator, called, doubled, labels),
    }
    tensors = {
        f"{group}/{name}": value.float() if value.is_floating_point() else value
        for group, values in groups.items()
        for name, value in values.items()
    }
    metadata = {
        "made_by": f"curvlinops-for-pytorch {version('curvlinops-for-pytorch')}",
        "config": json.dumps(BERT) if make is bert else "",
    }
    path = Path(__file__).parent / f"fisher_{make.__name__}.safetensors"
    save_file({k: v.contiguous() for k, v in tensors.items()}, path, metadata)


for make in (mlp, bert):
    write(make)
