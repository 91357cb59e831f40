"""Gaussian posteriors of parameters: Laplace approximations and their products."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from . import _C
from ._C import InputError
from ._common.arguments import check_choice, check_count, check_finite
from ._common.wrappers import unwrapped
from ._losses.choice import LOSSES
from ._merge.checkpoint import check_not_sharded, read_state, write_state
from ._merge.states import (
    FLOATS,
    State,
    check_extra,
    check_shape,
    finite,
    some,
    state_of,
)
from ._posterior.inputs import (
    Fisher,
    Model,
    add_up,
    find_ties,
    make_generator,
    read_fishers,
    read_model,
)
from ._posterior.predict import average_predictions, check_model
from ._posterior.product import check_compatible, multiply
from .fisher_result import FisherResult, may_belong_to

_FILE = "posterior.safetensors"
_ESTIMATOR = "posterior"  # in the metadata of that file


@dataclass(eq=False, repr=False)
class Posterior:
    """The normal distribution N(mean, diag(precision)^-1) of a model's parameters.

    A tensor without a precision (frozen, or a buffer) is known: it has its mean. Of
    tied tensors one has a precision. With a precision of 0 it is not a distribution:
    products take it; log_density, sample and predict raise InputError, until
    `with_prior` adds a precision everywhere.

    Attributes:
        mean: a state dict, in the model's dtypes.
        precision: by parameter name, float32 or wider, in the parameters' shapes.
    """

    mean: State
    precision: dict[str, Tensor]
    # The tied tensor that has a precision, for each name without one.
    _ties: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.mean = state_of(self.mean, "mean")
        if not self.precision:
            raise InputError("precision must have at least one tensor")
        floats = {n for n, x in self.mean.items() if x.dtype in FLOATS}
        check_extra(self.precision, floats, "precision", "the mean")
        for name, values in self.precision.items():
            check_shape(values, self.mean[name].shape, "precision", name, "the mean")
            finite(values, "precision", name, 0.0)
        for name in floats:
            finite(self.mean[name], "mean", name)
        self._ties = find_ties(self.mean, self.precision)
        # A copy: the model may train further.
        owned = {n: x.clone() for n, x in self.mean.items() if n not in self._ties}
        self.mean = {n: owned[self._ties.get(n, n)] for n in self.mean}

    @classmethod
    def laplace(
        cls,
        model: Model,
        fisher: Fisher,
        base_fisher: Fisher | None = None,
        *,
        delta: float = 0.0,
    ) -> Posterior:
        """The Laplace approximation at a model: precision N F + N_0 F_0 + delta.

        Args:
            model: a module, a state dict, or the directory or file of a checkpoint.
            fisher: F with its N; a FisherResult or the path of its file.
            base_fisher: F_0 of the base, for a model that was fine-tuned from it: the
                base's posterior is then the prior of the model's.
            delta: the precision of a normal prior, such as a weight decay of the sum of
                losses.

        Raises:
            InputError: a Fisher of another model: its names or shapes differ, or its
                hash, if `model` is a checkpoint or was loaded from one, or the tensors
                of the module that `merganser.fisher` took.
        """
        check_finite("delta", delta)
        mean = read_model(model)
        fishers = read_fishers(fisher, base_fisher, model, mean)
        precision = {
            name: add_up([(f.num_examples, f[name]) for f in fishers], delta).to(
                mean[name].device
            )
            for name in fishers[0]
        }
        return cls(mean, precision)

    @classmethod
    def product(
        cls,
        posteriors: Sequence[Posterior],
        base: Posterior,
        weights: Sequence[float] | float = 1.0,
    ) -> Posterior:
        """The product p_0 prod_t (p_t / p_0)^w_t, which counts the common prior once.

        With p_0 = N(theta_0, H_0^-1) and p_t = N(theta_t, (H_0 + H_t)^-1), which
        `laplace` returns given the base's Fisher and the same delta, the precision is
        H_0 + sum_t w_t H_t and the mean that of merge(method="gradient_matching"):
        the Bayesian committee machine. Where every precision is 0, the mean is the
        limit theta_0 + sum_t w_t tau_t and the precision 0.

        Computed in float64, stored in the base's dtypes.

        Args:
            posteriors: p_t; each precision must be at least the base's.
            base: p_0.
            weights: w_t, one per posterior or one for all; not negative.
        """
        weights = check_compatible(posteriors, base, weights)
        state = multiply(posteriors, base, weights)
        mean = {name: m.to(base.mean[name].dtype) for name, (m, _) in state.items()}
        precision = {
            name: p.to(base.precision[name].dtype) for name, (_, p) in state.items()
        }
        return cls(base._completed(mean), precision)

    def with_prior(self, delta: float) -> Posterior:
        """The same mean with the precision `delta` added everywhere."""
        check_finite("delta", delta, positive=True)
        return Posterior(
            self.mean, {n: add_up([(1, p)], delta) for n, p in self.precision.items()}
        )

    @property
    def H(self) -> dict[str, Tensor]:
        """The precision, as a FisherResult names N F."""
        return self.precision

    @property
    def zeros(self) -> dict[str, int]:
        """Number of elements with precision 0, of the tensors that have some."""
        counts = {n: int((p == 0).sum()) for n, p in self.precision.items()}
        return {name: count for name, count in counts.items() if count}

    def log_density(self, state: nn.Module | Mapping[str, Tensor]) -> float:
        """log p(state), summed in float64.

        Raises:
            InputError: a tensor that is missing, of another shape, or without a
                precision and different from the mean.
        """
        self._check_proper()
        state = state_of(state, "state")
        required = sorted(self.mean.keys() - self._ties.keys())
        missing = [name for name in required if name not in state]
        if missing:
            raise InputError(f"state lacks tensors of the posterior: {some(missing)}")
        total = 0.0
        for name in required:
            mean, x = self.mean[name], state[name].to(self.mean[name].device)
            check_shape(x, mean.shape, "state", name, "the posterior")
            if name in self.precision:
                p = self.precision[name].double()
                squares = p * (x.double() - mean.double()).square()
                total += float((p.log() - math.log(2 * math.pi) - squares).sum()) / 2
            elif not torch.equal(x.to(mean.dtype), mean):
                raise InputError(
                    f"state: tensor {name!r} differs from the mean, but has no "
                    "precision"
                )
        return total

    def sample(self, seed: int | torch.Generator = 0) -> State:
        """A state dict drawn from the posterior, in the model's dtypes.

        Args:
            seed: random seed; or a generator, which is advanced, for several samples.
        """
        self._check_proper()
        generator = make_generator(seed)
        drawn = {}
        for name in sorted(self.precision):  # files may have another order
            p, mean = self.precision[name], self.mean[name]
            noise = torch.randn(
                p.shape, dtype=p.dtype, device=generator.device, generator=generator
            ).to(p.device)
            drawn[name] = (mean + noise / p.sqrt()).to(mean.dtype)
        return self._completed(drawn)

    def predict(
        self,
        model: nn.Module,
        batches: Iterable,
        samples: int = 10,
        seed: int = 0,
        *,
        loss: str = "auto",
    ) -> Tensor:
        """The average over samples of the model's predictions, one row per example.

        Args:
            model: any module with the posterior's parameters. It runs in eval mode, and
                its parameters and modes are the same afterwards.
            batches: as for `merganser.fisher`; labels are not used, except to infer
                the loss. Held in memory.
            samples: number of samples.
            seed: random seed.
            loss: what predictions are, as for `merganser.fisher`: probabilities
                ("classification", "causal_lm", "multilabel") or means ("regression").

        Returns:
            Probabilities or means (N, ...), float32 or wider, on the model's device.
        """
        check_count("samples", samples)
        check_choice("loss", loss, LOSSES)
        self._check_proper()
        model = unwrapped(model)
        check_model(model, self.mean)
        generator = make_generator(seed)
        states = (self.sample(generator) for _ in range(samples))
        return average_predictions(model, states, batches, loss)

    def save(self, directory: str | os.PathLike) -> None:
        """Writes the mean to model.safetensors, with the checkpoint's names, and the
        precision to posterior.safetensors, a Fisher file with N = 1.

        With the config.json of the model, the directory is an ordinary model directory;
        merges, `--proximal` and ProximalCallback take the second file as a Fisher.
        Neither file appears before both are complete.

        Raises InputError, before anything is written, for a precision that float32
        cannot hold: too large, or so small that it becomes 0; and for a directory that
        cannot be written.
        """
        precision = {n: _as_float32(n, p) for n, p in self.precision.items()}
        directory = Path(directory)
        check_not_sharded(directory)
        if directory.exists() and not directory.is_dir():
            raise InputError(
                f"{directory}: exists and is not a directory; choose another output "
                "path"
            )
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".tmp-", dir=directory) as parts:
                self._write(Path(parts), precision)
                for part in sorted(Path(parts).iterdir()):
                    part.replace(directory / part.name)
        except OSError as error:
            raise InputError(
                f"{directory}: cannot be written: {error.strerror}"
            ) from None

    def _write(self, directory: Path, precision: dict[str, Tensor]) -> None:
        write_state(
            directory, {n: x for n, x in self.mean.items() if n not in self._ties}
        )
        FisherResult(
            precision,
            num_examples=1,
            num_examples_used=1,
            estimator=_ESTIMATOR,
            labels="",
            base_model_hash=_C.content_hash(directory),
        ).save(directory / _FILE)

    @classmethod
    def load(cls, directory: str | os.PathLike) -> Posterior:
        """Reads what `save` wrote; tied tensors have one name.

        Raises InputError for a mean that is not the one of the precision, by its hash.
        """
        fisher = FisherResult.load(Path(directory) / _FILE)
        if not may_belong_to(fisher, _C.content_hash(directory)):
            raise InputError(f"{directory}: {_FILE} belongs to a different model")
        return cls(read_state(directory), fisher.H)

    def __repr__(self) -> str:
        count = sum(p.numel() for p in self.precision.values())
        zeros = sum(self.zeros.values())
        return (
            f"Posterior({len(self.precision)} tensors, {count:,} values, {zeros:,} "
            "with precision 0)"
        )

    def _completed(self, changed: State) -> State:
        """A whole state dict from the tensors that have a precision."""
        return {
            name: changed[owner]
            if (owner := self._ties.get(name, name)) in changed
            else x.clone()
            for name, x in self.mean.items()
        }

    def _check_proper(self) -> None:
        zeros = self.zeros
        if zeros:
            name = next(iter(zeros))
            raise InputError(
                f"{sum(zeros.values())} elements have precision 0, among them "
                f"{zeros[name]} of tensor {name!r}, so that the posterior is not "
                "a distribution: call with_prior(delta)"
            )


def _as_float32(name: str, precision: Tensor) -> Tensor:
    rounded = precision.float()
    lost = rounded.isinf() | ((rounded == 0) & (precision > 0))
    if lost.any():
        raise InputError(
            f"cannot save the precision of tensor {name!r}: "
            f"{float(precision[lost][0]):g} is out of float32's range"
        )
    return rounded
