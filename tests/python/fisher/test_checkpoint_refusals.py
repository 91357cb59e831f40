"""What merganser.fisher_from_checkpoint refuses: one sentence, nothing executed and
nothing written."""

import io
import os
import pickle

import hf_training
import merganser
import optimizer_files
import pytest
import torch
from merganser import InputError
from merganser._checkpoint.distributed import _MetadataUnpickler
from merganser._checkpoint.loading import Inert
from optimizer_files import Code, make_state, truncate
from torch import nn
from torch.distributed.checkpoint.metadata import _MEM_FORMAT_ENCODING


def read(checkpoint, out, **options):
    options = {"max_grad_norm": 0, "num_examples": 320, "batch_size": 8, **options}
    return merganser.fisher_from_checkpoint(checkpoint, out, **options)


@pytest.fixture
def refused(tmp_path):
    """Reads tmp_path / "run" and expects a refusal with this text."""

    def refused(match, **options):
        out = tmp_path / "out.safetensors"
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError, match=match) as error:
            read(tmp_path / "run", out, **options)
        assert "\n" not in str(error.value)
        assert sorted(tmp_path.rglob("*")) == before

    (tmp_path / "run").mkdir()
    return refused


def test_no_state(refused, tmp_path):
    refused("no optimizer state; expected optimizer.pt")
    hf_training.bert().save_pretrained(tmp_path / "run")
    refused("no optimizer state, as after save_only_model; expected")


def test_no_checkpoint(tmp_path):
    with pytest.raises(InputError, match="no such file or directory"):
        read(tmp_path / "other", tmp_path / "out.safetensors")


def test_state_of_another_model(refused, tmp_path):
    optimizer_files.write_numbered(tmp_path / "run", make_state())
    model = nn.Linear(3, 4)
    refused(r"parameter groups of 3; expected groups of the model's 2", model=model)
    model.register_parameter("third", nn.Parameter(torch.zeros(7)))
    refused(r"state 0 has the shape \[7\], but 'weight' has \[4, 3\]", model=model)
    refused("no config.json says their order; pass the model")
    hf_training.bert().save_pretrained(tmp_path / "run")
    refused("parameter groups of 3; expected groups of the model's")


def test_names_of_another_model(refused, tmp_path):
    optimizer_files.write_fsdp(tmp_path / "run", make_state())
    hf_training.bert().save_pretrained(tmp_path / "run")
    refused("lacks the parameter 'bias': the state is of another model")


def test_half_precision(refused, tmp_path):
    state = make_state()
    for values in state.values():
        values["exp_avg_sq"] = values["exp_avg_sq"].bfloat16()
    optimizer_files.write_fsdp(tmp_path / "run", state)
    refused("the moving averages are torch.bfloat16, in which a step's part is lost")


def test_coupled_decay(refused, tmp_path):
    model = nn.Linear(3, 4)
    optimizer = torch.optim.Adam(model.parameters(), weight_decay=0.1)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "run" / "optimizer.pt")
    refused("adds the decay to the gradient", model=model)


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.6, 0.99])
def test_half_a_file(keep, refused, tmp_path):
    optimizer_files.write_fsdp(tmp_path / "run", make_state())
    truncate(tmp_path / "run" / "optimizer.bin", keep)
    refused("optimizer.bin: damaged or incomplete")


def test_half_a_distributed_checkpoint(refused, tmp_path):
    optimizer_files.write_distributed(tmp_path / "run", make_state())
    (shard,) = (tmp_path / "run" / "optimizer_0").glob("*.distcp")
    truncate(shard)
    refused("distcp: damaged or incomplete")
    shard.unlink()
    refused("distcp: No such file or directory; a shard is missing")
    truncate(tmp_path / "run" / "optimizer_0" / ".metadata")
    refused("metadata: damaged or incomplete")


@pytest.mark.parametrize("stage", [2, 3])
def test_half_of_deepspeeds_shards(stage, refused, tmp_path):
    optimizer_files.write_zero(tmp_path / "run", make_state(), stage)
    shards = sorted((tmp_path / "run" / "global_step40").glob("*optim_states.pt"))
    truncate(shards[0])
    refused("optim_states.pt: damaged or incomplete")
    shards[0].unlink()
    refused(r"expected 3 files \*_optim_states.pt, got 2")


def test_half_of_safetensors(refused, tmp_path):
    optimizer_files.write_safetensors(tmp_path / "run", make_state())
    truncate(tmp_path / "run" / "exp_avg_sq.safetensors", 0.9)
    refused("exp_avg_sq.safetensors")


def test_code_in_a_file(refused, tmp_path):
    marker = tmp_path / "executed"
    state = {"state": make_state(), "param_groups": [], "more": Code(marker)}
    torch.save(state, tmp_path / "run" / "optimizer.bin")
    # training_args.bin is not opened.
    torch.save(Code(marker), tmp_path / "run" / "training_args.bin")
    refused("optimizer.bin: contains .*mkdir; expected tensors, numbers and texts")
    with (tmp_path / "run" / "optimizer.bin").open("wb") as file:
        pickle.dump(state, file)  # not a zip file
    refused("optimizer.bin: ")
    assert not marker.exists()


def test_code_in_distributed_metadata(refused, tmp_path):
    marker = tmp_path / "executed"
    optimizer_files.write_distributed(tmp_path / "run", make_state())
    path = tmp_path / "run" / "optimizer_0" / ".metadata"
    path.write_bytes(pickle.dumps(Code(marker)))
    refused(r"contains \w+.mkdir; expected the metadata of a distributed checkpoint")
    assert not marker.exists()


def test_code_in_a_distributed_value(refused, tmp_path):
    """torch.distributed.checkpoint itself would run it."""
    marker = tmp_path / "executed"
    wrap = lambda state, groups: {  # noqa: E731
        "optimizer": {"state": state, "param_groups": Code(marker)}
    }
    optimizer_files.write_distributed(tmp_path / "run", make_state(), wrap)
    refused("contains .*mkdir")
    assert not marker.exists()


class OfGetattr:
    """Pickled as Python 3.11.0 to 3.11.3 store a member of an enumeration."""

    def __init__(self, *arguments):
        self.arguments = arguments

    def __reduce__(self):
        return getattr, self.arguments


def test_getattr_in_metadata_takes_members_only():
    """It stands for enumerations, and calls nothing."""
    read = lambda x: _MetadataUnpickler(io.BytesIO(pickle.dumps(x))).load()  # noqa: E731
    assert isinstance(read(OfGetattr(_MEM_FORMAT_ENCODING, "__init__")), Inert)
    for owner in ("text", 1.5, [], torch.float32):
        with pytest.raises(merganser.InputError, match="contains getattr of"):
            read(OfGetattr(owner, "__class__"))
    with pytest.raises(merganser.InputError, match="contains posix.system"):
        read(OfGetattr(os.system, "__call__"))


@pytest.mark.parametrize("stage", [2, 3])
def test_code_in_a_shard(stage, refused, tmp_path):
    marker = tmp_path / "executed"
    optimizer_files.write_zero(tmp_path / "run", make_state(), stage)
    shards = sorted((tmp_path / "run" / "global_step40").glob("*optim_states.pt"))
    torch.save({"optimizer_state_dict": Code(marker)}, shards[0])
    refused("contains .*mkdir")
    assert not marker.exists()


def test_shard_in_another_directory(refused, tmp_path):
    optimizer_files.write_distributed(tmp_path / "run", make_state())
    path = tmp_path / "run" / "optimizer_0" / ".metadata"
    data = pickle.loads(path.read_bytes())
    for place in data.storage_data.values():
        place.relative_path = "../../other.distcp"
    path.write_bytes(pickle.dumps(data))
    refused("a shard is in another directory")


def test_unknown_numbers(refused, tmp_path):
    optimizer_files.write_fsdp(tmp_path / "run", make_state())
    refused("from which the number of examples in a step follows", batch_size=None)
    refused("no grad_norm of the steps 1 to 40", max_grad_norm=1.0)
    refused("batch_size must be a finite number, positive", batch_size=0)
    refused("max_grad_norm must be a finite number, not negative", max_grad_norm=-1)
    refused("num_examples must be at least 1", num_examples=0)


def test_output(tmp_path):
    optimizer_files.write_fsdp(tmp_path, make_state())
    other = tmp_path / "other.safetensors"
    other.write_bytes(b"text")
    for name, match in {
        "out.pt": "ends in .safetensors",
        "no/out.safetensors": "no such directory",
        "other.safetensors": "exists and is not a Fisher",
    }.items():
        with pytest.raises(InputError, match=match):
            read(tmp_path, tmp_path / name)
    assert other.read_bytes() == b"text"
    for _ in range(2):  # a Fisher is replaced
        read(tmp_path, tmp_path / "out.safetensors")
