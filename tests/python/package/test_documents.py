"""The documents: links and anchors have targets, the site has every page, the methods
are counted, and no retired phrase has come back."""

import re

import pytest
import yaml
from repository import ROOT
from words import retired

DOCUMENTS = [
    ROOT / name
    for name in (
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "SECURITY.md",
        "csrc/README.md",
    )
] + sorted((ROOT / "docs").glob("*.md"))


@pytest.fixture(autouse=True)
def clone():
    if not (ROOT / "README.md").exists():
        pytest.skip("no README: the tests run away from their clone")


def without_code(text):
    """Headings, paragraphs, lists and tables: no blocks of code."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    kept, in_block, blank = [], False, True
    for line in text.split("\n"):
        indented = line.startswith("    ")
        in_block = indented and (in_block or blank) or in_block and not line
        if not in_block:
            kept.append(line)
        blank = not line
    return "\n".join(kept)


def prose(document):
    """The text for people, on one line: without code, without the tables that
    scripts/update_recipes writes from C++, without the phrases about phrases."""
    text = document.read_text(encoding="utf-8")
    text = re.sub(
        r"<!-- methods: .*?<!-- end of methods -->", "", text, flags=re.DOTALL
    )
    text = re.sub(r"^## Words$.*?(?=^## )", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"`[^`\n]+`", "`code`", without_code(text))
    return re.sub(r"\s+", " ", text)


def slugs(document):
    """GitHub's anchors of a document's headings."""
    found = []
    text = without_code(document.read_text(encoding="utf-8"))
    for heading in re.findall(r"^#{1,6} (.+)$", text, re.MULTILINE):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")
        number = 0
        while f"{slug}-{number}" in found if number else slug in found:
            number += 1
        found.append(f"{slug}-{number}" if number else slug)
    return found


def links(document):
    """Targets of links and images that are not on the web."""
    text = re.sub(
        r"`[^`\n]+`", "code", without_code(document.read_text(encoding="utf-8"))
    )
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    targets += re.findall(r"^\[[^\]]+\]:\s+(\S+)", text, re.MULTILINE)
    return [t for t in targets if not re.match(r"(https?|mailto):", t)]


def identify(document):
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
def test_links_have_targets(document):
    broken = []
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = document.parent / path if path else document
        if not target.exists():
            broken.append(f"{link}: no such file")
        elif not target.resolve().is_relative_to(ROOT.resolve()):
            broken.append(f"{link}: outside the repository")
        elif anchor and anchor not in slugs(target):
            broken.append(f"{link}: no such heading")
        elif "--" in anchor:
            broken.append(
                f"{link}: mkdocs has one hyphen there, choose another heading"
            )
    assert not broken


def test_links_are_found():
    """The patterns above see the links that the documents are known to have."""
    assert "docs/benchmarks.md#merges" in links(ROOT / "README.md")
    assert "docs/images/snippets.png" in links(ROOT / "README.md")
    assert "3-fisher-estimators" in slugs(ROOT / "docs" / "method.md")


def nav_pages(entries):
    for entry in entries:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [value] if isinstance(value, str) else nav_pages(value)


def test_site_has_every_page():
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    pages = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
    assert sorted(nav_pages(site["nav"])) == pages


def method_needs():
    """{method: what it needs}, from docs/recipes.md."""
    recipes = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    table = recipes.split("| `merge_method` | result |")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| `.*?` \|([^|]*)\|", table, re.MULTILINE)
    return {method: re.findall(r"\w+", needs) for method, needs in rows}


def test_methods_table_is_complete():
    """docs/recipes.md has the methods of the sources, in their order."""
    sources = ROOT / "csrc" / "merganser" / "recipe"
    names = {}
    for header in (sources / "methods").glob("*.h"):
        text = header.read_text(encoding="utf-8")
        names |= re.findall(r'MethodInfo (k\w+) = \{\s*\.name = "(\w+)"', text)
    rows = (sources / "methods.cpp").read_text(encoding="utf-8")
    assert list(method_needs()) == [
        names[row] for row in re.findall(r"&methods::(k\w+),", rows)
    ]


NUMBERS = "zero one two three four five six seven eight nine ten".split()


def test_counts_of_methods():
    """README.md and CHANGELOG.md count the methods as docs/recipes.md lists them."""
    needs = method_needs()
    spectral = {"tsv_m", "iso_c"}  # not mergekit's
    curvature = {m for m, n in needs.items() if {"fisher", "gram", "subspace"} & {*n}}
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    point = re.search(r"^- \*\*mergekit's recipes.*?(?=^- )", readme, re.M | re.S)
    for counted, sentence in {
        frozenset(needs)
        - curvature
        - spectral: r"Fisher methods\.\*\*(.*?) and (\w+) more read",
        frozenset(curvature): r"\)\);(.*?) and (\w+) others use curvature",
    }.items():
        names, number = re.search(sentence, point[0], re.DOTALL).groups()
        named = re.findall(r"`(\w+)`", names)
        assert set(named) <= counted
        assert len(named) + NUMBERS.index(number) == len(counted)
    assert all(f"`{name}`" in point[0] for name in spectral)

    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    number, names = re.search(
        r"(\d+) merge methods: (.*?)\.$", changes, re.M | re.S
    ).groups()
    assert re.findall(r"`(\w+)`", names) == list(needs)
    assert int(number) == len(needs)


def test_every_method_has_advice():
    """docs/choose-a-method.md names all methods of docs/recipes.md in every table."""
    page = (ROOT / "docs" / "choose-a-method.md").read_text(encoding="utf-8")
    parts = {
        "decisions": page.split("\n## ")[0],
        "needs": page.split("## What each method needs")[1].split("\n## ")[0],
        "passes": page.split("### Passes over the data")[1],
        "README": (ROOT / "README.md")
        .read_text(encoding="utf-8")
        .split("## Methods")[1],
    }
    missing = [
        (name, method)
        for name, text in parts.items()
        for method in method_needs()
        if f"`{method}`" not in text
    ]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=identify)
def test_no_retired_phrases(document):
    assert not retired(prose(document))
