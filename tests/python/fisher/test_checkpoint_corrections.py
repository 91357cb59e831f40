"""merganser.fisher_from_checkpoint on simulated trainings: every correction against its
definition in float64, and its sum against the mean of squares per example."""

import json
import sys
from pathlib import Path

import merganser
import pytest
import torch
from merganser import FisherResult, InputError
from merganser._checkpoint.moments import ADAFACTOR, decays
from merganser._checkpoint.training_log import epochs_per_step
from optimizer_runs import (
    BETAS,
    Simulation,
    clip_factor,
    clipped,
    mean_factor,
    weighted_squares,
)


def facts_of(path):
    return json.loads(
        merganser.inspect(path, hashes=False)["metadata"]["optimizer_state"]
    )


def total(tensors):
    return float(sum(x.double().sum() for x in tensors.values()))


def collect(run, checkpoint, **options):
    """The Fisher, its facts and the ratio of its sum to the truth's."""
    out = run.folder / "fisher.safetensors"
    options = {
        "num_examples": run.num_examples,
        "max_grad_norm": run.clip,
        "model": run.model,
        **options,
    }
    fisher = merganser.fisher_from_checkpoint(checkpoint, out, **options)
    return fisher, facts_of(out), total(fisher) / total(run.truth())


def assert_defined(fisher, run, scale, begin=0, rtol=1e-4):
    for name, gradients in run.gradients.items():
        expected = scale * weighted_squares(gradients, run.betas[1], begin)
        torch.testing.assert_close(
            fisher[name].double(), expected, rtol=rtol, atol=1e-12
        )


def test_bias_correction(tmp_path):
    run = Simulation(tmp_path, batch=1)
    run.steps(20)
    fisher, facts, ratio = collect(run, run.save())
    factor = mean_factor(run.gradients, run.norms, 0, BETAS, 1)
    assert_defined(fisher, run, factor)
    assert facts["bias_correction"] == pytest.approx(1 / (1 - 0.999**20))
    assert facts["steps"] == [0, 20] and facts["beta2"] == 0.999
    assert 0.9 < ratio < 1.1
    assert fisher.estimator == "adam_checkpoint" and fisher.labels == "data"
    assert (fisher.num_examples, fisher.num_examples_used) == (1024, 20)


@pytest.mark.parametrize("given", [None, 16])
def test_batch_size(given, tmp_path):
    """Given, or from the epoch in trainer_state.json."""
    run = Simulation(tmp_path, batch=16)
    run.steps(100)
    fisher, facts, ratio = collect(run, run.save(), batch_size=given)
    factor = mean_factor(run.gradients, run.norms, 0, BETAS, 16)
    assert_defined(fisher, run, 16 * factor)
    assert facts["batch_size"] == pytest.approx(16)
    assert 0.95 < ratio < 1.05


def test_loss_terms(tmp_path):
    """n / sum c_i^2 with c_i = 1 / terms is terms^2 / n."""
    run = Simulation(tmp_path, batch=16)
    run.steps(50)
    checkpoint = run.save()
    plain, _, _ = collect(run, checkpoint)
    plain = {name: f.clone() for name, f in plain.items()}
    tokens, facts, _ = collect(run, checkpoint, loss_terms=400.0)
    assert facts["examples_factor"] == pytest.approx(400**2 / 16)
    for name, f in plain.items():
        torch.testing.assert_close(tokens[name], f * (400 / 16) ** 2)


def test_clipping(tmp_path):
    """To about a fifth of the norms."""
    run = Simulation(tmp_path, batch=16, clip=1.0)
    run.steps(1)
    run = Simulation(tmp_path, batch=16, clip=run.norms[0] / 5)
    run.steps(200)
    checkpoint = run.save()
    fisher, facts, ratio = collect(run, checkpoint)
    undone = clip_factor(run.norms, run.clip, 0.999)
    assert facts["clipping_factor"] == pytest.approx(undone)
    assert facts["clipping_steps_logged"] == 200
    factor = mean_factor(run.gradients, run.norms, run.clip, BETAS, 16)
    for name, f in fisher.items():
        found = clipped(run.gradients[name], run.norms, run.clip)
        expected = 16 * undone * factor * weighted_squares(found, 0.999)
        torch.testing.assert_close(f.double(), expected, rtol=1e-4, atol=0)
    assert 0.95 < ratio < 1.05
    _, facts, ratio = collect(run, checkpoint, max_grad_norm=0.0)
    assert facts["clipping_factor"] == 1 and 0.03 < ratio < 0.05


@pytest.mark.parametrize("batch", [4, 64, 1024])
def test_mean_gradient(batch, tmp_path):
    """mu^2 is about 0.09 of the variance: without the correction the sums are off by
    (variance + batch mu^2) / (variance + mu^2)."""
    run = Simulation(tmp_path, batch=batch, mean=0.3)
    run.steps(300)
    checkpoint = run.save()
    options = {"num_examples": 100_000, "batch_size": batch}
    if batch == 4:
        fisher, facts, ratio = collect(run, checkpoint, **options)
    else:
        with pytest.warns(
            UserWarning, match="the mean gradient has .*% of the squares"
        ):
            fisher, facts, ratio = collect(run, checkpoint, **options)
        assert any("too large" in note for note in facts["notes"])
    factor = mean_factor(run.gradients, run.norms, 0, BETAS, batch)
    # The variance is the small difference of two averages in float32.
    assert_defined(fisher, run, batch * factor, rtol=1e-3)
    variance, mean = total(run.variance), total({n: m**2 for n, m in run.mean.items()})
    share = mean / (mean + variance / batch)
    assert facts["mean_gradient_share"] == pytest.approx(share, abs=0.05)
    uncorrected = ratio / facts["mean_gradient_factor"]
    expected = (variance + batch * mean) / (variance + mean)
    assert uncorrected == pytest.approx(expected, rel=0.1)
    assert abs(ratio - 1) < {4: 0.1, 64: 0.3, 1024: 0.6}[batch]


def test_two_checkpoints(tmp_path):
    """The steps between them only; the earlier gradients were three times longer."""
    run = Simulation(tmp_path, batch=16)
    run.steps(60, scale=3.0)
    first = run.save("a")
    run.steps(80)
    last = run.save("b")
    fisher, facts, ratio = collect(run, last, start=first)
    factor = mean_factor(run.gradients, run.norms, 0, BETAS, 16, begin=60)
    assert_defined(fisher, run, 16 * factor, begin=60)
    assert facts["steps"] == [60, 140] and 0.9 < ratio < 1.1
    assert collect(run, last)[2] > 3
    with pytest.raises(InputError, match="of step 140; expected a checkpoint from bef"):
        collect(run, first, start=last)


def test_checkpoints_of_two_runs(tmp_path):
    run, other = Simulation(tmp_path, 16), Simulation(tmp_path, 16, seed=1)
    run.steps(30, scale=10.0)
    other.steps(40)
    first, last = run.save("a"), other.save("b")
    with pytest.raises(InputError, match="expected two checkpoints of one run"):
        collect(other, last, start=first)
    assert not (tmp_path / "fisher.safetensors").exists()


def test_one_step(tmp_path):
    """One gradient: the share of its mean is unknown."""
    run = Simulation(tmp_path, batch=4)
    run.steps(1)
    fisher, facts, _ = collect(run, run.save())
    assert_defined(fisher, run, 4)
    assert facts["mean_gradient_share"] is None and "unknown" in facts["notes"][0]


def test_another_batch_size_after_resuming(tmp_path):
    run = Simulation(tmp_path, batch=8)
    run.steps(64)
    first = run.save("a")
    run.batch = 32
    run.epoch = lambda step: 0.5 + (step - 64) * 32 / 1024  # continues the count
    run.steps(64)
    last = run.save("b")
    with pytest.raises(InputError, match="resumed with another batch size"):
        collect(run, last)
    assert collect(run, last, start=first)[1]["batch_size"] == 32


def test_file_is_a_fisher_file(tmp_path):
    run = Simulation(tmp_path, batch=16)
    run.steps(10)
    fisher, _, _ = collect(run, run.save())
    loaded = FisherResult.load(tmp_path / "fisher.safetensors")
    assert loaded.estimator == fisher.estimator and list(loaded) == ["b", "w"]
    for name, f in fisher.items():
        assert torch.equal(loaded[name], f)


def test_data_without_a_length_have_no_epochs():
    """A Trainer writes epoch 1 at the last step, whatever the data."""
    log = {"num_train_epochs": sys.maxsize, "global_step": 500, "epoch": 1.0}
    assert epochs_per_step(Path("trainer_state.json"), log, {}) is None
    assert epochs_per_step(
        Path("trainer_state.json"), log | {"num_train_epochs": 1}, {}
    )


def test_updates_of_adafactor_are_no_gradients():
    _, beta1 = decays(Path("optimizer.pt"), ADAFACTOR, {"beta1": 0.9})
    assert beta1 is None
