"""_C.pyi agrees with merganser._C: every name, argument, default and type."""

import ast
import importlib.resources
import inspect
import re

import pytest
from merganser import _C

# Spelling of a type in pybind11 and in the stub. A stub may be less specific.
SPELLINGS = [
    ("typing.SupportsInt | typing.SupportsIndex", "int"),
    ("typing.SupportsFloat | typing.SupportsIndex", "float"),
    ("os.PathLike | str | bytes", "Path"),
    ("collections.abc.", ""),
    ("merganser._C.", ""),
    ("torch.", ""),
    ("Callable[[int, int, str], None]", "Progress"),
    ("tuple[str, str, Sequence[int], bytes]", "RawTensor"),
    ("tuple[str, str, list[int], bytes]", "RawTensor"),
]


def members(scope, prefix=""):
    """Every public function, method, property and class, with signature or bases."""
    found = {}
    for name, value in vars(scope).items():
        if name.startswith("_") and name not in ("__init__", "__len__"):
            continue
        if name == "__init__" and value.__doc__.startswith("Initialize self"):
            continue  # constructed in C++ only
        name = prefix + name
        if inspect.isclass(value):
            bases = [b.__name__ for b in value.__bases__]
            found[name] = f"class({', '.join(bases)})".replace("pybind11_object", "")
            if not issubclass(value, BaseException):
                found |= members(value, name + ".")
        elif isinstance(value, property):
            found[name] = "property" + signature(value.fget.__doc__)
            if value.fset is not None:
                found[name] += " or settable"
        elif isinstance(value, staticmethod):
            found[name] = signature(value.__func__.__doc__)
        else:
            found[name] = signature(value.__doc__)
    return found


def signature(doc):
    """Reads the first line of a pybind11 docstring: "name(x: int = 1) -> str"."""
    text = re.sub(r"\(arg0: [\w.]+\)", "(self)", doc.strip().splitlines()[0])
    for theirs, ours in SPELLINGS:
        text = text.replace(theirs, ours)
    return normal(ast.parse(f"def f{text[text.index('(') :]}: ...").body[0])


def normal(function):
    arguments = function.args
    if arguments.args and arguments.args[0].arg == "self":
        arguments.args[0].annotation = None
    return f"({ast.unparse(arguments)}) -> {ast.unparse(function.returns)}"


def stub_members(body, prefix=""):
    found = {}
    for node in body:
        if isinstance(node, ast.ClassDef):
            bases = ", ".join(map(ast.unparse, node.bases))
            found[prefix + node.name] = f"class({bases})"
            found |= stub_members(node.body, f"{prefix}{node.name}.")
        elif isinstance(node, ast.FunctionDef):
            kinds = [ast.unparse(d) for d in node.decorator_list]
            kind = "property" if kinds == ["property"] else ""
            found[prefix + node.name] = kind + normal(node)
        elif isinstance(node, ast.AnnAssign) and prefix:
            kind = ast.unparse(node.annotation)
            found[prefix + node.target.id] = f"property(self) -> {kind} or settable"
    return found


@pytest.fixture(scope="module")
def text():
    return importlib.resources.files("merganser").joinpath("_C.pyi").read_text()


@pytest.fixture(scope="module")
def stub(text):
    return ast.parse(text)


def test_same_names_and_signatures(stub):
    assert stub_members(stub.body) == members(_C)


CHANGES = {
    "argument": ("num_labels: int = 0, seed", "labels: int = 0, seed"),
    "default": ("bfloat16: bool = False", "bfloat16: bool = True"),
    "type": ("def vocab_size(self) -> int", "def vocab_size(self) -> str"),
    "property": ("    lr: float\n", ""),
    "function": ("def inspect(", "def inspect_file("),
    "base": ("class InputError(Error, ValueError)", "class InputError(Error)"),
    "static": (
        "    @staticmethod\n    def load(folder: Path) -> Tok",
        "    def load(self, folder: Path) -> Tok",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_every_difference_is_noticed(change, text):
    old, new = CHANGES[change]
    assert old in text
    changed = ast.parse(text.replace(old, new, 1))
    assert stub_members(changed.body) != members(_C)


def test_everything_is_documented(stub):
    for node in ast.walk(stub):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name != "__len__":
            is_property = any(
                ast.unparse(d) != "staticmethod"
                for d in getattr(node, "decorator_list", [])
            )
            assert is_property or node.name == "__init__" or ast.get_docstring(node), (
                f"{node.name} has no docstring"
            )
