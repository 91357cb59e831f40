"""The words of CONTRIBUTING.md in sources: no retired phrase, no comment that begins
with a preposition."""

import pytest
import words
from repository import ROOT

SOURCES = ["csrc", "python", "scripts", "benchmarks", "examples", "cmake", ".ci", "."]
TESTS = ["tests/cpp", "tests/python"]


@pytest.fixture(autouse=True)
def clone():
    if not (ROOT / "README.md").exists():
        pytest.skip("no README: the tests run away from their clone")


def files(place):
    """(name, language, text) of the files of a directory, or of the root alone."""
    for source in sorted((ROOT / place).glob("*" if place == "." else "**/*")):
        if source.is_file() and (language := words.language(source)):
            name = source.relative_to(ROOT).as_posix()
            yield name, language, source.read_text(encoding="utf-8")


@pytest.mark.parametrize("place", [*SOURCES, ".github"])
def test_no_retired_phrases_in_messages(place):
    """Literals of more than one word: messages, help texts and docstrings."""
    found, count = [], 0
    for name, language, text in files(place):
        for literal in words.LITERALS[language](text):
            if " " in literal.strip():
                count += 1
                found += [(name, phrase) for phrase in words.retired(literal)]
    assert count
    assert not found


@pytest.mark.parametrize("place", SOURCES + TESTS)
def test_comments(place):
    """No retired phrases, and no preposition or pronoun at the beginning."""
    found, count = [], 0
    for name, language, text in files(place):
        for alone, comment in words.COMMENTS[language](text):
            count += 1
            found += [(name, phrase) for phrase in words.retired(comment)]
            if alone and words.BEGINNINGS.match(comment):
                found.append((name, comment))
    assert count
    assert not found


@pytest.mark.slow
def test_no_retired_phrases_in_docstrings_of_tests():
    found = [
        (name, phrase)
        for name, language, text in files("tests/python")
        if language == "python" and not name.endswith("support/words.py")
        for docstring in words.docstrings(text)
        for phrase in words.retired(docstring)
    ]
    assert not found


def test_words_are_found():
    """Comments and literals of each language, with comments of several lines joined."""
    c = 'f("a // b"); // after\n// of two\n// lines\ng(); // alone\n'
    assert words.cpp_comments(c) == [(False, "after of two lines"), (False, "alone")]
    assert list(words.cpp_literals(c)) == ["a // b"]
    python = '"""Module."""\n\n# One\n# two.\nx = "# no"  # three\n'
    assert words.python_comments(python) == [(True, "One two."), (False, "three")]
    assert list(words.python_literals(python)) == ["Module.", "# no"]
    assert list(words.docstrings(python)) == ["Module."]
    assert words.hash_comments("a: 1\n  # Two\n  # lines\n") == [(True, "Two lines")]
    assert words.retired("goes on with it anew") == [
        "...goes on with it anew...: say again",
        "...goes on with it anew...: say resumes, continues",
    ]
