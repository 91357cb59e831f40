"""Models by their names on the Hugging Face Hub, from a server on the loopback
interface and from the local cache."""

import json
import subprocess
import threading

import hub
import merganser
import pytest
from command import executable
from hub_models import NOWHERE, environment, files_of, run, write_recipe
from huggingface_hub import ModelCard
from merge_inputs import content_hash, make_models

NOT_NEEDED = {
    "README.md": b"# Model",
    "consolidated.safetensors": b"the weights again",
    "pytorch_model.bin": b"and again",
    "onnx/config.json": b"{}",
    "onnx/model.onnx": b"",
}
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    make_models(folder)
    return folder


@pytest.fixture(scope="module")
def repositories(models):
    names = ("base", "a", "b")
    found = {f"me/{name}": files_of(models / name) | NOT_NEEDED for name in names}
    found["me/pickled"] = {"config.json": b"{}", "pytorch_model.bin": b""}
    return found


def test_a_recipe_downloads_the_needed_files(models, repositories, connect, tmp_path):
    local = write_recipe(tmp_path, *(models / name for name in ("a", "b", "base")))
    merganser.merge_recipe(local, tmp_path / "local")
    sent = []
    recipe = write_recipe(tmp_path, a=f"me/a@{hub.COMMIT}")
    with hub.serve(repositories, before_file=sent.append) as url:
        connect(url)
        merganser.merge_recipe(recipe, tmp_path / "out")
    assert content_hash(tmp_path / "out") == content_hash(tmp_path / "local")
    needed = {path.name for path in (models / "a").iterdir()}
    assert sorted(sent) == sorted(3 * list(needed))
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.base_model == ["me/base", "me/a", "me/b"]
    assert "| me/a |" in card.text
    # The cache needs no server, and the executable reads the same.
    connect(NOWHERE)
    assert merganser.plan(recipe)["models"][0]["model"].endswith(hub.COMMIT)
    done = run("merge", recipe, tmp_path / "again", "-q", cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert content_hash(tmp_path / "again") == content_hash(tmp_path / "out")


ERRORS = {
    "me/none": ["'me/none' is neither a directory nor a model on the Hub"],
    "me/a@v9": ["me/a: expected a branch, tag or commit on the Hub, got 'v9'"],
    "me/b": ["me/b: access to this model is restricted", "hf auth login"],
    "me/pickled": ["me/pickled: has no .safetensors file on the Hub"],
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_the_hub_lacks(name, repositories, connect, models, tmp_path):
    recipe = write_recipe(tmp_path, a=name, b=models / "b", base=models / "base")
    with hub.serve(repositories, gated=["me/b"]) as url:
        connect(url)
        with pytest.raises(merganser.InputError) as error:
            merganser.merge_recipe(recipe, tmp_path / "out")
    message = str(error.value)
    assert message.startswith(f"{recipe}:1:") and "\n" not in message
    assert all(part in message for part in ERRORS[name])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("offline", [False, True])
def test_no_connection(offline, connect, models, tmp_path):
    connect(NOWHERE, offline)
    with pytest.raises(merganser.InputError) as error:
        merganser.inspect("me/a")
    message = str(error.value)
    assert "\n" not in message and message.startswith("'me/a' is ")
    reason = "unset HF_HUB_OFFLINE" if offline else f"the Hub at {NOWHERE} cannot be"
    assert reason in message
    with pytest.raises(merganser.InputError) as error:
        recipe = write_recipe(tmp_path, b=models / "b", base=models / "base")
        merganser.merge_recipe(recipe, tmp_path / "out")
    assert "\n" not in str(error.value) and reason in str(error.value)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_local_directory_comes_first(models, connect, monkeypatch, tmp_path):
    connect(NOWHERE)
    (tmp_path / "me").mkdir()
    (tmp_path / "me" / "a").symlink_to(models / "a")
    monkeypatch.chdir(tmp_path)
    found = merganser.inspect("me/a")["content_hash"]
    assert found == content_hash(models / "a")


def test_download_on_the_command_line(repositories, tmp_path):
    cache = tmp_path / "cache"
    recipe = write_recipe(tmp_path)
    done = run("merge", recipe, tmp_path / "out", cache=cache)
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    for name in ("base", "a", "b"):
        assert f"merganser download me/{name}\n" in done.stderr
    names = ("me/base", "me/a", "me/b")
    with hub.serve(repositories) as url:
        done = run("download", *names, "--json", "-q", cache=cache, url=url)
    assert done.returncode == 0 and done.stderr == ""
    found = json.loads(done.stdout)
    assert list(found) == list(names)
    assert found["me/a"].endswith(f"models--me--a/snapshots/{hub.COMMIT}")
    done = run("merge", recipe, tmp_path / "out", "-q", cache=cache)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "name, connected, message",
    [
        ("me/none", True, "'me/none' is neither a directory nor a model on the Hub"),
        ("me/a@v9", True, "expected a branch, tag or commit on the Hub, got 'v9'"),
        ("me/a", False, f"the Hub at {NOWHERE} cannot be reached"),
    ],
)
def test_a_failed_download_on_the_command_line(
    name, connected, message, repositories, tmp_path
):
    with hub.serve(repositories) as url:
        url = url if connected else NOWHERE
        done = run("download", name, cache=tmp_path / "cache", url=url)
    assert done.returncode == 2
    assert message in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_killed_download_is_resumed(repositories, tmp_path):
    """A snapshot without its weights is refused, and completed without fetching the
    other files again."""
    cache, recipe = tmp_path / "cache", write_recipe(tmp_path, b="me/a")
    sent, running = [], threading.Event()
    killed = threading.Event()

    def before_file(name):
        sent.append(name)
        if name == "model.safetensors" and not killed.is_set():
            running.set()
            killed.wait(60)

    with hub.serve(repositories, before_file=before_file) as url:
        download = subprocess.Popen(
            [executable(), "download", "me/a", "-q"], env=environment(cache, url)
        )
        assert running.wait(60)
        download.kill()
        download.wait()
        done = run("merge", recipe, tmp_path / "out", cache=cache)
        assert done.returncode == 2
        assert f"{hub.COMMIT} lacks weights in .safetensors files" in done.stderr
        assert "complete it with: merganser download me/a" in done.stderr
        before = len(sent)
        killed.set()
        done = run("download", "me/a", cache=cache, url=url)
    assert done.returncode == 0, done.stderr
    assert sent[before:] == ["model.safetensors"]


OPTIONS = {
    "train": ("--train", "d.jsonl", "--out", "out"),
    "fisher": ("--data", "d.jsonl", "--out", "f.safetensors"),
    "gram": ("--data", "d.jsonl", "--out", "g.safetensors"),
    "refine": ("--base", "b", "--expert", "e", "--data", "d.jsonl", "--out", "out"),
    "eval": ("--data", "d.jsonl"),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_name_models_of_the_hub(name, tmp_path):
    done = run(name, "--model", "me/none", *OPTIONS[name], cache=tmp_path / "cache")
    assert done.returncode == 2
    assert done.stderr == (
        "merganser: 'me/none' is neither a directory nor a model in the Hub's cache "
        f"{tmp_path / 'cache'}; download it with: merganser download me/none\n"
    )


def test_a_model_of_the_cache_is_evaluated(models, tmp_path):
    repository = tmp_path / "cache" / "models--me--a"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    (repository / "snapshots").mkdir()
    (repository / "snapshots" / "c0ffee").symlink_to(models / "a")
    data = tmp_path / "data.jsonl"
    data.write_text('{"text": "word1 word2", "label": 1}\n')
    options = ("--data", data, "--max-length", "24", "--json", "-q")
    local = run("eval", "--model", models / "a", *options, cache=tmp_path)
    done = run("eval", "--model", "me/a", *options, cache=tmp_path / "cache")
    assert done.returncode == 0, done.stderr
    assert done.stdout == local.stdout
