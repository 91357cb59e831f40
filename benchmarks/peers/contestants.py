"""Contestants: ways to the diagonal Fisher, and a plain backward pass.

Each takes a model, an iterable of batches and a context manager for the forward
pass, goes through all the batches and returns the Fisher, the mean over examples,
by parameter name. All but Merganser's "exact" and "mc" take the data's labels; of
two classes every estimator costs one backward pass.
"""

import torch
from torch.nn.functional import cross_entropy, layer_norm


def losses_of(model, batch, autocast):
    """-log p(y | x) of each example, (B,)."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    with autocast():
        logits = model(**inputs).logits
    return cross_entropy(logits.float(), batch["labels"], reduction="none")


def plain(model, batches, autocast):
    """One forward and backward pass, gradients kept as when they are accumulated."""
    for batch in batches:
        losses_of(model, batch, autocast).sum().backward()
    return {name: p.grad for name, p in model.named_parameters()}


def loop(model, batches, autocast):
    """The definition: batches of one example, their gradients squared."""
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    count = 0
    for batch in batches:
        losses_of(model, batch, autocast).squeeze(0).backward()
        with torch.no_grad():
            for name, p in model.named_parameters():
                sums[name].addcmul_(p.grad, p.grad)
        model.zero_grad()
        count += 1
    return {name: total.div_(count) for name, total in sums.items()}


def merganser(estimator):
    def run(model, batches, autocast):
        from merganser import fisher

        with autocast():
            return dict(fisher(model, batches, estimator))

    return run


def opacus(model, batches, autocast):
    """Per-sample gradients, (B, ...) of each parameter, squared and summed."""
    from opacus import GradSampleModule

    model.train()  # Opacus sees nothing in eval mode; there is no dropout
    sampled = GradSampleModule(model, loss_reduction="sum", strict=False)
    sums = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    count = 0
    for batch in batches:
        if model.config.model_type == "bert":
            # BERT looks the positions up once for all examples, and Opacus takes
            # the first dimension of a layer's input for the batch.
            ids = batch["input_ids"]
            positions = torch.arange(ids.shape[1]).expand_as(ids)
            batch = {**batch, "position_ids": positions}
        losses_of(sampled, batch, autocast).sum().backward()
        with torch.no_grad():
            for name, p in model.named_parameters():
                # Squares in place, to spare Opacus a second copy.
                squares = p.grad_sample.square_()
                sums[name] += squares.sum(0, dtype=torch.float32)
        sampled.zero_grad()
        count += len(batch["labels"])
    return {name: total.div_(count) for name, total in sums.items()}


def nngeometry_released(model, batches, autocast):
    """nngeometry's PMatDiag, of the layers that it knows: no embeddings."""
    from nngeometry.backend import TorchHooksJacobianBackend
    from nngeometry.layercollection import LayerCollection
    from nngeometry.object import PMatDiag
    from torch.utils.data import DataLoader

    count = 0

    class Loader(DataLoader):
        """nngeometry differentiates with respect to a batch's first tensor, which
        must be of floating-point numbers: the embeddings of the words."""

        def __iter__(self):
            nonlocal count
            for batch in batches:
                count += len(batch["labels"])
                with torch.no_grad():
                    words = model.get_input_embeddings()(batch["input_ids"])
                yield words, batch["attention_mask"], batch["labels"]

    def losses(words, mask, labels):
        batch = {"inputs_embeds": words, "attention_mask": mask, "labels": labels}
        return losses_of(model, batch, autocast)

    layers = LayerCollection.from_model(model, ignore_unsupported_layers=True)
    backend = TorchHooksJacobianBackend(model, losses, layer_collection=layers)
    # It divides by the length of what the loader samples from, here one: the
    # examples are not counted before they come.
    rest = PMatDiag(backend, examples=Loader([None])).get_diag().div_(count)
    fisher = {}
    for name, p in layers.named_parameters(backend.l_to_m):
        fisher[name] = rest[: p.numel()].view_as(p)
        rest = rest[p.numel() :]
    return fisher


def nngeometry(model, batches, autocast):
    """nngeometry extended to sequences.

    Its rules for linear layers and LayerNorm take one vector per example and fail
    with one per token. These add up over tokens before the square, as its
    own rule for convolutions adds up over places.
    """
    from nngeometry.backend.torch_hooks import grads

    class Linear(grads.JacobianFactory):
        @classmethod
        def flat_grad(cls, buffer, module, layer, x, grad):
            x = x.reshape(len(x), -1, x.shape[-1]).to(grad.dtype)
            grad = grad.reshape(len(grad), -1, grad.shape[-1])
            weights = layer.weight.numel()
            buffer[:, :weights] += (grad.mT @ x).flatten(1)
            buffer[:, weights:] += grad.sum(1)

    class LayerNorm(grads.JacobianFactory):
        @classmethod
        def flat_grad(cls, buffer, module, layer, x, grad):
            normalized = layer_norm(x.float(), module.normalized_shape, eps=module.eps)
            weights = layer.weight.numel()
            buffer[:, :weights] += (normalized * grad).sum(1)
            buffer[:, weights:] += grad.sum(1)

    grads.FactoryMap[grads.LinearLayer] = Linear
    grads.FactoryMap[grads.LayerNormLayer] = LayerNorm
    return nngeometry_released(model, batches, autocast)


CONTESTANTS = {
    "plain": plain,
    "loop": loop,
    "exact": merganser("exact"),
    "mc": merganser("mc"),
    "empirical": merganser("empirical"),
    "nngeometry": nngeometry,
    "nngeometry-released": nngeometry_released,
    "opacus": opacus,
}
