"""Runs of a Trainer with a proximal term on a tiny BERT."""

import hf_training
import torch
from hf_training import bert, examples, gpt2, make_trainer, sentences
from merganser import FisherResult
from merganser.hf import ProximalCallback
from transformers import TrainerCallback

LR = 0.05


def draw_fisher(model, seed=3, num_examples=700):
    generator = torch.Generator().manual_seed(seed)
    diagonal = {
        n: torch.rand(p.shape, generator=generator) for n, p in model.named_parameters()
    }
    return FisherResult(diagonal, num_examples, 1, "exact")


def displaced(model):
    """A state to pull to, so that the term is not zero in the first step."""
    generator = torch.Generator().manual_seed(4)
    return {
        n: p + 0.1 * torch.randn(p.shape, generator=generator)
        for n, p in model.state_dict().items()
    }


class Gradients(TrainerCallback):
    """Records the gradients that reach the optimizer, and the parameters."""

    def __init__(self):
        self.steps = []
        self.model = None

    def on_pre_optimizer_step(self, args, state, control, model, **_):
        self.model = model
        self.steps.append([p.grad.clone() for p in model.parameters()])

    def parameters(self):
        return [p.detach().clone() for p in self.model.parameters()]


MODELS = {"bert": (bert, examples), "gpt2": (gpt2, sentences)}


def run(
    folder, proximal=True, decoupled=False, lr=0.0, name="bert", count=24, **options
):
    """Trains by SGD on `count` examples; returns the recorder and the callback."""
    make, draw = MODELS[name]
    model = make()
    gradients = Gradients()
    callbacks = [gradients]
    callback = None
    if proximal:
        callback = ProximalCallback(
            draw_fisher(model), 0.5, decoupled=decoupled, start=displaced(model)
        )
        callbacks.append(callback)
    trainer = make_trainer(
        folder,
        model,
        draw(count),
        callbacks,
        torch.optim.SGD(model.parameters(), lr=lr),
        lr_scheduler_type="constant",
        **options,
    )
    trainer.train()
    return gradients, callback


def pull(model, count=24, start=None):
    """weight / N * H (theta - theta_0) of these runs, by definition.

    start: theta_0; None: that of a run which begins at the model.
    """
    start = displaced(model) if start is None else start
    h = {n: 0.5 / count * x for n, x in draw_fisher(model).H.items()}
    return [h[n] * (p.detach() - start[n]) for n, p in model.named_parameters()]


def clipped(gradients, limit):
    norm = torch.stack([g.norm() for g in gradients]).norm()
    scale = min(1.0, limit / (norm + 1e-6)) if limit else 1.0
    return [scale * g for g in gradients]


def replay(split, name="bert", clip=0.0, count=24, lr=LR, processes=1):
    """The model that decoupled runs reach, 8 examples in a step: in float64, with the
    gradients of whole steps. Trainer adds up BERT's means."""
    make, draw = MODELS[name]
    model, data = make().double(), draw(count)
    theta_0 = displaced(model)
    size = processes * split["per_device_train_batch_size"]
    for i in range(0, count, 8):
        batch = torch.utils.data.default_collate(data[i : i + 8])
        labels = batch["labels"]
        if name == "gpt2":
            scale = 1 / int((labels != -100).sum())  # num_items_in_batch
        else:
            means = processes * -(-len(labels) // size)
            scale = means / len(labels)
        found = hf_training.gradients(model, [(batch, scale)])
        steps = clipped(list(found.values()), clip)
        terms = pull(model, count, theta_0)
        parts = zip(model.parameters(), steps, terms, strict=True)
        with torch.no_grad():
            for p, gradient, term in parts:
                p -= lr * (gradient + term)
    return model


def check_parameters(found, expected, name, tolerance):
    """The error of all displacements together."""
    found, expected, start = (
        torch.cat([p.detach().double().flatten() for p in parameters])
        for parameters in (found, expected.parameters(), MODELS[name][0]().parameters())
    )
    error = (found - expected).norm() / (expected - start).norm()
    assert error < tolerance


def check_gradients(found, without, whole, term, clip=0.0):
    """Each step's gradient is r (g + term), clipped, with g the gradient of the mean
    loss over the `whole` step and r g the gradient without the term."""
    assert len(found) == len(whole)
    for ours, loss, mean in zip(found, without, whole, strict=True):
        a, b = (torch.cat([g.flatten() for g in gs]) for gs in (loss, mean))
        r = int((a.dot(b) / b.dot(b)).round())
        assert (a - r * b).norm() < 0.02 * a.norm()  # of bf16
        expected = [g + r * t for g, t in zip(loss, term, strict=True)]
        for x, y in zip(ours, clipped(expected, clip), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-4, atol=1e-6)
