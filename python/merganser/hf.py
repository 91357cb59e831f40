"""Fishers from and for a transformers Trainer. Needs transformers and accelerate."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from ._C import InputError
from ._common.arguments import check_choice, check_count
from ._common.wrappers import unwrapped
from ._fisher.batches import Batch, size_of
from ._fisher.stored import Stored
from ._hf.adam import Adam
from ._hf.adamw_fisher import AdamInOptimizer
from ._hf.mode import Mode
from ._hf.model_card import Described, extend_model_card, fisher_text
from ._hf.online_mc import OnlineMC, OnlineMCEval
from ._hf.outputs import Outputs
from ._hf.pair_loss import PairLoss
from ._hf.proximal import ProximalCallback, has_term
from ._hf.trainer import (
    check_model,
    check_packing,
    check_trainer,
    count_examples,
    find_adamw_fisher,
    steps_per_epoch,
    trains_all,
)
from ._hf.window import Collected, check_resume, collect, stored_in
from ._losses.choice import LOSSES
from .fisher_result import STORAGES, FisherResult

__all__ = ["FisherCallback", "ProximalCallback", "extend_model_card"]

ESTIMATORS = ("adam", "online_mc", "online_mc_eval")


class FisherCallback(Described):
    """Collects a Fisher diagonal over the last steps of a Trainer's run.

        callback = FisherCallback()
        Trainer(model, args, train_dataset=data, callbacks=[callback]).train()
        callback.result  # and args.output_dir/fisher.safetensors

    The training is the same as without it. The result has the scale of
    `merganser.fisher` for any batch size, accumulation, number of processes (DDP),
    clipping and bfloat16 (docs/method.md, section 3). Only "adam" needs equal weights
    of a step's examples: a mean over the tokens of each micro-batch is refused where
    the weights differ by more than 5 % (standard deviation). It squares the gradients
    that the optimizer is about to use, before clipping: it disables Trainer's clipping
    between the backward pass and the step, and clips itself. If the optimizer is an
    AdamWFisher of all trainable parameters, its step adds the squares.

    Args:
        estimator: "adam", "online_mc": labels drawn from the model, by an extra
            backward pass of each micro-batch's own graph, with its dropout, or
            "online_mc_eval": by an extra forward and backward pass in eval mode,
            without dropout, over the step's last micro-batch.
        interval: the last two sample every `interval` steps of the window.
        window: number of steps to collect, at the end of the run; None: one epoch.
            Memory for the sums is allocated when the window begins. With
            load_best_model_at_end the Fisher is of the best checkpoint, over the steps
            since the evaluation or checkpoint before it, and `window` must be None;
            the means of the best are one more copy of the parameters.
        loss: the distribution of labels given the outputs: "classification",
            "multilabel", "regression" (of variance 1), "causal_lm", or "auto": from
            the model. An example is a row of the labels, or each of the texts packed
            into it where `position_ids`, `seq_idx` or `cu_seq_lens_q` have their
            bounds. "adam" needs a model that computes its loss from labels, and raises
            InputError at the first step if that is a different loss, or a mean over
            tokens as above. Terms that a Trainer's compute_loss adds would enter the
            Fisher. For a model of sentence-transformers, the loss module of its
            Trainer, with "adam": a mean over examples, so without in-batch negatives.
        seed: random seed for sampling labels.
        num_examples: N, by which a merge scales the mean; None: the size of the data
            set, if its rows are not packed texts.
        out: output file; None: fisher.safetensors in the Trainer's output_dir.
        storage: form of the output file, as in FisherResult.save.

    Attributes:
        result: FisherResult on every process, once training has ended. None, with a
            warning, if training ended before the window began, a sum is not finite or
            the best checkpoint is older than a resumed run. Has the hash of the model
            if its step saved a checkpoint.

    During training, a forward hook on the model reads its batches. The next run removes
    what an interrupted run leaves behind.

    Raises, from Trainer.train():
        InputError: fp16, DeepSpeed, FSDP, DataParallel, torch_compile; a model of
            sentence-transformers without its loss, or with one that couples the
            examples of a batch; `window` with load_best_model_at_end; re-entrant
            gradient checkpoints with "online_mc"; a data set of packed texts without
            `num_examples`; resuming within the window, unless the checkpoint has the
            sums of an AdamWFisher.
    """

    def __init__(
        self,
        estimator: str = "adam",
        *,
        interval: int = 4,
        window: int | None = None,
        loss: str | nn.Module = "auto",
        seed: int = 0,
        num_examples: int | None = None,
        out: str | os.PathLike | None = None,
        storage: str = "float32",
    ) -> None:
        check_choice("estimator", estimator, ESTIMATORS)
        check_choice("storage", storage, STORAGES)
        if not isinstance(loss, nn.Module):
            check_choice("loss", loss, LOSSES)
        elif estimator != "adam":
            raise InputError(
                f"estimator={estimator!r} draws labels, which a loss module cannot "
                "take: use 'adam'"
            )
        check_count("interval", interval)
        check_count("seed", seed, minimum=0)
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
        self.storage = storage
        self.result: FisherResult | None = None
        self._hook: RemovableHandle | None = None  # the model's, during a run
        self._mode: Mode  # of the run
        self._follows_best = False  # the run loads its best model at the end
        self._best: Collected | str | None = None

    def on_train_begin(
        self, args, state, control, model, optimizer, train_dataloader, **_
    ):
        self._leave_interrupted_run()
        check_trainer(args, self.estimator, self.window)
        check_model(unwrapped(model), self.loss)
        self.result = None
        self._mode = self._find_mode(model, args, optimizer)
        self._follows_best = args.load_best_model_at_end
        self._best = None
        self._first_step = state.global_step
        self._begin = self._window_begin(args, state, train_dataloader)
        self._total = self.num_examples or count_examples(
            train_dataloader,
            "pass num_examples to FisherCallback, by which a merge scales the Fisher",
        )
        check_resume(self._mode, self._begin, state.global_step)
        self._saved_step: int | None = None
        self._rows = args.train_batch_size
        seen = self.loss if isinstance(self.loss, nn.Module) else model
        self._hook = seen.register_forward_hook(self._see, with_kwargs=True)

    def on_step_begin(self, args, state, control, **_):
        if self.estimator == "adam" and has_term(state):
            raise InputError(
                "FisherCallback('adam') would square the gradient of the term of "
                "ProximalCallback: use decoupled=True there, or 'online_mc'"
            )
        self._mode.begin_step(state.global_step >= self._begin)
        if state.global_step == self._begin:
            self._mode.begin_window()

    def on_substep_end(self, args, state, control, **_):
        self._mode.end_backward()

    def on_pre_optimizer_step(self, args, state, control, **_):
        self._mode.before_update(state.global_step - self._begin)

    def on_optimizer_step(self, args, state, control, **_):
        self._mode.after_update()

    def on_evaluate(self, args, state, control, **_):
        self._end_window_of_best(state)

    def on_save(self, args, state, control, **_):
        self._saved_step = state.global_step
        if self._follows_best and state.best_global_step == state.global_step:
            self._best = self._collected(state)
        self._end_window_of_best(state)

    def on_train_end(self, args, state, control, **_):
        self._remove_hook()
        collected = self._chosen(state)
        if isinstance(collected, str):
            # A warning: training succeeded, and its model may not be saved yet.
            warnings.warn(f"no Fisher was collected: {collected}", stacklevel=2)
            return
        self.result = self._make_result(args, collected)
        if state.is_world_process_zero:
            self.result.save(self._file(args.output_dir), storage=self.storage)

    def card_text(self, folder: Path) -> str:
        return fisher_text(self.result, self._file(folder), folder)

    def _file(self, folder: str | os.PathLike) -> Path:
        return Path(self.out or Path(folder) / "fisher.safetensors")

    def _see(self, model, args, kwargs, raw) -> None:
        """The forward hook of the model."""
        if not (model.training and torch.is_grad_enabled()):
            return  # an evaluation
        kwargs = dict(kwargs)
        labels = kwargs.pop("labels", None)
        if isinstance(self.loss, nn.Module):
            args, labels = args[:1], labels if len(args) < 2 else args[1]
        num_items = kwargs.pop("num_items_in_batch", None)
        size = size_of(args, {**kwargs, "labels": labels})
        # OnlineMC numbers the examples when it draws labels.
        batch = Batch(args, kwargs, labels, torch.arange(size), size)
        try:
            if self.num_examples is None:
                check_packing(batch, self._rows)
            self._mode.see(batch, raw, num_items)
        except InputError:
            self._remove_hook()
            raise

    def _leave_interrupted_run(self) -> None:
        """Cleans up after a run that stopped within a step."""
        if self._hook is not None:
            self._mode.after_update()
            self._remove_hook()

    def _remove_hook(self) -> None:
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _find_mode(self, model, args, optimizer) -> Mode:
        model = unwrapped(model)
        ours = find_adamw_fisher(args, optimizer)
        if isinstance(self.loss, nn.Module):
            return PairLoss(model, args, Outputs("auto", model), self.loss)
        outputs = Outputs(self.loss, model)
        if self.estimator == "online_mc":
            return OnlineMC(model, args, outputs, self.interval, self.seed)
        if self.estimator == "online_mc_eval":
            return OnlineMCEval(model, args, outputs, self.interval, self.seed)
        if ours is not None and trains_all(ours, model):
            return AdamInOptimizer(model, args, outputs, ours)
        return Adam(model, args, outputs)

    def _end_window_of_best(self, state) -> None:
        """Every checkpoint that may be the best has a window of its own."""
        if self._follows_best:
            self._begin = state.global_step

    def _chosen(self, state) -> Collected | str:
        if not self._follows_best:
            return self._collected(state)
        return self._best or (
            f"the best checkpoint is of step {state.best_global_step}, and training "
            f"began at step {self._first_step}"
        )

    def _collected(self, state) -> Collected | str:
        """The window that ends now, or why it has no Fisher."""
        return collect(self._mode, self._begin, state.global_step)

    def _make_result(self, args, collected: Collected) -> FisherResult:
        diagonal = collected.diagonal
        stored = self._stored(args, collected.step)
        return FisherResult(
            diagonal if stored is None else stored.form(diagonal),
            estimator=self.estimator,
            num_examples=self._total,
            num_examples_used=collected.examples,
            seed=self.seed,
            labels=self._mode.labels,
            base_model_hash="" if stored is None else stored.hash,
        )

    def _stored(self, args, step: int) -> Stored | None:
        """The checkpoint of a step."""
        if not self._follows_best and self._saved_step != step:
            return None
        path = Path(args.output_dir) / f"checkpoint-{step}"
        return stored_in(path, self._mode.model)

    def _window_begin(self, args, state, train_dataloader) -> int:
        if self._follows_best:
            return state.global_step
        window = self.window
        if window is None:
            window = steps_per_epoch(args, train_dataloader)
        return max(0, state.max_steps - window)
