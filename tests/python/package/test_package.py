"""The names that `import merganser` provides, and its errors."""

import inspect
import subprocess
import sys
import types

import merganser
import pytest
import torch
from merganser import _build
from merganser._common import torch_version

PUBLIC = {
    "AdaMergingResult",
    "AdamWFisher",
    "Error",
    "FisherResult",
    "GramResult",
    "InputError",
    "MismatchResult",
    "Posterior",
    "RefineResult",
    "SubspaceResult",
    "Trainer",
    "adamerging",
    "calibrate",
    "compare_fishers",
    "fisher",
    "fisher_from_checkpoint",
    "gram",
    "has_cuda",
    "inspect",
    "linearize",
    "merge",
    "merge_recipe",
    "mismatch",
    "ops",
    "plan",
    "refine",
    "regmean_plus_plus",
    "subspace_fisher",
    "verify",
}


def test_public_names():
    assert set(merganser.__all__) == PUBLIC | {"__version__"}
    for name in merganser.__all__:
        assert hasattr(merganser, name)
    assert merganser.__version__ == _build.VERSION


@pytest.mark.parametrize("name", sorted(PUBLIC))
def test_docstrings(name):
    """Every public name, method and property has one."""
    value = getattr(merganser, name)
    assert inspect.getdoc(value)
    if inspect.isclass(value) and not issubclass(value, Exception):
        for key, member in vars(value).items():
            if not key.startswith("_") and callable(member):
                assert inspect.getdoc(member), f"{name}.{key}"


@pytest.mark.parametrize(
    "name",
    [
        "adamerging",
        "fisher",
        "fisher_from_checkpoint",
        "merge",
        "merge_recipe",
        "mismatch",
        "refine",
        "regmean_plus_plus",
        "subspace_fisher",
    ],
)
def test_docstrings_name_every_argument(name):
    function = getattr(merganser, name)
    doc = inspect.getdoc(function)
    for argument in inspect.signature(function).parameters:
        assert f"{argument}:" in doc, argument


def test_errors():
    assert issubclass(merganser.InputError, ValueError)
    assert issubclass(merganser.InputError, merganser.Error)
    assert issubclass(merganser.Error, RuntimeError)
    assert merganser.InputError.__module__ == "merganser"


def test_operators_are_registered():
    assert torch.ops.merganser.merge.default is not None


def build(torch_version, cuda=None):
    return types.SimpleNamespace(VERSION="0.1.0", TORCH=torch_version, CUDA=cuda)


def test_another_torch_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.12.1+cpu")
    with pytest.raises(ImportError) as error:
        torch_version.check_torch(build("2.13.0"))
    assert str(error.value) == (
        "merganser 0.1.0 was built with torch 2.13.0, but torch 2.12.1+cpu is "
        "installed: install torch==2.13.*, or rebuild merganser with the installed "
        "torch"
    )
    torch_version.check_torch(build("2.12.0"))
    # 2.1 is not a prefix of 2.12.
    with pytest.raises(ImportError):
        torch_version.check_torch(build("2.1.2"))


def test_a_cuda_build_needs_a_cuda_torch(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.13.0")
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(ImportError, match=r"built with CUDA 13\.0 kernels"):
        torch_version.check_torch(build("2.13.0", cuda="13.0"))
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    torch_version.check_torch(build("2.13.0", cuda="13.0"))


@pytest.mark.slow
def test_the_check_comes_before_the_compiled_module():
    """Loading _C with another torch could fail with a missing symbol."""
    code = """
import torch
torch.__version__ = "1.0.0"
try:
    import merganser
except ImportError as error:
    import sys
    assert "install torch==" in str(error), error
    assert "merganser._C" not in sys.modules
else:
    raise AssertionError("no ImportError")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
