"""merganser.merge_recipe, plan and inspect: the parts that Python adds."""

import merganser
import pytest
import torch
from merging_files import Files


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    torch.manual_seed(3)
    return Files(tmp_path_factory.mktemp("float32"))


def test_plan_and_inspect(files, tmp_path):
    plan = merganser.plan(files.recipe("gradient_matching"))
    state = files.models["base"]
    assert {t["name"]: t["shape"] for t in plan["tensors"]} == {
        name: list(tensor.shape) for name, tensor in state.items()
    }
    found = merganser.inspect(files.folder / "a.fisher.safetensors", hashes=False)
    assert found["metadata"]["num_examples"] == "107"
    assert "content_hash" not in found


def test_progress_and_its_exceptions(files, tmp_path):
    calls = []
    merganser.merge_recipe(
        files.recipe("linear"),
        tmp_path / "out",
        threads=1,
        progress=lambda *call: calls.append(call),
    )
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)
    assert len(calls) >= len(files.models["base"])
    assert calls[-1][0] == calls[-1][1]

    def stop(done, total, text):
        raise ZeroDivisionError("from the callback")

    with pytest.raises(ZeroDivisionError, match="from the callback"):
        merganser.merge_recipe(files.recipe("linear"), tmp_path / "no", progress=stop)
    # An exception, like Ctrl-C, keeps the finished part.
    assert {path.name for path in tmp_path.iterdir()} == {"out", "no.merging"}
    merganser.merge_recipe(files.recipe("linear"), tmp_path / "no", resume=True)
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert (tmp_path / "no" / "model.safetensors").read_bytes() == weights
    assert {path.name for path in tmp_path.iterdir()} == {"out", "no"}


@pytest.mark.parametrize("threads", [-3, 1025, "2", 1.5])
def test_numbers_of_threads(files, threads, tmp_path):
    with pytest.raises(merganser.InputError, match="threads must be"):
        merganser.merge_recipe(files.recipe("linear"), tmp_path / "o", threads=threads)
    assert not list(tmp_path.iterdir())


def test_errors_of_the_engine(files, tmp_path):
    with pytest.raises(merganser.InputError, match=r"absent\.yaml"):
        merganser.merge_recipe(tmp_path / "absent.yaml", tmp_path / "out")
    with pytest.raises(ValueError, match="unknown merge method"):
        merganser.plan(files.recipe("average"))
    with pytest.raises(merganser.Error):
        merganser.inspect(tmp_path / "absent")
