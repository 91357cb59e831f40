"""Models that fully_shard (FSDP2) has sharded: the results of the whole models."""

import re

import merganser
import pytest
import sharded_cases
import torch
from fisher_oracle import assert_fishers_close, define_fisher
from processes import run_ranks
from ranks_cases import vectors
from sharded_cases import estimate, mlp, sharded
from torch import distributed
from torch.distributed.fsdp import (
    FullyShardedDataParallel,
    MixedPrecisionPolicy,
    fully_shard,
)
from torch.distributed.tensor import parallel

WORKER = "sharded_worker.py"


@pytest.fixture(scope="module")
def expected():
    """Results for the whole models."""
    return {
        name: estimate(case.make().to(case.dtype), case.data, **case.options)
        for name, case in sharded_cases.cases(4).items()
    }


def assert_equal(tensors, expected, case):
    total = sum(f.square().sum() for f in expected.values()).sqrt()
    assert list(tensors) == list(expected), case
    for name, f in expected.items():
        limit = 1e-12 if f.dtype == torch.float64 else 1e-6
        away = (tensors[name] - f).norm()
        # The bias of attention keys has no effect: its Fisher is rounding.
        assert away <= limit * max(f.norm(), 1e-6 * total), f"{case}: {name}"


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 4])
def test_ranks(count, expected, tmp_path):
    run_ranks(WORKER, tmp_path, "values", count=count)
    names = list(sharded_cases.cases(count))
    for rank in range(count):
        found = torch.load(tmp_path / f"rank{rank}.pt")
        assert list(found) == names
        for case, (tensors, numbers, hashes) in found.items():
            f = expected[case]
            assert_equal(tensors, f.diagonal, case)
            assert numbers == (f.num_examples, f.num_examples_used)
            assert hashes == f.tensor_hashes
    for case in names:
        expected[case].save(tmp_path / "whole.safetensors")
        whole = merganser.FisherResult.load(tmp_path / "whole.safetensors")
        file = merganser.FisherResult.load(tmp_path / f"{case}.safetensors")
        assert_equal(file.diagonal, whole.diagonal, case)
        assert file.metadata().to_dict() == whole.metadata().to_dict()


@pytest.mark.slow
def test_definition(one):
    examples = [x[None] for batch, _ in vectors() for x in batch]
    result = estimate(sharded(mlp().double()), vectors(), one)
    found = {name: f.full_tensor() for name, f in result.items()}
    assert_fishers_close(found, define_fisher(mlp(), examples, lambda i, p: p), 1e-12)


@pytest.mark.slow
def test_memory(tmp_path):
    """No rank holds the squares of more than the layer at work and the root's own."""
    run_ranks(WORKER, tmp_path, "memory")
    layer, root = 16 * 16 + 16, 3 * 16 + 3
    for rank in (0, 1):
        peak, here = torch.load(tmp_path / f"rank{rank}.pt")
        assert layer < peak <= layer + root
        assert here <= (6 * layer + root) / 2 + 16


FAILURES = {
    "raise": (1, "ValueError", "the sky fell", "rank 1 of process_group failed: Value"),
    "shapes": (0, "RuntimeError", "cannot be multiplied", "rank 0 of .*: RuntimeError"),
    "data": (2, "ValueError", "the disk is gone", "rank 2 of process_group failed: V"),
    "die": (2, None, None, "lost rank 2, which ended or did not answer"),
}
"""The rank that fails, what it raises, and what the others raise."""


@pytest.mark.slow
@pytest.mark.parametrize("how", FAILURES)
def test_a_rank_that_fails(how, tmp_path):
    failed, kind, text, others = FAILURES[how]
    codes = [7 if how == "die" and rank == failed else 0 for rank in range(3)]
    run_ranks(WORKER, tmp_path, "failing", how, str(failed), count=3, codes=codes)
    for rank in range(3):
        if rank == failed and how == "die":
            continue
        found, message, seconds, is_sharded = torch.load(tmp_path / f"rank{rank}.pt")
        assert seconds < 60 and is_sharded
        if rank == failed:
            assert (found, text in message) == (kind, True), message
        else:
            assert found == "Error" and re.search(others, message), message


@pytest.mark.slow
def test_the_rank_of_the_store_dies(tmp_path):
    run_ranks(WORKER, tmp_path, "failing", "die", "0", codes=[7, 0])
    kind, message, seconds, _ = torch.load(tmp_path / "rank1.pt")
    assert kind == "Error" and seconds < 60
    assert "lost the process that keeps the group's store, which is rank 0" in message


@pytest.mark.slow
def test_what_needs_whole_models_on_ranks(tmp_path):
    run_ranks(WORKER, tmp_path, "refused")
    for rank in (0, 1):
        messages = torch.load(tmp_path / f"rank{rank}.pt")
        assert len(messages) == 5
        for kind, text in messages[:2]:
            assert kind == "InputError"
            assert "sharded" in text and "fisher_from_checkpoint" in text
        assert messages[2][0] == "InputError"
        assert f"process_group has the ranks [{rank}]: pass the group" in messages[2][1]
        assert messages[3][0] == "Error"
        assert ("cannot be written", "could not be written")[rank] in messages[3][1]
        # Only rank 1 has that row.
        assert messages[4] == ("Error", "the Fisher of weight is not finite")


def mixed(mesh):
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    return fully_shard(mlp(), mp_policy=policy)


def partly(mesh):
    model = mlp()
    fully_shard(model[0])
    return model


def ignoring(mesh):
    model = mlp()
    return fully_shard(model, ignored_params={model[2].weight})


def tensor_parallel(mesh):
    plan = {"2": parallel.RowwiseParallel()}
    return parallel.parallelize_module(mlp(), mesh["tensors"], plan)


def both(mesh):
    return fully_shard(tensor_parallel(mesh), mesh=mesh["examples"])


def fsdp1(mesh):
    return FullyShardedDataParallel(mlp(), device_id=torch.device("cpu"))


@pytest.mark.parametrize(
    ("shard", "message"),
    [
        (mixed, "MixedPrecisionPolicy that gathers 0.0.weight as torch.bfloat16: omit"),
        (partly, r"parts of the model are sharded.*: call fully_shard\(model\), too"),
        (ignoring, "2.weight is not sharded, but the model is: exclude no trainable"),
        (
            tensor_parallel,
            r"sharded over processes \(FSDP or DTensor\): load the whole",
        ),
        (both, "2.weight is sharded by tensor parallelism, too: use fully_shard alone"),
        (fsdp1, r"sharded over processes \(FSDP or DTensor\): load the whole model"),
    ],
)
def test_other_sharding(one, shard, message):
    names = {"mesh_dim_names": ("examples", "tensors")}
    mesh = distributed.device_mesh.init_device_mesh("cpu", (1, 1), **names)
    data = vectors(dtype=torch.float32)
    with pytest.raises(merganser.InputError, match=message):
        merganser.fisher(shard(mesh), data, process_group=one)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"process_group": None}, "needs process_group, the group of its ranks"),
        ({"estimator": "mc_batch"}, "mc_batch' takes whole gradients.*: use 'mc'"),
        ({"device": "cpu"}, "device cannot be used with a model that fully_shard"),
        ({"model_path": "model"}, "model_path cannot be used with a model"),
        ({"checkpoint": "sums.pt"}, "checkpoint cannot be used with a model"),
        ({"base": {}, "base_data": []}, "base cannot be used with a model"),
    ],
)
def test_options_that_need_whole_models(one, options, message):
    model = sharded(mlp().double())
    with pytest.raises(merganser.InputError, match=message):
        merganser.fisher(model, vectors(), **{"process_group": one} | options)


def test_merges_refuse_shards(one):
    model = sharded(mlp().double())
    f = estimate(model, vectors(), one)
    whole = mlp().double()
    with pytest.raises(merganser.InputError, match=r"fishers\[0\] is sharded.*: save"):
        merganser.merge(whole, [whole, whole], method="fisher", fishers=[f, f])
    with pytest.raises(merganser.InputError, match="'0.0.weight' is sharded over"):
        merganser.merge(whole, [model, model], method="task_arithmetic")
