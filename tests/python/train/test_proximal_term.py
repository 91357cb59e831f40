"""The proximal term's steps against its definition, for parameters of any shape."""

import pytest
import torch
from merganser._hf.proximal_term import ProximalTerm
from torch import nn

# Shapes of no dimension, of few elements, and of more than a CPU processes at a time.
SHAPES = [(), (3,), (70_001,), (301, 7, 33), (2, 40_000)]


class Problem:
    def __init__(self, dtype, device):
        torch.manual_seed(0)
        options = {"dtype": dtype, "device": device}
        tensors = [torch.randn(shape, **options) for shape in SHAPES]
        tensors.append(torch.randn(500, 300, **options).T)
        self.model = nn.ParameterList([nn.Parameter(x) for x in tensors])
        self.start = [torch.randn_like(p) for p in self.model]
        self.h = [torch.rand_like(p) for p in self.model]
        precision = {str(i): h for i, h in enumerate(self.h)}
        self.term = ProximalTerm(self.model, self.start, precision)
        bf16 = dtype == torch.bfloat16
        self.tolerance = {"rtol": 1e-2, "atol": 2e-2} if bf16 else {"rtol": 1e-5}
        self.tolerance = {"atol": 1e-6} | self.tolerance

    def pulls(self):
        parts = zip(self.model, self.start, self.h, strict=True)
        return [h.double() * (p.detach().double() - s.double()) for p, s, h in parts]

    def check(self, found, factors, tensors):
        for x, c, t in zip(found, factors, tensors, strict=True):
            torch.testing.assert_close(x.double(), c * t, **self.tolerance)

    def check_gradients(self, *factors):
        self.check([p.grad for p in self.model], factors, self.pulls())


@pytest.fixture(params=[torch.float32, torch.bfloat16, torch.float64], ids=str)
def problem(request, device):
    return Problem(request.param, device)


def test_gradient(problem):
    for _ in range(2):  # the second step finds the memory of the first
        problem.model.zero_grad()
        problem.term.add_gradient(2.0)
        problem.check_gradients(*[2] * 6)
        problem.term.add_gradient(1.0)
        problem.check_gradients(*[3] * 6)
    problem.model[1].grad = None
    problem.term.add_gradient(1.0)
    problem.check_gradients(4, 1, 4, 4, 4, 4)
    problem.term.release()
    problem.check_gradients(4, 1, 4, 4, 4, 4)


def test_shrink(problem):
    p = list(problem.model)
    groups = [{"params": p[:3]}, {"params": p[4:], "lr": 0.25}]
    rates = [0.5, 0.5, 0.5, 0.0, 0.25, 0.25]
    pairs = zip(p, rates, problem.pulls(), strict=True)
    moved = [x.detach().double() - r * t for x, r, t in pairs]
    problem.term.shrink(torch.optim.SGD(groups, lr=0.5))
    problem.check([x.detach() for x in p], [1] * 6, moved)
