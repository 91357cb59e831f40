"""AdamW that sums a Fisher of the trained model in the pass of its step."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from numbers import Integral

import torch
from torch import Tensor

from . import ops
from ._C import Error, InputError
from ._common.arguments import check_count
from ._common.wrappers import names_inside
from ._fisher.stored import Stored
from .fisher_result import FisherResult

UNSUPPORTED = ("amsgrad", "maximize", "capturable", "differentiable")
# Attributes that pickle and copy must keep: Optimizer keeps only its own.
SETTINGS = ("max_grad_norm", "collect_fisher", "batch_size", "loss_terms", "grad_norm")


class AdamWFisher(torch.optim.AdamW):
    """torch.optim.AdamW with the `adam` estimate of the Fisher diagonal.

    A step reads and writes every parameter once, and adds the squared gradient to the
    Fisher's sum in the same pass. With n_s the number of examples in step s and
    G_s = n_s (gradient of their mean loss), before clipping,

        F = sum_s G_s^2 / sum_s n_s

    over the steps since `reset_fisher` (docs/method.md, section 3). State dicts are
    compatible with torch.optim.AdamW. The sums are in state[p]["fisher"], the number of
    examples in the groups' "fisher_examples", so a resumed run continues both.

        optimizer = AdamWFisher(model.named_parameters(), lr=2e-5, max_grad_norm=1.0)
        for epoch in range(3):
            optimizer.reset_fisher()  # collects the last epoch only
            for batch in loader:
                model(**batch).loss.backward()
                optimizer.batch_size = len(batch["labels"])
                optimizer.step()
                optimizer.zero_grad()
        optimizer.fisher(num_examples=len(dataset)).save("fisher.safetensors")

    Args:
        params: parameters, named parameters or groups of them, as for any optimizer;
            float32 or float64, dense, contiguous. `fisher` needs names; it leaves out
            what wrappers add to them: `_orig_mod.` of torch.compile, and a `module.`
            that all names begin with, of DataParallel and DDP.
        lr, betas, eps, weight_decay: as in torch.optim.AdamW.
        max_grad_norm: the step scales gradients down to this total norm, like
            torch.nn.utils.clip_grad_norm_; None: no clipping. Do not clip before the
            step: the Fisher would be too small.
        collect_fisher: whether steps add to the Fisher.

    Attributes (all may change between steps):
        max_grad_norm, collect_fisher: the arguments.
        batch_size: number n of examples of the next step, over all micro-batches and
            processes whose gradients were summed. Required to collect.
        loss_terms: divisor of the sum of the examples' negative log-likelihoods in the
            loss, if not batch_size: the number of target tokens, for the mean of a
            language model. None: batch_size. All micro-batches and processes must have
            the same divisor: with means over their own tokens, the Fisher is too small.
        grad_norm: total norm of the last step's gradients before clipping; None
            without clipping.

    Raises:
        InputError: an unsupported parameter, option or gradient.
        Error: in `step`, a norm that is not finite; nothing is changed.

    Source: Loshchilov & Hutter, arXiv 1711.05101; Li et al., "Fishers for free?".
    """

    def __init__(
        self,
        params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        max_grad_norm: float | None = None,
        collect_fisher: bool = True,
    ) -> None:
        self.max_grad_norm = max_grad_norm
        self.collect_fisher = collect_fisher
        self.batch_size: int | None = None
        self.loss_terms: float | None = None
        self.grad_norm: float | None = None
        super().__init__(params, lr, betas, eps, weight_decay)

    def add_param_group(self, param_group: dict) -> None:
        """Adds a group; raises InputError with the name of an unsupported parameter."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            self._check_group(group)
        except InputError:
            self.param_groups.pop()
            raise
        group.setdefault("fisher_examples", 0)

    def __getstate__(self) -> dict:
        return super().__getstate__() | {name: vars(self)[name] for name in SETTINGS}

    def __setstate__(self, state: dict) -> None:
        """Also called by load_state_dict."""
        super().__setstate__(state)
        for group in self.param_groups:
            self._check_group(group)
            group.setdefault("fisher_examples", 0)

    @torch.no_grad()
    def step(self, closure=None):
        """One step over all parameters that have a gradient.

        Args:
            closure: reevaluates the model and returns the loss, as in torch.

        Returns:
            The loss from closure, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        weight = self._square_weight() if self.collect_fisher else None
        scale = self._clip_scale()
        for group in self.param_groups:
            devices = {}  # one operator call each
            for p in group["params"]:
                if p.grad is not None:
                    devices.setdefault(p.device, []).append(p)
            for params in devices.values():
                self._step_parameters(group, params, scale, weight)
            if weight is not None:
                group["fisher_examples"] += self.batch_size
        return loss

    def reset_fisher(self) -> None:
        """Discards the sums: the Fisher is of the steps that follow."""
        for group in self.param_groups:
            group["fisher_examples"] = 0
            for p in group["params"]:
                self.state.get(p, {}).pop("fisher", None)

    def fisher(
        self, num_examples: int, *, model_path: str | os.PathLike | None = None
    ) -> FisherResult:
        """The Fisher of the steps since `reset_fisher`.

        Args:
            num_examples: N of the data set, by which a merge scales the mean.
            model_path: directory or file that the model was saved to. Its hash is
                stored in the result, and recipes refuse a Fisher of other weights.

        Returns:
            The mean F by parameter name, in the parameters' shapes and dtypes. Zero
            for a parameter without gradient.

        Raises:
            InputError: num_examples is invalid, the parameters have no names, or no
                step was collected.
            Error: a Fisher that is not finite; names the parameter.
        """
        check_count("num_examples", num_examples)
        used = max(group["fisher_examples"] for group in self.param_groups)
        if used == 0:
            raise InputError("no step has been collected since the Fisher was reset")
        named = list(self._named())
        stored = None
        if model_path is not None:
            stored = Stored(model_path, {name: p for name, p, _ in named})
        diagonal = {}
        for name, p, examples in named:
            total = self.state.get(p, {}).get("fisher")
            if total is None:
                diagonal[name] = torch.zeros_like(p, requires_grad=False)
                continue
            diagonal[name] = total / examples
            if not diagonal[name].isfinite().all():
                raise Error(f"the Fisher of {name} is not finite")
        return FisherResult(
            diagonal,
            estimator="adam",
            num_examples=num_examples,
            num_examples_used=used,
            labels="data",
            base_model_hash="" if stored is None else stored.hash,
        )

    def _named(self) -> Iterator[tuple[str, Tensor, int]]:
        """Yields each parameter's name, the parameter and the number of examples."""
        names: list[str] = []
        for group in self.param_groups:
            if "param_names" not in group:
                raise InputError(
                    "the Fisher needs parameter names: create the optimizer with "
                    "model.named_parameters() instead of model.parameters()"
                )
            names += group["param_names"]
        inside = iter(names_inside(names))
        for group in self.param_groups:
            for p in group["params"]:
                yield next(inside), p, group["fisher_examples"]

    def _step_parameters(self, group, params: list, scale: float, weight) -> None:
        states = [self.state[p] for p in params]
        for p, state in zip(params, states, strict=True):
            if "step" not in state:  # names and types as in torch
                state["step"] = torch.tensor(0.0)
                state["exp_avg"] = torch.zeros_like(p)
                state["exp_avg_sq"] = torch.zeros_like(p)
            if weight is not None and "fisher" not in state:
                state["fisher"] = torch.zeros_like(p)
            state["step"] += 1
        beta1, beta2 = group["betas"]
        ops.adam_fisher_step_(
            params,
            [p.grad for p in params],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [] if weight is None else [state["fisher"] for state in states],
            steps=[int(state["step"]) for state in states],
            lr=float(group["lr"]),
            beta1=beta1,
            beta2=beta2,
            eps=group["eps"],
            weight_decay=group["weight_decay"],
            grad_scale=scale,
            fisher_weight=1.0 if weight is None else weight / scale**2,
        )

    def _clip_scale(self) -> float:
        """Factor that clips the gradients, computed as in torch."""
        named = [
            (g, i, p) for g in self.param_groups for i, p in enumerate(g["params"])
        ]
        for group, i, p in named:
            if p.grad is not None and p.grad.layout != torch.strided:
                raise InputError(
                    f"the gradient of {_name(group, i)} is sparse; AdamWFisher needs "
                    "dense gradients: use nn.Embedding(sparse=False)"
                )
        self.grad_norm = None
        if self.max_grad_norm is None:
            return 1.0
        if not self.max_grad_norm > 0:
            raise InputError(
                f"max_grad_norm must be above 0 (None: no clipping), not "
                f"{self.max_grad_norm}"
            )
        grads = [p.grad for _, _, p in named if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        self.grad_norm = norm.item()
        if not math.isfinite(self.grad_norm):
            raise Error(f"the norm of the gradient is {self.grad_norm}: step skipped")
        return torch.clamp(self.max_grad_norm / (norm + 1e-6), max=1.0).item()

    def _square_weight(self) -> float:
        if not isinstance(self.batch_size, Integral) or self.batch_size < 1:
            raise InputError(
                "set optimizer.batch_size to the number of examples of the step before "
                "calling step (or collect_fisher = False): it scales the Fisher; got "
                f"{self.batch_size!r}"
            )
        terms = self.batch_size if self.loss_terms is None else self.loss_terms
        return float(terms) ** 2

    def _check_group(self, group: dict) -> None:
        for option in UNSUPPORTED:
            if group[option]:
                raise InputError(
                    f"AdamWFisher does not support {option}: use torch.optim.AdamW"
                )
        for i, p in enumerate(group["params"]):
            if p.dtype not in (torch.float32, torch.float64) or not (
                p.layout == torch.strided and p.is_contiguous()
            ):
                raise InputError(
                    f"AdamWFisher needs contiguous, dense float32 or float64 "
                    f"parameters; {_name(group, i)} is {p.dtype}, {p.layout}, with "
                    f"strides {p.stride()}"
                )


def _name(group: dict, i: int) -> str:
    names = group.get("param_names")
    return names[i] if names else f"parameter {i} of its group"
