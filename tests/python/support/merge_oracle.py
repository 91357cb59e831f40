"""Definitions of the merge methods with sparse task vectors and of those that need
whole tensors, in numpy's float64, independent of the C++ sources."""

import numpy
import xxhash

SIGNS = {"ties", "dare_ties", "breadcrumbs_ties", "della"}
RESCALED = {"dare_linear", "dare_ties", "della", "della_linear"}
NORMALIZED = {"ties", "della"}


def merge(method, name, base, models, weights, **parameters):
    """Merges one tensor; parameters as in a recipe, for all models."""
    base = base.astype(float)
    models = [model.astype(float) for model in models]
    if method == "slerp":
        return slerp(base, models[0], parameters["t"])
    if method == "model_stock":
        return model_stock(base, models)
    if method == "passthrough":
        return parameters.get("scale", 1) * models[0]
    taus = [
        sparsify(method, name, t, model - base, **parameters)
        for t, model in enumerate(models)
    ]
    weighted = [w * tau for w, tau in zip(weights, taus, strict=True)]
    factor = parameters.get("lambda", 1)
    normalize = parameters.get("normalize", method in NORMALIZED)
    if method not in SIGNS:
        return base + factor * sum(weighted) / (sum(weights) if normalize else 1)
    sign = numpy.where(sum(weighted) >= 0, 1, -1)
    kept = [numpy.sign(x) == sign for x in weighted]
    divisor = sum(w * k for w, k in zip(weights, kept, strict=True))
    divisor = numpy.where(divisor == 0, 1, divisor) if normalize else 1
    return base + factor * sum(x * k for x, k in zip(weighted, kept, strict=True)) / (
        divisor
    )


def sparsify(method, name, model, tau, density=1, gamma=0.01, epsilon=0.15, **more):
    n = tau.size
    magnitude = numpy.abs(tau).reshape(-1)
    ascending = numpy.argsort(magnitude, kind="stable")
    keep = numpy.zeros(n, bool)
    if density >= 1:
        return tau
    if method == "ties":
        keep[ascending[n - max(1, int(density * n)) :]] = True
    elif method.startswith("breadcrumbs"):
        count = int(density * n)
        first = max(0, n - count - int(gamma * n))
        keep[ascending[first : first + count]] = True
    else:
        probability = numpy.full(n, density)
        if method.startswith("della"):
            rows = magnitude.reshape(tau.shape[0] if tau.ndim > 1 else 1, -1)
            ranks = rows.argsort(1, kind="stable").argsort(1, kind="stable")
            share = ranks / max(1, rows.shape[1] - 1)
            probability = (density - epsilon + 2 * epsilon * share).reshape(-1)
        keep = draw(name, model, n, more.get("seed", 0)) < probability
    kept = tau * keep.reshape(tau.shape)
    if more.get("rescale", method in RESCALED) and numpy.abs(kept).sum() >= 1e-7:
        kept = kept * (numpy.abs(tau).sum() / numpy.abs(kept).sum())
    return kept


def draw(name, model, n, seed):
    """A value in [0, 1) per element, from 24 bits of each word of Philox4x32-10."""
    digest = xxhash.xxh3_128_intdigest(name.encode())
    stream = ((digest & (2**64 - 1)) + model) % 2**64
    blocks = numpy.arange(-(-n // 4), dtype=numpy.uint64)
    low, high = numpy.uint64(2**32 - 1), numpy.uint64(32)
    c = [
        blocks & low,
        blocks >> high,
        numpy.full_like(blocks, stream & (2**32 - 1)),
        numpy.full_like(blocks, stream >> 32),
    ]
    key = [seed & (2**32 - 1), seed >> 32]
    for _ in range(10):
        p0 = numpy.uint64(0xD2511F53) * c[0]
        p1 = numpy.uint64(0xCD9E8D57) * c[2]
        c = [
            (p1 >> high) ^ c[1] ^ numpy.uint64(key[0]),
            p1 & low,
            (p0 >> high) ^ c[3] ^ numpy.uint64(key[1]),
            p0 & low,
        ]
        key = [(key[0] + 0x9E3779B9) % 2**32, (key[1] + 0xBB67AE85) % 2**32]
    words = numpy.stack(c, 1).reshape(-1)[:n]
    return (words >> numpy.uint64(8)) / 2.0**24


def slerp(a, b, t):
    cosine = (a * b).sum() / (numpy.linalg.norm(a) * numpy.linalg.norm(b))
    if abs(cosine) > 0.9995:
        return (1 - t) * a + t * b
    angle = numpy.arccos(cosine)
    return (numpy.sin((1 - t) * angle) * a + numpy.sin(t * angle) * b) / numpy.sin(
        angle
    )


def model_stock(base, models):
    taus = [(model - base).reshape(-1) for model in models]
    norms = [numpy.linalg.norm(tau) for tau in taus]
    count = len(taus)
    cosines = [
        taus[s] @ taus[t] / max(norms[s] * norms[t], 1e-6)
        for s in range(count)
        for t in range(s + 1, count)
    ]
    c = numpy.mean(cosines)
    share = count * c / (1 + (count - 1) * c)
    return base + share * sum(model - base for model in models) / count
