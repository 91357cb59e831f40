"""The definition of a Fisher: a float64 loop over single examples and labels."""

import copy

import torch


def define_fisher(model, examples, label_weights):
    """sum_i sum_k w_ik (d log p(k | x_i) / d theta)^2 / N, by parameter name.

    examples: dicts of the model's arguments for one example each, without padding,
    or tensors (1, ...). label_weights(i, p): w_i (K,), from p = p(. | x_i).
    """
    model = copy.deepcopy(model).double().eval()
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    sums = {n: torch.zeros_like(p) for n, p in parameters.items()}
    for i, example in enumerate(examples):
        logits = logits_of(model, example)[0]
        log_p = torch.log_softmax(logits, dim=0)
        weights = label_weights(i, log_p.detach().exp())
        for k in weights.nonzero().flatten():
            gradients = torch.autograd.grad(
                log_p[k], parameters.values(), retain_graph=True, allow_unused=True
            )
            for total, gradient in zip(sums.values(), gradients, strict=True):
                if gradient is not None:
                    total += weights[k] * gradient**2
    return {n: total / len(examples) for n, total in sums.items()}


def logits_of(model, inputs):
    if isinstance(inputs, dict):
        return model(**inputs).logits
    if inputs.is_floating_point():
        inputs = inputs.to(next(model.parameters()).dtype)
    return model(inputs)


def single_examples(batches):
    """Each example of padded batches by itself, cut to its own length."""
    for batch in batches:
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            length = int(mask.sum())
            yield {
                "input_ids": ids[None, :length],
                "attention_mask": mask[None, :length],
            }


def assert_fishers_close(actual, expected, rtol=1e-5):
    """Tensor by tensor, relative to the tensor's norm.

    The absolute part is for tensors whose Fisher is zero by theory and rounding
    in float32, such as the bias of attention keys: 1e-12 of the whole.
    """
    assert set(actual) == set(expected)
    whole = sum(f.double().square().sum() for f in expected.values()).sqrt()
    for name, f in expected.items():
        assert actual[name].shape == f.shape, name
        error = (actual[name].double() - f.double()).norm()
        limit = rtol * f.double().norm() + 1e-12 * whole
        assert error <= limit, f"{name}: off by {error / f.norm():.1e} of its norm"
