"""Fishers, optimizer and merge of a model on a GPU, against the CPU."""

import merganser
import pytest
import torch
from torch import nn

# Sizes that do not match packs and tiles; the last batch is short.
BATCHES = ((4, 11), (4, 19), (1, 7))
WORDS, WIDTH, LABELS = 13, 36, 3


class Classifier(nn.Module):
    """Scores the mean of normalized embeddings."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(WORDS, WIDTH, padding_idx=0)
        self.norm = nn.LayerNorm(WIDTH)
        self.inner = nn.Linear(WIDTH, WIDTH)
        self.scale = nn.RMSNorm(WIDTH)
        self.outer = nn.Linear(WIDTH, LABELS)

    def forward(self, ids):
        hidden = self.inner(self.norm(self.embedding(ids))).tanh()
        return self.outer(self.scale(hidden).mean(1))


def make_batches():
    generator = torch.Generator().manual_seed(5)
    return [
        (
            torch.randint(WORDS, shape, generator=generator),
            torch.randint(LABELS, shape[:1], generator=generator),
        )
        for shape in BATCHES
    ]


def on(device, tensors):
    return {name: tensor.detach().to(device) for name, tensor in tensors.items()}


@pytest.mark.parametrize("estimator", ["exact", "mc", "empirical", "mc_batch"])
def test_a_fisher_is_that_of_the_cpu(device, estimator):
    model = Classifier()
    expected = merganser.fisher(model, make_batches(), estimator)
    # Moved temporarily, and on its own device.
    found = merganser.fisher(model, make_batches(), estimator, device=device)
    assert all(f.device.type == "cpu" for f in found.diagonal.values())
    there = merganser.fisher(model.to(device), make_batches(), estimator)
    assert all(f.device.type == device for f in there.diagonal.values())
    for result in (found.diagonal, on("cpu", there.diagonal)):
        assert result.keys() == expected.diagonal.keys()
        for name, f in expected.diagonal.items():
            torch.testing.assert_close(result[name], f, rtol=1e-4, atol=1e-4 * f.max())


def test_steps_are_those_of_the_cpu(device):
    courses = []
    for where in ("cpu", device):
        torch.manual_seed(0)
        model = Classifier().to(where)
        optimizer = merganser.AdamWFisher(
            model.named_parameters(), lr=1e-3, max_grad_norm=1
        )
        for ids, labels in make_batches():
            optimizer.zero_grad()
            nn.functional.cross_entropy(
                model(ids.to(where)), labels.to(where)
            ).backward()
            optimizer.batch_size = len(ids)
            optimizer.step()
        fisher = optimizer.fisher(9).diagonal
        courses.append((on("cpu", dict(model.named_parameters())), on("cpu", fisher)))
    for found, expected in zip(courses[1], courses[0], strict=True):
        for name, tensor in expected.items():
            # Smaller than a step.
            torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "method", ["linear", "task_arithmetic", "fisher", "gradient_matching", "ties"]
)
def test_a_merge_has_the_bits_of_the_cpu(device, method):
    base, *models = (Classifier() for _ in range(3))
    needed = method in ("fisher", "gradient_matching")
    base_fisher, *fishers = (
        merganser.fisher(model, make_batches()) if needed else None
        for model in (base, *models)
    )
    results = [
        merganser.merge(
            None if method in ("linear", "fisher") else on(where, base.state_dict()),
            [on(where, model.state_dict()) for model in models],
            fishers if needed else None,
            method,
            base_fisher=base_fisher if method == "gradient_matching" else None,
        )
        for where in ("cpu", device)
    ]
    for name, tensor in results[0].items():
        assert results[1][name].device.type == device
        assert torch.equal(results[1][name].cpu(), tensor), name
