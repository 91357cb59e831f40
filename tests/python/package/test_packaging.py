"""Both ways to install Merganser, from the build tree under test, without compiling
again."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import merganser
import pytest
import tiny_experiment
import tiny_models
import torch
from repository import ROOT
from safetensors.torch import load_file, save_file

# <build tree>/python/merganser/__init__.py
BUILD_TREE = Path(merganser.__file__).absolute().parents[2]
VERSION = merganser.__version__


def run(*command, **options):
    """Returns standard output; a failure shows all output."""
    result = subprocess.run(
        [str(part) for part in command], text=True, capture_output=True, **options
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def clean_environment(**changes):
    """Environment without variables by which an installation could find the build."""
    dropped = ("PYTHONPATH", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    kept = {k: v for k, v in os.environ.items() if k not in dropped}
    return {**kept, **changes}


@pytest.fixture
def recipe(tmp_path):
    """Writes two tiny experts, their base and a recipe with task arithmetic."""
    base = {"w": torch.tensor([1.0, 2.0, 2.0]), "b": torch.tensor([4.0])}
    deltas = {"one": 0.5, "two": 0.25}
    for name, delta in {"base": 0.0, **deltas}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        tensors = {key: value + delta for key, value in base.items()}
        save_file(tensors, tmp_path / name / "model.safetensors")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "merge_method: task_arithmetic\nbase_model: base\n"
        "models:\n  - model: one\n  - model: two\n"
    )
    return path


def expect_merged(folder):
    merged = load_file(folder / "model.safetensors")
    torch.testing.assert_close(merged["w"], torch.tensor([1.75, 2.75, 2.75]))
    torch.testing.assert_close(merged["b"], torch.tensor([4.75]))


def expect_fine_tuned(examples, prefix, folder):
    """The C++ example that trains, on a model of 16 dimensions: the merge and its
    accuracies are those of the package and the executable from the same files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny_models.SIZE, "max_position_embeddings", 64)
        tiny_experiment.make(folder)
    data = [folder / "data" / name for name in tiny_experiment.SETS]
    for path in data:
        path.mkdir(parents=True)
        for part in ("train", "test"):
            (folder / f"{path.name}-{part}.jsonl").rename(path / f"{part}.jsonl")
    base, out = folder / "fine_tuned", folder / "by_fine_tuning"
    start = (folder / "encoder", data[0] / "train.jsonl", base)
    merganser.Trainer(*start, num_labels=2, lr=0.003, max_length=64).train()
    program = examples / "fine_tune_and_merge"
    printed = run(program, base, out, *data, env=clean_environment())

    experts = [
        {"model": f"expert{i}", "fisher": f"expert{i}.safetensors"} for i in (1, 2)
    ]
    recipe = {
        "merge_method": "gradient_matching",
        "base_model": str(base),
        "base_fisher": "base.safetensors",
        "models": [m | {"parameters": {"weight": 0.5}} for m in experts],
    }
    (out / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    merganser.merge_recipe(out / "recipe.yaml", out / "by_python")
    merged = load_file(out / "merged/model.safetensors")
    expected = load_file(out / "by_python/model.safetensors")
    torch.testing.assert_close(merged, expected, rtol=0, atol=0)
    assert any(
        x.ne(merged[n]).any() for n, x in load_file(base / "model.safetensors").items()
    )

    options = [part for path in data for part in ("--data", path / "test.jsonl")]
    evaluate = (prefix / "bin/merganser", "eval", "--json", "--max-length", 64)
    for model in (base, out / "expert1", out / "expert2", out / "merged"):
        found = json.loads(run(*evaluate, "--model", model, *options))
        for path, scores in zip(data, found, strict=True):
            assert f"{scores['accuracy']:.4f}  {model}  {path}\n" in printed


@pytest.mark.slow
def test_cmake_install(tmp_path, recipe):
    """cmake --install, the C++ example on it, the installed executables."""
    prefix = tmp_path / "prefix"
    environment = clean_environment()
    run("cmake", "--install", BUILD_TREE, "--prefix", prefix, env=environment)

    example = tmp_path / "example"
    run(
        *("cmake", "-S", ROOT / "examples/cpp", "-B", example),
        f"-DCMAKE_PREFIX_PATH={prefix}",
        f"-DPython_EXECUTABLE={sys.executable}",
        env=environment,
    )
    run("cmake", "--build", example, env=environment)
    out = tmp_path / "by_example"
    printed = run(example / "merge_and_measure", recipe, out, env=environment)
    expect_merged(out)
    # |0.75 * (1, 1, 1)| / |(1, 2, 2)| and 0.75 / 4
    assert "4.33e-01  w" in printed
    assert "1.88e-01  b" in printed
    expect_fine_tuned(example, prefix, tmp_path)

    program = prefix / "bin/merganser"
    assert VERSION in run(program, "--version", env=environment)
    run(program, "merge", recipe, tmp_path / "by_program", env=environment)
    expect_merged(tmp_path / "by_program")
    assert "--estimator" in run(program, "fisher", "--help", env=environment)
    for installed in [program, *prefix.glob("lib*/**/libmerganser_core.so")]:
        assert "torch" not in run("ldd", installed, env=environment)


@pytest.mark.slow
def test_torch_component(tmp_path):
    """find_package provides merganser::torch and refuses another minor version."""
    prefix = tmp_path / "prefix"
    run("cmake", "--install", BUILD_TREE, "--prefix", prefix)
    project = tmp_path / "project"
    project.mkdir()
    (project / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.22)\n"
        "project(consumer LANGUAGES CXX)\n"
        "find_package(Merganser REQUIRED)\n"
        "add_executable(consumer consumer.cpp)\n"
        "target_link_libraries(consumer merganser::torch)\n"
    )
    (project / "consumer.cpp").write_text(
        "#include <ATen/core/dispatch/Dispatcher.h>\n"
        '#include "merganser/fisher/fisher.h"\n'
        "int main() {\n"
        '  auto estimator = merganser::parse_estimator("exact");\n'
        "  auto& operators = c10::Dispatcher::singleton();\n"
        '  auto op = operators.findSchema({"merganser::merge", ""});\n'
        '  return merganser::estimator_name(estimator) == "exact" && op ? 0 : 1;\n'
        "}\n"
    )
    configure = (
        *("cmake", "-S", project, "-B", tmp_path / "build"),
        f"-DCMAKE_PREFIX_PATH={prefix}",
        f"-DPython_EXECUTABLE={sys.executable}",
    )
    run(*configure, env=clean_environment())
    run("cmake", "--build", tmp_path / "build", env=clean_environment())
    run(tmp_path / "build/consumer", env=clean_environment())

    config = next(prefix.glob("lib*/**/MerganserConfig.cmake"))
    text = config.read_text()
    config.write_text(text.replace(torch.__version__.split("+")[0], "2.1.0"))
    refused = subprocess.run(
        [*map(str, configure)], text=True, capture_output=True, env=clean_environment()
    )
    assert refused.returncode != 0
    assert "was built with torch 2.1.0, but" in " ".join(refused.stderr.split())


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A new environment with Merganser installed by pip; a .pth file adds the torch of
    another directory."""
    folder = tmp_path_factory.mktemp("wheel") / "env"
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin/python"
    site = Path(
        run(
            python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"
        ).strip()
    )
    (site / "torch.pth").write_text(sysconfig.get_path("purelib") + "\n")
    run(
        *(sys.executable, "-m", "pip", "--python", python, "install"),
        *("--no-build-isolation", "--no-deps", "--no-index", ROOT),
        env=clean_environment(
            MERGANSER_BUILD_DIR=str(BUILD_TREE), CMAKE_BUILD_PARALLEL_LEVEL="2"
        ),
        cwd=folder.parent,
    )
    return folder


@pytest.mark.slow
def test_installed_package(installed, tmp_path):
    """Imports merganser with its operators, outside of any build tree."""
    facts = run(
        *(installed / "bin/python", "-c"),
        "import json, importlib.metadata as m, merganser, torch\n"
        "a = torch.ones(3)\n"
        "torch.ops.merganser.square_accumulate_(a, torch.full((3,), 2.0), 1.0)\n"
        "print(json.dumps([merganser.__file__, merganser.__version__, a.tolist(),\n"
        "    m.version('merganser'), m.requires('merganser')]))",
        env=clean_environment(),
        cwd=tmp_path,
    )
    file, version, accumulated, listed, requirements = json.loads(facts)
    assert Path(file).is_relative_to(installed)
    assert version == listed == VERSION
    assert accumulated == [5.0, 5.0, 5.0]
    assert requirements == [f"torch=={'.'.join(torch.__version__.split('.')[:2])}.*"]


@pytest.mark.slow
def test_installed_executable(installed, recipe, tmp_path):
    """It is the executable itself, not a script, and finds merganser-torch."""
    program = installed / "bin/merganser"
    assert program.read_bytes()[:4] == b"\x7fELF"
    assert VERSION in run(program, "--version", env=clean_environment())
    assert "torch" not in run("ldd", program, env=clean_environment())
    run(program, "merge", recipe, tmp_path / "out", env=clean_environment())
    expect_merged(tmp_path / "out")
    assert "--estimator" in run(program, "fisher", "--help", env=clean_environment())


@pytest.mark.slow
def test_wheel_layout(installed, tmp_path):
    """torch next to merganser in site-packages, as from pip, is found without the
    directory recorded at build time."""
    site = next((installed / "lib").glob("python*/site-packages"))
    moved = tmp_path / "env"
    copy = moved / site.relative_to(installed)
    shutil.copytree(site / "merganser", copy / "merganser")
    (copy / "torch").symlink_to(Path(torch.__file__).parent)
    (moved / "bin").mkdir()
    shutil.copy(installed / "bin/merganser", moved / "bin/merganser")
    # Equal length: only the text of the RPATH changes.
    recorded = str(Path(torch.__file__).parent / "lib").encode()
    nowhere = b"/" + b"x" * (len(recorded) - 1)
    for name in ["bin/merganser-torch", "lib/libmerganser_torch.so." + VERSION]:
        file = copy / "merganser" / name
        content = file.read_bytes()
        assert recorded in content
        file.write_bytes(content.replace(recorded, nowhere))
    environment = clean_environment()
    program = moved / "bin/merganser"
    assert "--estimator" in run(program, "fisher", "--help", env=environment)
    loaded = run("ldd", copy / "merganser/bin/merganser-torch", env=environment)
    assert f"{copy}/torch/lib/libtorch_cpu.so" in os.path.normpath(
        next(line.split()[2] for line in loaded.splitlines() if "libtorch_cpu" in line)
    )
