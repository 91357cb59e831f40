"""Killed and resumed merges, and verification afterwards."""

import json
import random
import signal
import subprocess
import time

import pytest
import torch
from command import executable
from merge_inputs import make_models, recipe
from safetensors import safe_open
from safetensors.torch import load_file, save_file

METHOD = "gradient_matching"


def sparse(**parameters):
    """A recipe with a method that reads every tensor twice."""
    models = [{"model": name, "parameters": {"weight": 0.7}} for name in "ab"]
    return json.dumps(
        {
            "merge_method": "ties",
            "base_model": "base",
            "models": models,
            "parameters": parameters,
        }
    )


def merge(folder, *arguments, out="out"):
    return subprocess.run(
        [executable(), "merge", "r.yaml", out, "--quiet", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# Fifty kills in total: one file; shards with statistics; several outputs.
KILLED = {
    "one file": (30, recipe(METHOD), []),
    "shards": (10, sparse(density=0.5), ["--shard-size", "1MB"]),
    "sweep": (10, sparse(density=0.5, **{"lambda": {"sweep": [0.5, 1]}}), []),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", KILLED)
def test_fifty_kills(tmp_path, case):
    """The bytes are the same, for any number of kills at any point."""
    kills, text, options = KILLED[case]
    folder = enlarged(tmp_path)
    (folder / "r.yaml").write_text(text)
    start = time.perf_counter()
    merge(folder, *options, out="whole").check_returncode()
    whole = time.perf_counter() - start
    expected = content(folder / "whole")
    draw = random.Random(0)
    killed = finished = 0
    while killed < kills or finished == 0:  # kills hit more than the start
        process = subprocess.Popen(
            [executable(), "merge", "r.yaml", "out", "--quiet", "--resume", *options],
            cwd=folder,
        )
        try:
            process.wait(timeout=draw.uniform(0, 1.2 * whole))
            assert process.returncode == 0
            assert content(folder / "out") == expected
            assert not (folder / "out.merging").exists()
            finished += 1
            remove(folder / "out")
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            if killed > kills:
                whole *= 2  # other work has slowed the machine since
    merge(folder, "--resume", *options).check_returncode()
    assert content(folder / "out") == expected


@pytest.mark.slow
def test_verify_and_inspect(tmp_path):
    folder = enlarged(tmp_path)
    merge(folder).check_returncode()
    good = json.loads(run(folder, "verify", "out", "--json"))
    assert good["good"] and {row["state"] for row in good["inputs"]} == {"same"}
    found = json.loads(run(folder, "inspect", "out", "--json"))
    assert found["merged"]["content_hash"] == found["content_hash"]
    assert found["merged"]["recipe"] == (folder / "r.yaml").read_text()
    sources = json.loads(run(folder, "inspect", "a", "--json"))
    hashes = {row["path"]: row["content_hash"] for row in found["merged"]["inputs"]}
    assert hashes["a"] == sources["content_hash"]
    assert "merganser" in (folder / "out" / "README.md").read_text()

    weights = folder / "out" / "model.safetensors"
    state = load_file(weights)
    next(iter(state.values())).view(-1)[-1] += 1
    save_file(state, weights, {"format": "pt"})
    process = subprocess.run(
        [executable(), "verify", "out"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert "model  changed" in process.stdout
    assert "out differs from what was merged" in process.stderr


def test_changed_input(tmp_path):
    """Refuses to resume from partial results of other weights."""
    folder = enlarged(tmp_path)
    (folder / "out.merging" / "model").mkdir(parents=True)
    (folder / "out.merging" / "journal").write_text("merganser merge, 0, 0\n0 0 0\n")
    process = merge(folder, "--resume")
    assert process.returncode == 2
    assert "out.merging belongs to another merge" in process.stderr
    assert not (folder / "out").exists()
    merge(folder).check_returncode()


@pytest.mark.slow
@pytest.mark.parametrize("memory", ["2MiB", "5000000", "1GiB"])
def test_memory_does_not_change_the_bytes(tmp_path, memory):
    folder = enlarged(tmp_path)
    merge(folder, out="whole").check_returncode()
    merge(folder, "--memory", memory, "--threads", "3").check_returncode()
    assert content(folder / "out") == content(folder / "whole")


@pytest.mark.slow
def test_shard_size(tmp_path):
    folder = enlarged(tmp_path)
    merge(folder, out="whole").check_returncode()
    merge(folder, "--shard-size", "1MB").check_returncode()
    shards = sorted((folder / "out").glob("model-*-of-*.safetensors"))
    assert len(shards) > 2
    together = {}
    for shard in shards:
        together |= load_file(shard)
    whole = load_file(folder / "whole" / "model.safetensors")
    assert together.keys() == whole.keys()
    assert all(torch.equal(together[name], whole[name]) for name in whole)


def test_nonfinite(tmp_path):
    folder = enlarged(tmp_path)
    (folder / "r.yaml").write_text(recipe("linear"))
    weights = folder / "a" / "model.safetensors"
    state = load_file(weights)
    next(iter(state.values())).view(-1)[-1] = torch.nan
    save_file(state, weights, {"format": "pt"})
    assert merge(folder).returncode == 2
    merge(folder, "--allow-nonfinite").check_returncode()
    report = json.loads((folder / "out" / "merganser.json").read_text())
    assert report["nonfinite"] == 1


def test_nonfinite_copies(tmp_path):
    """Copied tensors are also checked."""
    folder = enlarged(tmp_path)
    (folder / "r.yaml").write_text(
        json.dumps({"merge_method": "passthrough", "models": [{"model": "a"}]})
    )
    weights = folder / "a" / "model.safetensors"
    state = load_file(weights)
    state["classifier.weight"].view(-1)[7] = torch.inf
    save_file(state, weights, {"format": "pt"})
    process = merge(folder)
    assert process.returncode == 2
    assert "tensor 'classifier.weight' is inf at index 7" in process.stderr
    merge(folder, "--allow-nonfinite").check_returncode()
    report = json.loads((folder / "out" / "merganser.json").read_text())
    assert report["nonfinite"] == 1


def test_links_and_folders_of_others(tmp_path):
    folder = enlarged(tmp_path)
    (folder / "nothing").symlink_to("nowhere")
    process = merge(folder, out="nothing")
    assert (
        process.returncode == 2
        and "symbolic link to a path that does not exist" in process.stderr
    )
    (folder / "target").mkdir()
    (folder / "link").symlink_to("target")
    merge(folder, out="link").check_returncode()
    assert (folder / "link").is_symlink()
    assert (folder / "target" / "model.safetensors").exists()
    (folder / "file.merging").write_text("mine")
    process = merge(folder, out="file")
    assert process.returncode == 2 and "is not a directory" in process.stderr
    assert (folder / "file.merging").read_text() == "mine"
    (folder / "mine.merging").mkdir()
    (folder / "mine.merging" / "precious.txt").write_text("mine")
    process = merge(folder, out="mine")
    assert process.returncode == 2 and "contains precious.txt" in process.stderr
    assert (folder / "mine.merging" / "precious.txt").read_text() == "mine"


def test_a_mount_point_is_refused_at_once(tmp_path):
    """It could not be replaced at the end."""
    mount = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    folder = enlarged(tmp_path)
    (folder / "out").mkdir()
    try:
        subprocess.run([*mount, "mount -t tmpfs none out"], cwd=folder, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("nothing can be mounted here")
    process = subprocess.run(
        [*mount, f"mount -t tmpfs none out && {executable()} merge r.yaml out"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 2 and "choose a directory inside it" in process.stderr


def test_an_output_that_was_damaged_is_not_done(tmp_path):
    folder = enlarged(tmp_path)
    merge(folder).check_returncode()
    (folder / "out" / "model.safetensors").write_bytes(b"x")
    process = merge(folder, "--resume")
    assert process.returncode == 2 and "exists; remove it or choose" in process.stderr


def test_verify_looks_at_numbers_of_examples(tmp_path):
    """Works from any working directory."""
    folder = enlarged(tmp_path)
    merge(folder).check_returncode()
    out = str(folder / "out")
    good = json.loads(run(folder.parent, "verify", out, "--json"))
    assert good["good"] and {row["state"] for row in good["inputs"]} == {"same"}
    fisher = folder / "a_fisher.safetensors"
    with safe_open(fisher, "pt") as file:
        metadata = file.metadata()
    save_file(load_file(fisher), fisher, metadata | {"num_examples": "7"})
    process = subprocess.run(
        [executable(), "verify", out, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    states = {r["path"]: r["state"] for r in json.loads(process.stdout)["inputs"]}
    assert process.returncode == 1
    assert [path for path, state in states.items() if state == "changed"] == [
        "a_fisher.safetensors"
    ]


@pytest.mark.slow
def test_verify_looks_at_the_recipe(tmp_path):
    folder = enlarged(tmp_path)
    merge(folder).check_returncode()
    file = folder / "out" / "merganser.json"
    made = json.loads(file.read_text())
    file.write_text(json.dumps(made | {"recipe": made["recipe"] + "# more"}))
    process = subprocess.run(
        [executable(), "verify", "out", "--json"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    found = json.loads(process.stdout)
    assert process.returncode == 1 and found["model"]["state"] == "changed"
    assert "the recipe in merganser.json does not match" in found["model"]["problem"]


@pytest.mark.slow
def test_verify_of_damaged_inputs(tmp_path):
    """An unreadable input counts as changed, not as missing."""
    folder = enlarged(tmp_path)
    (folder / "r.yaml").write_text(recipe("task_arithmetic"))
    merge(folder).check_returncode()
    weights = folder / "a" / "model.safetensors"
    for damage, state, code in (
        (lambda: weights.write_bytes(weights.read_bytes()[:-10]), "changed", 1),
        (lambda: remove(folder / "a"), "missing", 0),
    ):
        damage()
        process = subprocess.run(
            [executable(), "verify", "out", "--json"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        states = {r["path"]: r["state"] for r in json.loads(process.stdout)["inputs"]}
        assert states == {"base": "same", "a": state, "b": "same"}
        assert process.returncode == code


def test_another_adapter_is_another_merge(tmp_path):
    """Partial results of one are not resumed by the other."""
    folder = enlarged(tmp_path)
    adapter = folder / "adapter"
    adapter.mkdir()
    name = "base_model.model.classifier"
    width = load_file(folder / "a" / "model.safetensors")["classifier.weight"].shape
    tensors = {
        f"{name}.lora_A.weight": torch.randn(2, width[1]),
        f"{name}.lora_B.weight": torch.randn(width[0], 2),
    }
    save_file(tensors, adapter / "adapter_model.safetensors", {"format": "pt"})
    model = {"model": "a", "adapter": "adapter"}
    (folder / "r.yaml").write_text(
        json.dumps({"merge_method": "linear", "models": [model, {"model": "b"}]})
    )
    identities = []
    for out, alpha, rank in (("x", 4, 2), ("y", 4000, 2), ("z", 4, 8)):
        config = {"peft_type": "LORA", "lora_alpha": alpha, "r": rank}
        (adapter / "adapter_config.json").write_text(json.dumps(config))
        process = merge(folder, out=out)
        if rank == 2:
            report = json.loads((folder / out / "merganser.json").read_text())
            identities.append(report["identity"])
    assert identities[0] != identities[1]
    assert "has rank 2, but adapter_config.json says 8" in process.stderr


def run(folder, *arguments):
    return subprocess.check_output([executable(), *arguments], cwd=folder, text=True)


def remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()


def enlarged(folder):
    """Writes models and Fishers of several chunks per tensor, and a recipe."""
    make_models(folder, hidden_size=128, vocab_size=5000)
    (folder / "r.yaml").write_text(recipe(METHOD))
    return folder
