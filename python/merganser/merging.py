"""Merging: of models in memory, and of files as a recipe says.

Both go through the same formula (csrc/merge/formula.h) and give the same bits.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import _C, ops
from ._arguments import check_count
from ._C import InputError
from ._merge_inputs import (
    FLOATS,
    check_state,
    finite,
    fisher_of,
    list_of,
    number,
    positive,
    same_values,
    state_of,
    weights_of,
)
from .fisher_result import FisherResult

Model = nn.Module | Mapping[str, Tensor]
Fisher = FisherResult | str | os.PathLike


def merge(
    base: Model | None,
    models: Sequence[Model],
    fishers: Sequence[Fisher] | None = None,
    method: str = "gradient_matching",
    weights: Sequence[float] | float = 1.0,
    *,
    base_fisher: Fisher | None = None,
    normalize: bool | None = None,
    delta: float = 1e-12,
    clamp: float = 0.25,
    floor: float = 1e-6,
    parameters: Mapping[str, Any] | None = None,
) -> dict[str, Tensor]:
    """Merges models of one architecture in memory.

    With theta_0 the base, tau_t = theta_t - theta_0, H_t = N_t F_t and
    H_0 = N_0 F_0 + delta, gradient matching is, elementwise,

        theta = theta_0 + sum_t w_t (H_0 + H_t) tau_t / (H_0 + sum_t w_t H_t)

    and docs/method.md, section 2, has the other methods. Computed in float32
    (float64 where a tensor is) and rounded once to the base's dtype.

    Args:
        base: theta_0, a module or state dict; None only for "linear" and "fisher".
        models: theta_t, modules or state dicts with the same names and shapes.
        fishers: one per model, for the methods with Fishers; a FisherResult or the
            path of its file. That they are of these models' weights is not checked
            (merge_recipe does). Of tied tensors one needs a Fisher. A tensor without
            one, being frozen or a buffer, must be the same in all models and the
            base, and is kept: exact, as it has no task vector (but not for ewr,
            whose formula shrinks the base too).
        method: any of docs/recipes.md but regmean and block_gradient_matching, which
            read Gram matrices from files.
        weights: w_t, one per model or one for all; for the methods with Fishers at
            least 0. slerp and model_stock have none.
        base_fisher: F_0, for fisher_base, gradient_matching, removal and ewr.
        normalize: divide the weights by their sum, for the methods that have this
            parameter; None: their default.
        delta: added to H_0, the base's weight decay; at least 0.
        clamp: removal only: the denominator is at least clamp * (H_0 + sum w_t H_t);
            in (0, 1].
        floor: ewr only: every Fisher is at least this; above 0.
        parameters: of the methods that look at whole tensors (ties, dare_linear,
            dare_ties, breadcrumbs, breadcrumbs_ties, della, della_linear, slerp): what
            stands under `parameters` in a recipe, such as {"density": 0.5}, {"t": 0.3};
            also by layer and by filter. These are merged on the CPU, wherever the
            tensors are; random choices depend on the order of the models (a recipe's
            are in the order of their paths).

    Returns:
        A state dict for load_state_dict: names and dtypes of the base, or of the
        first model where there is no base, on the first model's devices. Integers
        and bools come from the base, or must agree where there is none.

    Raises:
        InputError: a tensor that is missing, extra, of another shape, without its
            Fisher or not finite, or an argument that does not fit the method; says
            which.

    Source: Daheim et al., arXiv 2310.12808; docs/method.md.
    """
    info = _C.find_method(method)
    delta = number(delta, "delta", 0)
    clamp = positive(clamp, "clamp", 1)
    floor = positive(floor, "floor")
    models = list_of(models, "models")
    if not models:
        raise InputError("models is empty: a merge needs at least one")
    _C.check_count(info, len(models))
    states = [state_of(model, f"models[{t}]") for t, model in enumerate(models)]
    if base is not None:
        reference, reference_label = state_of(base, "base"), "base"
    elif info.needs_base:
        raise InputError(f"{method} needs base, the model that the others come from")
    else:
        reference, reference_label = states[0], "models[0]"
    for t, state in enumerate(states):
        check_state(state, reference, f"models[{t}]", reference_label)
    whole = None
    if info.needs_statistics:
        whole = _whole_tensors(
            info, list(reference), parameters, weights, len(states), normalize
        )
        alpha = []
    elif parameters is not None:
        raise InputError(f"{method} has no parameters but those with their own names")
    else:
        alpha = weights_of(info, weights, len(states), normalize)

    def is_unchanged(name: str) -> bool:
        return all(same_values(state[name], reference[name]) for state in states)

    def needs_no_fisher(name: str) -> bool:
        return method != "ewr" and is_unchanged(name)

    diagonals = []
    if info.needs_fishers:
        fishers = [] if fishers is None else list_of(fishers, "fishers")
        if len(fishers) != len(states):
            raise InputError(
                f"{method} needs fishers, one per model: {len(states)}, not "
                f"{len(fishers)}"
            )
        diagonals = [
            fisher_of(f, state, f"fishers[{t}]", needs_no_fisher)
            for t, (f, state) in enumerate(zip(fishers, states, strict=True))
        ]
    base_diagonal = None
    if info.needs_base_fisher:
        if base_fisher is None:
            raise InputError(f"{method} needs base_fisher, the base's own Fisher")
        base_diagonal = fisher_of(
            base_fisher, reference, "base_fisher", needs_no_fisher
        )
    all_diagonals = diagonals + ([] if base_diagonal is None else [base_diagonal])

    def scale(fisher):
        return float(fisher.num_examples) if info.needs_num_examples else 1.0

    scales = [scale(f) for f in diagonals]
    base_scale = scale(base_diagonal) if base_diagonal is not None else 0.0

    def merge_whole_tensor(name: str) -> Tensor:
        merged = whole.merge(
            name, reference[name].cpu(), [state[name].cpu() for state in states]
        )
        return merged.to(states[0][name].device)

    def merge_tensor(name: str, dtype: torch.dtype) -> Tensor:
        if whole is not None:
            return merge_whole_tensor(name)
        device = states[0][name].device
        thetas = [finite(s[name], f"models[{t}]", name) for t, s in enumerate(states)]
        # The operator rounds to the first model's dtype: wide enough for the base's.
        thetas[0] = thetas[0].to(torch.promote_types(thetas[0].dtype, dtype))
        theta_0 = finite(reference[name], "base", name) if info.needs_base else None
        f_0 = None
        if base_diagonal is not None:
            f_0 = finite(base_diagonal[name], "base_fisher", name, 0.0)
        fs = [
            finite(f[name], f"fishers[{t}]", name, 0.0) for t, f in enumerate(diagonals)
        ]
        merged = ops.merge(
            None if theta_0 is None else theta_0.to(device),
            [theta.to(device) for theta in thetas],
            [f.to(device) for f in fs],
            method=method,
            base_fisher=None if f_0 is None else f_0.to(device),
            weights=alpha,
            scales=scales,
            base_scale=base_scale,
            delta=delta,
            clamp=clamp,
            floor=floor,
        ).to(dtype)
        return finite(merged, "the merged model", name)

    def copy_tensor(name: str) -> Tensor:
        if base is None and not is_unchanged(name):
            raise InputError(
                f"tensor {name!r} differs between the models and is not merged, being "
                "of integers; with base it would come from there"
            )
        tensor = finite(reference[name], reference_label, name)
        return tensor.to(states[0][name].device, copy=True)

    return {
        name: merge_tensor(name, tensor.dtype)
        if tensor.dtype in FLOATS and all(name in f for f in all_diagonals)
        else copy_tensor(name)
        for name, tensor in reference.items()
    }


def _whole_tensors(
    info: _C.MethodInfo,
    names: list[str],
    parameters: Mapping[str, Any] | None,
    weights: Sequence[float] | float,
    count: int,
    normalize: bool | None,
) -> _C.MemoryMerge:
    """The merge of a method that looks at whole tensors."""
    settings = dict(parameters or {})
    if "weight" in settings:
        raise InputError("the weights of the models are given as weights")
    if normalize is not None:
        settings["normalize"] = normalize
    models = [{}] * count
    if info.has_weights:
        # What is divided by their sum, and when, is the method's own affair.
        given = weights_of(info, weights, count, normalize=False)
        models = [{"weight": weight} for weight in given]
    elif weights != 1:
        raise InputError(f"the method {info.name} has no weights")
    try:
        return _C.MemoryMerge(
            info.name, json.dumps(settings), [json.dumps(m) for m in models], names
        )
    except TypeError as error:
        raise InputError(f"parameters must be as in a recipe: {error}") from None


def merge_recipe(
    recipe: str | os.PathLike,
    out: str | os.PathLike,
    *,
    threads: int | None = None,
    memory: int = 256 << 20,
    resume: bool = False,
    shard_bytes: int | None = None,
    allow_nonfinite: bool = False,
    progress: Callable[[int, int, str], None] | None = None,
) -> dict[str, Any]:
    """Carries out a recipe, tensor by tensor, never with whole models in memory.

    Args:
        recipe: the YAML file, see docs/recipes.md.
        out: the folder to make, a Hugging Face model directory. It appears under
            its name only when it is whole.
        threads: at most 1024; None or 0: all cores. The bytes are the same for any
            number and any memory.
        memory: most bytes of buffers.
        resume: go on from what a killed or interrupted run left in OUT.merging, to the
            same bytes.
        shard_bytes: most bytes of one file; None: as the base's.
        allow_nonfinite: merge NaN and infinities like other values, and count them.
        progress: called with megabytes done, megabytes in all and a text. After an
            exception of it, as after Ctrl-C, what is done stays in OUT.merging.

    Returns:
        What `merganser merge --json` prints: tensors merged and copied, elements,
        bytes, seconds, values that are not finite; for removal also the fraction of
        clamped denominators.

    Raises:
        InputError: arguments, a recipe or files that do not fit, before anything is
            written.
        Error: what fails on the way, such as a full disk.
    """
    threads = 0 if threads is None else threads
    check_count("threads", threads, least=0, most=1024)
    check_count("memory", memory)
    if shard_bytes is not None:
        check_count("shard_bytes", shard_bytes)
    return json.loads(
        _C.merge_recipe(
            recipe,
            out,
            threads,
            memory,
            resume,
            shard_bytes,
            allow_nonfinite,
            progress,
        )
    )


def verify(folder: str | os.PathLike) -> dict[str, Any]:
    """Whether a merged model and what it was made of are still the same.

    Compares content hashes with those in its merganser.json; reads everything.
    Returns what `merganser verify --json` prints. Raises InputError where there is no
    such file.
    """
    return json.loads(_C.verify(folder))


def plan(recipe: str | os.PathLike) -> dict[str, Any]:
    """What `merge_recipe` would do: every tensor, bytes to read and write, memory.

    Reads headers only. Returns what `merganser plan --json` prints. Raises
    InputError with all problems of the recipe and its files at once.
    """
    return json.loads(_C.plan(recipe))


def inspect(path: str | os.PathLike, *, hashes: bool = True) -> dict[str, Any]:
    """Names, shapes, dtypes, metadata and hashes of a checkpoint or Fisher file.

    hashes=False reads headers only. Returns what `merganser inspect --json`
    prints. Raises InputError where `path` is no checkpoint.
    """
    return json.loads(_C.inspect(path, hashes))
