"""Linear regressions whose joint objective has a diagonal Hessian, in closed form.

Example i of task t has one input, coordinate c_i, so that the Hessian of
1/2 (y - W x)^2 is diagonal; for a model of K outputs it repeats for each output.
"""

from types import SimpleNamespace

import torch
from merganser import FisherResult
from torch import nn

IN, OUT = 5, 3


def linear(weight):
    model = nn.Linear(IN, OUT, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(weight)
    return model


def design(count, generator):
    """Inputs (count, IN) with one coordinate each, and every coordinate in use."""
    places = torch.arange(count) % IN
    x = torch.zeros(count, IN, dtype=torch.float64)
    x[torch.arange(count), places] = 0.5 + torch.rand(
        count, generator=generator, dtype=torch.float64
    )
    y = torch.randn(count, OUT, generator=generator, dtype=torch.float64)
    return x, y


def batches(x, y, size):
    return list(zip(x.split(size), y.split(size), strict=True))


def fisher_of(x):
    """The exact Fisher of a Gaussian of variance 1: mean x x^T, diagonal here."""
    diagonal = x.square().mean(0).expand(OUT, IN).clone()
    return FisherResult({"weight": diagonal}, len(x), len(x), "exact")


def problem(tasks=2, size=4):
    """theta_0 minimises the base's loss; theta_t = argmin l_t + 1/2 |. - theta_0|_H0;
    theta* the joint one. Weights a_t differ."""
    generator = torch.Generator().manual_seed(3)
    x0, y0 = design(15, generator)
    h0 = x0.square().sum(0)
    theta0 = (y0.T @ x0) / h0
    weights = [0.7, 1.3, 0.4][:tasks]
    sets = [design(10 + 5 * t, generator) for t in range(tasks)]
    h = [x.square().sum(0) for x, _ in sets]
    moments = [y.T @ x for x, y in sets]
    experts = [
        (moment + h0 * theta0) / (curve + h0)
        for moment, curve in zip(moments, h, strict=True)
    ]
    top = h0 * theta0 + sum(a * m for a, m in zip(weights, moments, strict=True))
    target = top / (h0 + sum(a * c for a, c in zip(weights, h, strict=True)))
    arithmetic = theta0 + sum(
        a * (e - theta0) for a, e in zip(weights, experts, strict=True)
    )
    return SimpleNamespace(
        base=linear(theta0),
        experts=[linear(e) for e in experts],
        data=[batches(x, y, size) for x, y in sets],
        sets=sets,
        weights=weights,
        fishers=[fisher_of(x) for x, _ in sets],
        base_fisher=fisher_of(x0),
        target=linear(target),
        arithmetic=linear(arithmetic),
        h0=h0.expand(OUT, IN),
        h=[c.expand(OUT, IN) for c in h],
    )
