"""AdamW that adds up a Fisher of what it trains, in the pass of its own step."""

from __future__ import annotations

import math
import os
from numbers import Integral

import torch
from torch import Tensor

from . import ops
from ._arguments import check_count
from ._C import Error, InputError, content_hash
from .fisher_result import FisherResult

UNSUPPORTED = ("amsgrad", "maximize", "capturable", "differentiable")
# What pickle and copy keep beside torch's own: Optimizer keeps nothing else.
SETTINGS = ("max_grad_norm", "collect_fisher", "batch_size", "loss_terms", "grad_norm")


class AdamWFisher(torch.optim.AdamW):
    """torch.optim.AdamW with the `adam` estimate of the Fisher diagonal.

    A step reads and writes every parameter once; where it collects, the squared
    gradient is added to the Fisher's sum in that same pass. With n_s the examples
    of step s and G_s = n_s (gradient of their mean loss), before clipping,

        F = sum_s G_s^2 / sum_s n_s

    over the steps since `reset_fisher` (docs/method.md, section 3). State dicts go
    to and from torch.optim.AdamW. The sums are in state[p]["fisher"], the examples
    in the groups' "fisher_examples", so that a resumed run goes on with both.

        optimizer = AdamWFisher(model.named_parameters(), lr=2e-5, max_grad_norm=1.0)
        for epoch in range(3):
            optimizer.reset_fisher()  # the Fisher is of the last epoch
            for batch in loader:
                model(**batch).loss.backward()
                optimizer.batch_size = len(batch["labels"])
                optimizer.step()
                optimizer.zero_grad()
        optimizer.fisher(num_examples=len(dataset)).save("fisher.safetensors")

    Args:
        params: parameters, named parameters or groups of them, as every optimizer
            takes; float32 or float64, dense, contiguous. `fisher` needs names.
        lr, betas, eps, weight_decay: as in torch.optim.AdamW.
        max_grad_norm: the step scales gradients down to this total norm, as
            torch.nn.utils.clip_grad_norm_ would have; None: no clipping. A gradient
            that was clipped before the step would have a Fisher that is too small.
        collect_fisher: whether steps add to the Fisher.

    Attributes (all may change between steps):
        max_grad_norm, collect_fisher: the arguments.
        batch_size: n of the next step, examples: those of all micro-batches and
            processes whose gradients were added up. Needed to collect.
        loss_terms: what the sum of the examples' negative log-likelihoods was
            divided by to make the loss, where it is not batch_size: the target
            tokens of a language model's mean. None: batch_size.
        grad_norm: total norm of the last step's gradients before clipping; None
            where there was no clipping to do.

    Raises:
        InputError: a parameter, option or gradient that it does not take.
        Error: in `step`, a norm that is not finite; nothing has changed then.

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
        """As in torch; raises InputError that names a parameter it cannot train."""
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
        """Also what load_state_dict ends with."""
        super().__setstate__(state)
        for group in self.param_groups:
            self._check_group(group)
            group.setdefault("fisher_examples", 0)

    @torch.no_grad()
    def step(self, closure=None):
        """One step over all parameters that have a gradient.

        Args:
            closure: evaluates the model again and returns the loss, as in torch.

        Returns:
            What closure returned, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        weight = self._square_weight() if self.collect_fisher else None
        scale = self._clip_scale()
        for group in self.param_groups:
            devices = {}  # one call of the operator for each
            for p in group["params"]:
                if p.grad is not None:
                    devices.setdefault(p.device, []).append(p)
            for params in devices.values():
                self._step_parameters(group, params, scale, weight)
            if weight is not None:
                group["fisher_examples"] += self.batch_size
        return loss

    def reset_fisher(self) -> None:
        """Forgets the sums: the Fisher is of the steps that follow."""
        for group in self.param_groups:
            group["fisher_examples"] = 0
            for p in group["params"]:
                self.state.get(p, {}).pop("fisher", None)

    def fisher(
        self, num_examples: int, *, model_path: str | os.PathLike | None = None
    ) -> FisherResult:
        """The Fisher of the steps since `reset_fisher`.

        Args:
            num_examples: N of the data set, what a merge scales the mean by.
            model_path: the folder or file to which the model was saved; its hash goes
                into the result, and a recipe refuses a Fisher of other weights.

        Returns:
            By parameter name the mean F, in the parameters' shapes and dtypes. Zero
            for a parameter that had no gradient.

        Raises:
            InputError: num_examples is none, the parameters have no names, or no step
                was collected.
            Error: a Fisher that is not finite; names the parameter.
        """
        check_count("num_examples", num_examples)
        diagonal = {}
        used = max(group["fisher_examples"] for group in self.param_groups)
        if used == 0:
            raise InputError("no step has been collected since the Fisher was reset")
        for group in self.param_groups:
            if "param_names" not in group:
                raise InputError(
                    "the Fisher is kept by parameter names: make the optimizer of "
                    "model.named_parameters() instead of model.parameters()"
                )
            for name, p in zip(group["param_names"], group["params"], strict=True):
                total = self.state.get(p, {}).get("fisher")
                if total is None:
                    diagonal[name] = torch.zeros_like(p, requires_grad=False)
                    continue
                diagonal[name] = total / group["fisher_examples"]
                if not diagonal[name].isfinite().all():
                    raise Error(f"the Fisher of {name} is not finite")
        return FisherResult(
            diagonal,
            estimator="adam",
            num_examples=num_examples,
            num_examples_used=used,
            labels="data",
            base_model_hash="" if model_path is None else content_hash(model_path),
        )

    def _step_parameters(self, group, params: list, scale: float, weight) -> None:
        states = [self.state[p] for p in params]
        for p, state in zip(params, states, strict=True):
            if "step" not in state:  # the same names and types as torch's
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
        """What the gradients are multiplied by; computed as torch computes it."""
        named = [
            (g, i, p) for g in self.param_groups for i, p in enumerate(g["params"])
        ]
        for group, i, p in named:
            if p.grad is not None and p.grad.layout != torch.strided:
                raise InputError(
                    f"the gradient of {_name(group, i)} is sparse, and AdamWFisher "
                    "takes dense ones only: use nn.Embedding(sparse=False)"
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
            raise Error(
                f"the norm of the gradient is {self.grad_norm}: no step is made"
            )
        return torch.clamp(self.max_grad_norm / (norm + 1e-6), max=1.0).item()

    def _square_weight(self) -> float:
        if not isinstance(self.batch_size, Integral) or self.batch_size < 1:
            raise InputError(
                "set optimizer.batch_size to the number of examples of the step before "
                "it (or collect_fisher = False): the Fisher is scaled by it; got "
                f"{self.batch_size!r}"
            )
        terms = self.batch_size if self.loss_terms is None else self.loss_terms
        return float(terms) ** 2

    def _check_group(self, group: dict) -> None:
        for option in UNSUPPORTED:
            if group[option]:
                raise InputError(
                    f"AdamWFisher has no {option}: use torch.optim.AdamW for it"
                )
        for i, p in enumerate(group["params"]):
            if p.dtype not in (torch.float32, torch.float64) or not (
                p.layout == torch.strided and p.is_contiguous()
            ):
                raise InputError(
                    f"AdamWFisher takes contiguous, dense float32 or float64 "
                    f"parameters; {_name(group, i)} is {p.dtype}, {p.layout}, of "
                    f"strides {p.stride()}"
                )


def _name(group: dict, i: int) -> str:
    names = group.get("param_names")
    return names[i] if names else f"parameter {i} of its group"
