"""Texts for people in sources of every language, and the phrases that CONTRIBUTING.md
("Words") retires."""

import ast
import io
import json
import re
import tokenize

# Phrases of a literal translation, each with what to say.
RETIRED = {
    r"\banew\b": "again",
    r"\bmeanwhile\b": "during the run",
    r"\bbeside\b": "next to, compared with, off the",
    r"\bbehind (one|the) (other|last|first)\b": "after",
    r"\b(those|ones|stages|layers|tensors|files) behind\b": "after",
    r"\bis there(,| and\b|;|\.)": "exists",
    r"\b(is|are) not there\b": "does not exist, is missing",
    r"\bwhere (it|there) is (one|none)\b": "if it exists, without one",
    r"\b(is|are) told\b": "is documented, is recognised",
    r"\bspeaks? of\b": "targets, names",
    r"\bgo(es)? on (from|with|where)\b": "resumes, continues",
    r"\bgone on with\b": "resumable",
    r"\bto be made\b": "to create",
    r"\bthat is made\b": "output, result",
    r"\bfolder to make\b": "output directory",
    r"\bmakes the folder\b": "creates the directory",
    r"\bfolders?\b": "directory",
    r"\bverbs?\b": "command",
    r"\bso many\b": "N",
    r"\bevery so many\b": "every N",
    r"\b(has|have) not[.,;:]": "lacks",
    r"\b(looks?|looked) at\b": "checks, samples",
    r"\b(least|most) (bytes|values?|denominators?)\b": "minimum, maximum",
    r"\b(very )?greatest\b": "largest",
    r"\bto be had\b": "available",
    r"\bcarr(y|ies|ied) out\b": "runs",
    r"\bis whole\b": "is complete",
    r"(?-i:\bMETHOD( \d|\.md))": "docs/method.md",
}

# Prepositions and pronouns that no comment begins with.
BEGINNINGS = re.compile(
    r"(Of|What|Whether|Where|By|For|From|As|With|In"
    r"|At|After|Over|Under|Up|Without|Why|How|When)\b"
)

C_LIKE = {".h", ".cpp", ".cuh", ".cu", ".js"}
PYTHON = {".py", ".pyi"}
TEXT = {".css", ".html", ".cff", ".cmake", ".in", ".toml", ".txt", ".yaml", ".yml"}


def retired(text):
    return [
        f"...{text[max(0, match.start() - 30) : match.end() + 30]}...: say {say}"
        for phrase, say in RETIRED.items()
        for match in re.finditer(phrase, text, re.IGNORECASE)
    ]


def language(source):
    """How to read a file: "c", "python", "notebook", "text"; None: not at all."""
    if source.suffix in C_LIKE:
        return "c"
    if source.suffix == ".ipynb":
        return "notebook"
    if source.suffix in PYTHON | TEXT:
        return "python" if source.suffix in PYTHON else "text"
    with source.open("rb") as file:
        first = file.readline()
    if source.suffix or not first.startswith(b"#!"):
        return None
    return "python" if b"python" in first else "text"


def blocks(lines):
    """Comments of consecutive lines, joined, from (line, alone, text): [(alone, text)];
    `alone` is False for a comment that begins after code."""
    found, last = [], None
    for line, alone, text in lines:
        if alone and last == line - 1:
            found[-1][1] += " " + text
        else:
            found.append([alone, text])
        last = line
    return [(alone, re.sub(r"`[^`\n]+`", "code", text)) for alone, text in found]


CPP_STRING = r'"(?:[^"\\\n]|\\.)*"'
CPP_TOKEN = re.compile(CPP_STRING + r"|//+ ?(?P<comment>.*)$", re.MULTILINE)


def cpp_comments(text):
    lines = []
    for number, line in enumerate(text.split("\n")):
        for match in CPP_TOKEN.finditer(line):
            if match["comment"] is not None:
                lines.append(
                    (number, not line[: match.start()].strip(), match["comment"])
                )
    return blocks(lines)


def python_comments(text):
    return blocks(
        (token.start[0], not token.line[: token.start[1]].strip(), token.string[2:])
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    )


def hash_comments(text):
    lines = []
    for number, line in enumerate(text.split("\n")):
        if match := re.match(r"\s*# ?(.*)$", line):
            lines.append((number, True, match[1]))
    return blocks(lines)


def cpp_literals(text):
    code = re.sub(r"^#include.*$", "", text, flags=re.MULTILINE)
    code = CPP_TOKEN.sub(
        lambda match: match[0] if match["comment"] is None else "", code
    )
    for literal in re.findall(rf"{CPP_STRING}(?:\s*{CPP_STRING})*", code):
        yield "".join(part[1:-1] for part in re.findall(CPP_STRING, literal))


def python_literals(text):
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield re.sub(r"`[^`\n]+`", "code", node.value)


def docstrings(text):
    kinds = ast.Module, ast.ClassDef, ast.FunctionDef
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, kinds) and (docstring := ast.get_docstring(node)):
            yield re.sub(r"`[^`\n]+`", "code", docstring)


def cells(text):
    for cell in json.loads(text)["cells"]:
        yield cell["cell_type"], "".join(cell["source"])


COMMENTS = {
    "c": cpp_comments,
    "python": python_comments,
    "text": hash_comments,
    "notebook": lambda text: [
        comment
        for kind, source in cells(text)
        if kind == "code"
        for comment in python_comments(source)
    ],
}
LITERALS = {
    "c": cpp_literals,
    "python": python_literals,
    # Messages and names of shell scripts, fields of YAML, pages.
    "text": lambda text: [text],
    "notebook": lambda text: [source for _, source in cells(text)],
}
