"""The definition of a Fisher: a float64 loop over single examples and labels."""

import copy

import torch


def define_fisher_of_scores(model, examples, scores):
    """sum_i sum_k w_ik (d s_ik / d theta)^2 / N, by parameter name.

    examples: the model's arguments for one example each, without padding, as dicts
    or tensors. scores(i, outputs): pairs (w_ik, s_ik) of the outputs of example i.
    """
    model = copy.deepcopy(model).double().eval()
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    sums = {n: torch.zeros_like(p) for n, p in parameters.items()}
    for i, example in enumerate(examples):
        outputs = logits_of(model, example)[0]
        for weight, score in scores(i, outputs):
            gradients = torch.autograd.grad(
                score, parameters.values(), retain_graph=True, allow_unused=True
            )
            for total, gradient in zip(sums.values(), gradients, strict=True):
                if gradient is not None:
                    total += weight * gradient**2
    return {n: total / len(examples) for n, total in sums.items()}


def define_fisher(model, examples, label_weights):
    """The Fisher of a classifier: label_weights(i, p) -> (K,), from p = p(. | x_i)."""

    def scores(i, logits):
        log_p = torch.log_softmax(logits, dim=0)
        weights = label_weights(i, log_p.detach().exp())
        for k in weights.nonzero().flatten():
            yield weights[k], log_p[k]

    return define_fisher_of_scores(model, examples, scores)


def logits_of(model, inputs):
    dtype = next(model.parameters()).dtype

    def wide(x):
        return x.to(dtype) if x.is_floating_point() else x

    if isinstance(inputs, dict):
        return model(**{name: wide(x) for name, x in inputs.items()}).logits
    return model(wide(inputs))


def single_examples(batches):
    """Single examples of padded batches, cut to their own length."""
    for batch in batches:
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True):
            length = int(mask.sum())
            yield {
                "input_ids": ids[None, :length],
                "attention_mask": mask[None, :length],
            }


def assert_fishers_close(actual, expected, rtol=1e-5):
    """Compares tensor by tensor, relative to the tensor's norm.

    The absolute tolerance, 1e-12 of the total, is for tensors whose Fisher is zero in
    theory, such as the bias of attention keys.
    """
    assert set(actual) == set(expected)
    whole = sum(f.double().square().sum() for f in expected.values()).sqrt()
    for name, f in expected.items():
        assert actual[name].shape == f.shape, name
        error = (actual[name].double() - f.double()).norm()
        limit = rtol * f.double().norm() + 1e-12 * whole
        assert error <= limit, f"{name}: off by {error / f.norm():.1e} of its norm"
