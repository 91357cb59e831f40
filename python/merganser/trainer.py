"""Fine-tuning of BERT and RoBERTa classifiers, in C++."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from . import _C

Path = str | os.PathLike


class Trainer:
    """Fine-tunes a Hugging Face model with AdamW, in C++.

    The options are those of `merganser train`, documented in docs/cli.md. A step uses
    the gradient of the mean loss over its B = batch_size * accumulate examples (fewer
    at the end of an epoch).

    Args:
        model: model directory to start from. A missing head is initialized randomly.
        train: data file or files (.jsonl, .csv, .tsv with "text" and "label", for pairs
            "text_pair"; docs/cli.md).
        out: output directory: the model, metrics.jsonl and, with `fisher`,
            fisher.safetensors. During training, "<out>.partial" holds a checkpoint; the
            same call resumes from it, with bit-identical results.
        eval: files to evaluate on after every epoch. The epoch with the highest mean
            accuracy is kept (the first one on ties); with `fisher`, the last epoch.
        epochs: passes over the data; may be fractional.
        max_steps: optimizer steps; overrides epochs unless -1.
        lr: peak learning rate.
        batch_size: examples per forward pass.
        accumulate: forward passes per optimizer step.
        max_length: max tokens per example; longer texts are truncated.
        num_labels: number of labels; 0: from config.json.
        seed: random seed for data order, dropout, a new head and sampled labels.
        dtype: "float32" or "bfloat16", for matrix products; parameters and sums stay
            float32.
        scheduler: "constant", "linear" or "cosine", after the warm-up.
        warmup: warm-up steps; below 1, a fraction of all steps.
        weight_decay: decoupled weight decay; not applied to biases and LayerNorms.
        beta1, beta2, epsilon: Adam's.
        clip: max norm of the gradient; 0: no clipping.
        dropout: replaces every dropout probability of config.json.
        linearized: trains the first-order model f(x; theta_0) + J(x; theta_0) tau with
            tau = theta - theta_0, without dropout; losses and accuracies are that
            model's, and the directory that is written has the parameters theta.
        fisher: "none", "adam", "online_mc" or "online_mc_eval": the mean Fisher
            diagonal, collected over the last epoch (docs/method.md, section 3).
        fisher_interval: online_mc and online_mc_eval take an extra backward pass every
            `fisher_interval` steps.
        fisher_storage: "float32", "bfloat16" or "factored", for the Fisher's file.
        proximal: Fisher file of `model`, or several, the others of models of earlier
            tasks: adds weight / (2 N) |theta - theta_0|^2 in the norm of
            H = sum_s N_s F_s to the mean loss of N training examples.
        proximal_weight: the weight in that term.
        checkpoint_steps: steps between checkpoints; 0: at the end of every epoch.

    Raises:
        InputError: an invalid option, model or data file.

    Source: Loshchilov & Hutter, arXiv 1711.05101; Daheim et al., arXiv 2310.12808;
    linearized: Ortiz-Jimenez et al., arXiv 2305.12827.
    """

    def __init__(
        self,
        model: Path,
        train: Path | Sequence[Path],
        out: Path,
        *,
        eval: Path | Sequence[Path] = (),  # noqa: A002 (the flag's name)
        epochs: float = 1.0,
        max_steps: int = -1,
        lr: float = 2e-5,
        batch_size: int = 32,
        accumulate: int = 1,
        max_length: int = 128,
        num_labels: int = 0,
        seed: int = 0,
        dtype: str = "float32",
        scheduler: str = "linear",
        warmup: float = 0.06,
        weight_decay: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.999,
        epsilon: float = 1e-8,
        clip: float = 1.0,
        dropout: float | None = None,
        linearized: bool = False,
        fisher: str = "none",
        fisher_interval: int = 4,
        fisher_storage: str = "float32",
        proximal: Path | Sequence[Path] | None = (),
        proximal_weight: float = 1.0,
        checkpoint_steps: int = 0,
    ) -> None:
        given = dict(locals())
        del given["self"]
        for name in ("train", "eval", "proximal"):
            if given[name] is None:
                given[name] = []
            elif isinstance(given[name], str | os.PathLike):
                given[name] = [given[name]]
        self.options = _C.TrainOptions()
        for name, value in given.items():
            setattr(self.options, name, value)

    def train(
        self, progress: Callable[[int, int, str], None] | None = None
    ) -> dict[str, Any]:
        """Trains, or resumes an interrupted run.

        Args:
            progress: called after every step with examples done, total examples and
                a text. An exception from it stops the run after a checkpoint.

        Returns:
            out, steps, examples, seconds (of this call), model_epoch (the epoch of the
            model, from 1), new_parameters (initialized randomly), fisher (its file or
            None) and epochs: a list of dicts with epoch, step, train_loss (nats per
            example) and eval, a list of file, accuracy in [0, 1] and loss. With
            `linearized`, each has linearized: True.

        Raises:
            Error: the loss is not finite, or the disk is full.
            KeyboardInterrupt: on Ctrl-C, after a checkpoint.
        """
        return json.loads(_C.train(self.options, progress))
