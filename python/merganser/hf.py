"""Fishers of what a transformers Trainer trains. Needs transformers and accelerate."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import TrainerCallback

from . import ops
from ._arguments import check_choice, check_count
from ._batches import Batch
from ._C import InputError, content_hash
from ._hf_trainer import check_trainer, count_examples, steps_per_epoch
from ._loss_scale import LossScale
from ._losses import LOSSES, find_loss, guess_loss
from ._model_state import eval_mode, trainable_parameters
from ._per_example import accumulator
from .adamw_fisher import AdamWFisher
from .fisher_result import FisherResult

ESTIMATORS = ("adam", "online_mc")


class FisherCallback(TrainerCallback):
    """Collects a Fisher diagonal over the last steps of a Trainer's run.

        callback = FisherCallback()
        Trainer(model, args, train_dataset=data, callbacks=[callback]).train()
        callback.result  # and args.output_dir/fisher.safetensors

    The training is the same as without it. Means the same as `merganser.fisher`
    whatever the batch size, accumulation, processes (DDP), clipping and bfloat16
    (docs/method.md, section 3). "adam" squares the gradients that the optimiser is
    about to take, before clipping: it switches Trainer's own clipping off from the
    backward pass to the step, and clips instead. Where the optimiser is an
    AdamWFisher of all trainable parameters, the sums are added in its step.

    Args:
        estimator: "adam", or "online_mc": labels drawn from the model, by an extra
            forward and backward pass in eval mode over the step's last micro-batch.
        interval: "online_mc" takes every so many steps of the window.
        window: how many steps at the end of the run are collected; None: as many as
            an epoch has. Memory for the sums is taken when it begins.
        loss: what the model's outputs mean: "classification", "multilabel",
            "regression" (of variance 1), "causal_lm", or "auto", to go by the model.
            An example is a row of the labels, whatever is packed into it. "adam"
            needs a model that computes its loss from labels, and stops at the first
            step where that is another one. What a Trainer's compute_loss adds to it
            would go into the Fisher.
        seed: of "online_mc"'s draws.
        num_examples: N, what a merge scales the mean by; None: those of the data set.
        out: file to write; None: fisher.safetensors in the Trainer's output_dir.

    Attributes:
        result: FisherResult on every process, once training has ended. None where it
            ended before the window began or a sum is not finite; a warning says so.
            Has the hash of the model if the last step was also a checkpoint.

    While training runs, a forward hook on the model sees its batches; what an
    interrupted run leaves behind, the next one removes.

    Raises, from Trainer.train():
        InputError: fp16, DeepSpeed, FSDP, DataParallel, torch_compile,
            load_best_model_at_end; resuming within the window, unless AdamWFisher
            has brought the sums along.
    """

    def __init__(
        self,
        estimator: str = "adam",
        *,
        interval: int = 4,
        window: int | None = None,
        loss: str = "auto",
        seed: int = 0,
        num_examples: int | None = None,
        out: str | os.PathLike | None = None,
    ) -> None:
        check_choice("estimator", estimator, ESTIMATORS)
        check_choice("loss", loss, LOSSES)
        check_count("interval", interval)
        check_count("seed", seed, least=0)
        if window is not None:
            check_count("window", window)
        if num_examples is not None:
            check_count("num_examples", num_examples)
        self.estimator = estimator
        self.interval = interval
        self.window = window
        self.loss = loss
        self.seed = seed
        self.num_examples = num_examples
        self.out = out
        self.result: FisherResult | None = None
        self._hook = None  # of the model
        self._optimizer: AdamWFisher | None = None
        self._clipping: float | None = None  # args.max_grad_norm while it is off

    def on_train_begin(
        self, args, state, control, model, optimizer, train_dataloader, **_
    ):
        # Of a run that ended in the middle of a step:
        self._restore_clipping(args)
        self.on_optimizer_step(args, state, control)
        if self._hook is not None:
            self._hook.remove()
        check_trainer(args, self.estimator)
        self.result = None
        self._model = model
        self._args = args
        self._parameters = trainable_parameters(model)
        self._optimizer = self._find_adamw_fisher(args, optimizer)
        self._begin = self._window_begin(args, state, train_dataloader)
        self._total = self.num_examples or count_examples(train_dataloader)
        self._check_resume(state)
        self._loss = None
        self._batch: Batch | None = None
        self._scale = LossScale()
        self._squares: dict[str, Tensor] = {}
        self._examples = 0
        self._collecting = False
        self._saved_step: int | None = None
        self._hook = model.register_forward_hook(self._see, with_kwargs=True)

    def on_step_begin(self, args, state, control, **_):
        self._scale.begin_step()
        self._collecting = state.global_step >= self._begin
        if state.global_step == self._begin:
            if self._optimizer is not None:
                self._optimizer.reset_fisher()
            else:
                self._squares = {
                    name: accumulator(p) for name, p in self._parameters.items()
                }

    def on_substep_end(self, args, state, control, **_):
        self._restore_clipping(args)

    def on_pre_optimizer_step(self, args, state, control, **_):
        clip = self._restore_clipping(args)
        if not self._collecting:
            return
        if self.estimator == "online_mc":
            if (state.global_step - self._begin) % self.interval == 0:
                self._sample()
            return
        examples, weight = self._scale.step(args.world_size, args.device)
        if self._optimizer is not None:
            self._optimizer.collect_fisher = True
            self._optimizer.batch_size = examples
            self._optimizer.loss_terms = math.sqrt(weight)
            if clip is not None:
                self._optimizer.max_grad_norm = clip
            return
        self._examples += examples
        for name, p in self._parameters.items():
            if p.grad is not None:
                ops.square_accumulate_(self._squares[name], p.grad, weight)
        if clip is not None:
            torch.nn.utils.clip_grad_norm_(self._model.parameters(), clip)

    def on_optimizer_step(self, args, state, control, **_):
        if self._optimizer is not None:
            self._optimizer.collect_fisher = False
            if args.max_grad_norm > 0:  # and was lent for the step
                self._optimizer.max_grad_norm = None

    def on_save(self, args, state, control, **_):
        self._saved_step = state.global_step

    def on_train_end(self, args, state, control, **_):
        self._hook.remove()
        self._hook = None
        if self.estimator == "online_mc" and args.world_size > 1:
            self._add_processes(args)
        if self._optimizer is not None:
            self._take_sums()
        problem = self._find_problem(state)
        if problem:
            # Not raised: the training was good, and its model may not be saved yet.
            warnings.warn(f"there is no Fisher: {problem}", stacklevel=2)
            return
        self.result = self._make_result(args, state)
        if state.is_world_process_zero:
            self.result.save(self.out or Path(args.output_dir) / "fisher.safetensors")

    def _see(self, model, args, kwargs, raw) -> None:
        """A forward pass of the model."""
        if not (model.training and torch.is_grad_enabled()):
            return  # an evaluation
        kwargs = dict(kwargs)
        labels = kwargs.pop("labels", None)
        num_items = kwargs.pop("num_items_in_batch", None)
        size = _batch_size(labels, *args, *kwargs.values())
        # Numbered when it is drawn from.
        self._batch = Batch(args, kwargs, labels, torch.arange(size), size)
        if self.estimator == "adam" and (self._collecting or not self._scale.checked):
            try:
                value, outputs = self._split(raw)
                self._scale.add(
                    self._loss,
                    outputs,
                    self._batch,
                    value,
                    num_items,
                    self._stop_clipping,
                )
            except InputError:
                self._hook.remove()
                raise

    def _split(self, raw) -> tuple[Tensor, Tensor]:
        """The loss and the outputs in what the model returned."""
        if isinstance(raw, Mapping):
            value = raw.get("loss")
        else:
            value, raw = (raw[0], raw[1:]) if isinstance(raw, tuple) else (None, raw)
        if self._batch.labels is None or value is None or value.dim() != 0:
            raise InputError(
                "FisherCallback('adam') needs a model that is given labels and returns "
                "the loss, so that it is known what the gradient is a mean of; a "
                "Trainer with a loss function of its own can use 'online_mc'"
            )
        return value, self._read(raw, self._batch)

    def _read(self, raw, batch: Batch) -> Tensor:
        if self._loss is None:
            self._loss = find_loss(self.loss, self._model) or guess_loss(raw, batch)
        return self._loss.outputs(raw, batch)

    def _sample(self) -> None:
        """Adds (sum of gradients at drawn labels)^2 of the last micro-batch. Neither
        the gradients nor the random state of the training are touched."""
        batch, processes = self._batch, self._args.world_size
        device = next(iter(self._squares.values())).device
        first = self._examples * processes + self._args.process_index
        batch.indices = first + processes * torch.arange(batch.size, device=device)
        with (
            torch.random.fork_rng([device] if device.type == "cuda" else []),
            eval_mode(self._model),
        ):
            raw = self._model(*batch.args, **batch.kwargs)
            outputs = self._read(raw, batch)
            gradients = torch.autograd.grad(
                outputs,
                list(self._parameters.values()),
                self._loss.sampled(outputs, batch, self.seed, 0),
                allow_unused=True,
            )
        for total, gradient in zip(self._squares.values(), gradients, strict=True):
            if gradient is not None:
                ops.square_accumulate_(total, gradient)
        self._examples += batch.size

    def _add_processes(self, args) -> None:
        count = torch.tensor(self._examples, device=args.device)
        torch.distributed.all_reduce(count)
        self._examples = int(count)
        for total in self._squares.values():
            torch.distributed.all_reduce(total)

    def _take_sums(self) -> None:
        """Those of AdamWFisher."""
        self._examples = self._optimizer.param_groups[0]["fisher_examples"]
        for name, p in self._parameters.items():
            total = self._optimizer.state.get(p, {}).get("fisher")
            self._squares[name] = accumulator(p) if total is None else total

    def _find_problem(self, state) -> str | None:
        if self._examples == 0:
            return (
                f"training ended at step {state.global_step}, but the window begins at "
                f"step {self._begin}"
            )
        for name, total in self._squares.items():
            if not total.isfinite().all():
                return f"the sum of squared gradients of {name} is not finite"
        return None

    def _make_result(self, args, state) -> FisherResult:
        model = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        saved = self._saved_step == state.global_step
        saved = saved and (model / "model.safetensors").is_file()
        return FisherResult(
            {name: total / self._examples for name, total in self._squares.items()},
            estimator=self.estimator,
            num_examples=self._total,
            num_examples_used=self._examples,
            seed=self.seed,
            labels="data" if self.estimator == "adam" else "model",
            base_model_hash=content_hash(model) if saved else "",
        )

    def _stop_clipping(self) -> None:
        """From a backward pass on, until the gradients have been squared. Set no
        earlier, so that an exception hardly ever finds it off."""
        if self._collecting and self._args.max_grad_norm > 0:
            self._clipping = self._args.max_grad_norm
            self._args.max_grad_norm = 0.0

    def _restore_clipping(self, args) -> float | None:
        """What clipping is left to do, a norm."""
        clip, self._clipping = self._clipping, None
        if clip is not None:
            args.max_grad_norm = clip
        return clip

    def _find_adamw_fisher(self, args, optimizer) -> AdamWFisher | None:
        """The Trainer's optimiser, where it can do the squaring and the clipping."""
        inner = getattr(optimizer, "optimizer", optimizer)  # accelerate's wrapper
        if not isinstance(inner, AdamWFisher):
            return None
        if inner.max_grad_norm is not None and args.max_grad_norm > 0:
            raise InputError(
                "clip in one place: give the norm to the Trainer (max_grad_norm), and "
                "none to AdamWFisher"
            )
        inner.collect_fisher = False
        held = {p for group in inner.param_groups for p in group["params"]}
        everything = held == set(self._parameters.values())
        return inner if self.estimator == "adam" and everything else None

    def _window_begin(self, args, state, train_dataloader) -> int:
        window = self.window
        if window is None:
            window = steps_per_epoch(args, train_dataloader)
        return max(0, state.max_steps - window)

    def _check_resume(self, state) -> None:
        if state.global_step <= self._begin:
            return
        if self._optimizer is not None:
            if self._optimizer.param_groups[0]["fisher_examples"] > 0:
                return
        raise InputError(
            f"training goes on at step {state.global_step}, within the window of the "
            f"Fisher, but the sums since step {self._begin} are not in the checkpoint: "
            "resume from an earlier one, or train with AdamWFisher, which saves them"
        )


def _batch_size(*values) -> int:
    for value in values:
        if isinstance(value, Tensor) and value.dim() > 0:
            return len(value)
    raise InputError("the model was called without a tensor")
