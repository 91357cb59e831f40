"""Simulated trainings whose gradients are drawn, with the checkpoints they leave."""

import json

import torch
from torch import nn

COORDINATES = 4000
BETAS = (0.9, 0.999)


class Simulation:
    """AdamW on gradients of a step's mean loss over `batch` examples, drawn from normal
    distributions with mean `mean` and variance `variance` / batch.

    Attributes:
        model: the module with the parameters w (4000,) and b (7, 3).
        gradients: of every step before clipping, {name: (steps, ...)} float64.
        norms: their total norms.
    """

    def __init__(self, folder, batch, mean=0.0, clip=0.0, betas=BETAS, seed=0):
        self.folder, self.batch, self.clip, self.betas = folder, batch, clip, betas
        self.generator = torch.Generator().manual_seed(seed)
        self.model = nn.Module()
        self.variance, self.mean = {}, {}
        for name, shape in {"w": (COORDINATES,), "b": (7, 3)}.items():
            self.model.register_parameter(name, nn.Parameter(torch.zeros(shape)))
            self.variance[name] = self.draw(shape).mul(2).exp()
            self.mean[name] = mean * self.draw(shape) * self.variance[name].sqrt()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.0, betas=betas)
        self.gradients = {name: [] for name in self.variance}
        self.norms, self.log = [], []

    def draw(self, shape):
        return torch.randn(shape, generator=self.generator)

    def steps(self, count, scale=1.0):
        """scale: of the gradients."""
        for _ in range(count):
            for name, p in self.model.named_parameters():
                noise = (self.variance[name] / self.batch).sqrt() * self.draw(p.shape)
                p.grad = scale * (self.mean[name] + noise)
                self.gradients[name].append(p.grad.double())
            norm = sum(p.grad.double().square().sum() for p in self.model.parameters())
            self.norms.append(float(norm.sqrt()))
            if self.clip:
                nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
            self.optimizer.step()
            step = len(self.norms)
            self.log.append(
                {"step": step, "epoch": self.epoch(step), "grad_norm": self.norms[-1]}
            )

    def epoch(self, step):
        return step * self.batch / self.num_examples

    num_examples = 1024

    def save(self, name="checkpoint"):
        path = self.folder / name
        path.mkdir()
        torch.save(self.optimizer.state_dict(), path / "optimizer.pt")
        step = len(self.norms)
        state = {
            "global_step": step,
            "epoch": self.epoch(step),
            "train_batch_size": self.batch,
            "log_history": self.log,
        }
        (path / "trainer_state.json").write_text(json.dumps(state))
        return path

    def truth(self):
        """The mean of squares per example."""
        return {n: v + self.mean[n] ** 2 for n, v in self.variance.items()}


def weighted_squares(gradients, beta, begin=0):
    """sum_s beta^(t-s) g_s^2 / sum_s beta^(t-s) over the steps after `begin`."""
    weights = [beta**age for age in range(len(gradients) - begin)]
    pairs = zip(reversed(weights), gradients[begin:], strict=True)
    return sum(w * g**2 for w, g in pairs) / sum(weights)


def clipped(gradients, norms, clip):
    """One parameter's gradients as clip_grad_norm_ leaves them; clip 0: unclipped."""
    return [
        g * min(1, clip / (norm + 1e-6)) if clip else g
        for g, norm in zip(gradients, norms, strict=True)
    ]


def variance_and_mean(squares, means, k):
    """s^2 and mu^2 from E[g^2] = mu^2 + s^2 and E[m^2] = mu^2 + k s^2."""
    mu = min(max((means - k * squares) / (1 - k), 0), squares)
    return squares - mu, mu


def mean_factor(gradients, norms, clip, betas, n, begin=0):
    """(n s^2 + mu^2) / (n mean of squares), from the averages of clipped gradients."""
    count = len(norms) - begin
    ages = torch.arange(count - 1, -1, -1, dtype=torch.float64)
    fast = betas[0] ** ages / (betas[0] ** ages).sum()
    k = float((fast**2).sum())
    squares = means = 0.0
    for found in (clipped(g, norms, clip) for g in gradients.values()):
        squares += float(weighted_squares(found, betas[1], begin).sum())
        m = sum(w * g for w, g in zip(fast, found[begin:], strict=True))
        means += float((m**2).sum())
    s, mu = variance_and_mean(squares, means, k)
    return (n * s + mu) / (n * squares)


def clip_factor(norms, clip, beta, begin=0):
    """The average of squared norms over that of clipped ones."""
    weights = [beta**age for age in range(len(norms) - begin)][::-1]
    pairs = list(zip(weights, norms[begin:], strict=True))
    before = sum(w * g**2 for w, g in pairs)
    return before / sum(w * min(g, clip) ** 2 for w, g in pairs)
