"""The order of csrc/merganser's directories, read from the #include lines."""

import re
from collections import defaultdict

import pytest
from repository import ROOT

SOURCES = ROOT / "csrc"
# A directory includes those of the lines above, and none of its own line.
ORDER = """\
numeric base
io
text recipe
plan
merge provenance
engine
kernels
ops
model
fisher
eval
train
objective search
experiment
bindings app
"""
PLACE = {
    name: line
    for line, names in enumerate(ORDER.splitlines())
    for name in names.split()
}
# Device code includes these, and compiles without the rest.
CLOSED = {"numeric": {"numeric"}, "kernels": {"kernels", "numeric"}}
LARGEST_KNOT = 3
INCLUDE = re.compile(
    r'^\s*#\s*include\s*(?:"([^"]+)"|<(merganser/[^>]+)>)', re.MULTILINE
)


def included_by(text):
    return [quoted or angled for quoted, angled in INCLUDE.findall(text)]


@pytest.fixture(scope="module")
def includes():
    """{file: what it includes of the project}, both as merganser/DIRECTORY/NAME."""
    found = {}
    for path in (SOURCES / "merganser").rglob("*"):
        if path.suffix in {".h", ".cpp", ".cuh", ".cu"}:
            name = path.relative_to(SOURCES).as_posix()
            found[name] = included_by(path.read_text(encoding="utf-8"))
    assert found
    return found


@pytest.fixture(scope="module")
def graph(includes):
    """The same without files that do not exist: another test reports them."""
    return {
        file: [other for other in included if other in includes]
        for file, included in includes.items()
    }


def unit(file):
    """A header and the sources of its name count as one file."""
    return file.rpartition(".")[0]


def reachable(graph, start):
    seen, waiting = set(), [start]
    while waiting:
        for following in graph[waiting.pop()] - seen:
            seen.add(following)
            waiting.append(following)
    return seen


def knots(includes):
    """The sets of units that all include one another, directly or not."""
    graph = defaultdict(set)
    for file, included in includes.items():
        graph[unit(file)] |= {unit(other) for other in included} - {unit(file)}
    reached = {name: reachable(graph, name) for name in list(graph)}
    return {
        frozenset(other for other in reached[name] if name in reached[other])
        for name in reached
        if name in reached[name]
    }


def test_every_include_is_rooted_at_the_project(includes):
    wrong = [
        f"{file}: {other}"
        for file, included in includes.items()
        for other in included
        if not other.startswith("merganser/") or not (SOURCES / other).is_file()
    ]
    assert not wrong


def test_every_directory_has_its_place():
    found = {path.name for path in (SOURCES / "merganser").iterdir() if path.is_dir()}
    assert found == PLACE.keys()


def directory(file):
    return file.split("/")[1]


def may_include(one, other):
    closed = CLOSED.get(one)
    return other in closed if closed else one == other or PLACE[other] < PLACE[one]


def test_directories_include_those_above(graph):
    wrong = [
        f"{file}: {other}"
        for file, included in graph.items()
        for other in included
        if not may_include(directory(file), directory(other))
    ]
    assert not wrong


def test_what_may_be_included():
    assert may_include("plan", "recipe") and may_include("ops", "merge")
    assert not may_include("recipe", "text") and not may_include("io", "plan")
    assert not may_include("kernels", "engine")


def test_the_map_has_the_same_order():
    """csrc/README.md draws it: "a  b  <-  c": a and b to the left of c."""
    text = (SOURCES / "README.md").read_text(encoding="utf-8")
    drawn = "".join(
        line.replace("<-", "\n") + "\n"
        for line in text.split("merganser_core (no torch)")[1].splitlines()[:6]
        if line.startswith("      ") and "(" not in line
    )
    lines = [sorted(line.split()) for line in drawn.splitlines()]
    expected = [sorted(line.split()) for line in ORDER.splitlines()]
    assert lines == expected[:-1]


def test_both_forms_of_includes_are_found():
    text = '#include "merganser/a/b.h"\n # include <merganser/c/d.h>\n#include <map>\n'
    assert included_by(text) == ["merganser/a/b.h", "merganser/c/d.h"]


def test_knots_are_small(graph):
    large = [sorted(knot) for knot in knots(graph) if len(knot) > LARGEST_KNOT]
    assert not large


def test_knots_of_a_known_graph():
    graph = {
        "m/a.h": ["m/b.h"],
        "m/b.cpp": ["m/b.h", "m/c.h"],
        "m/b.h": [],
        "m/c.h": ["m/a.h", "m/d.h"],
        "m/d.h": [],
        "m/e.cpp": ["m/a.h"],
    }
    assert knots(graph) == {frozenset({"m/a", "m/b", "m/c"})}


TORCH = re.compile(r"^\s*#\s*include\s*<((?:ATen|c10|torch)/[^>]+)>", re.MULTILINE)
QUICK = re.compile(r"target_sources\(merganser_torch_quick PRIVATE([^)]*)\)")


def test_the_quick_librarys_files_include_none_of_torchs_headers(graph):
    """Torch's headers are not precompiled for these files, and including them takes
    10 s."""
    quick = []
    for cmake in (SOURCES / "merganser").rglob("CMakeLists.txt"):
        directory = cmake.parent.relative_to(SOURCES).as_posix()
        for names in QUICK.findall(cmake.read_text(encoding="utf-8")):
            quick += [f"{directory}/{name}" for name in names.split()]
    files = [file for file in quick if file in graph]
    assert len(files) > 20
    included = {file: set(others) for file, others in graph.items()}
    for start in files:
        for file in reachable(included, start) | {start}:
            found = TORCH.findall((SOURCES / file).read_text(encoding="utf-8"))
            assert set(found) <= {"torch/version.h"}, f"{start} includes {file}"
