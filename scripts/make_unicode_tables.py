#!/usr/bin/env python3
"""Writes csrc/merganser/text/unicode_tables.cpp: the properties of each code point in
the `tokenizers` package, asked from the package itself.

    .venv/bin/python scripts/make_unicode_tables.py

The package takes its properties from five sources that follow different versions of
Unicode (of 0.23.3: categories from Unicode 8, decompositions from 9, letters and
numbers of the byte-level pattern and word characters from 16, lower case from 17). No
library has them all, and a system library's version would change a model's ids from
machine to machine.
"""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers

OUT = Path(__file__).resolve().parent.parent / "csrc/merganser/text/unicode_tables.cpp"
CODE_POINTS = [*range(0xD800), *range(0xE000, 0x110000)]
HANGUL = range(0xAC00, 0xD7A4)  # decomposed by a rule, not by a table


def bert(**on):
    off = dict.fromkeys(
        ["clean_text", "handle_chinese_chars", "strip_accents", "lowercase"], False
    )
    return normalizers.BertNormalizer(**{**off, **on}).normalize_str


def select(test):
    return [c for c in CODE_POINTS if test(chr(c))]


def byte_level_class(ch):
    """Returns the alternative of the byte-level pattern that takes the character."""
    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False).pre_tokenize_str
    for name, friend in {"letter": "a", "number": "1", "other": "!"}.items():
        if len(pieces(friend + ch)) == 1:
            return name
    return "space"


def word_characters():
    """Characters next to which a single_word token is not found."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.add_tokens([AddedToken("x", single_word=True, normalized=False)])
    token = tokenizer.token_to_id("x")
    return select(lambda ch: token not in tokenizer.encode("x" + ch).ids)


def combining_classes():
    """Canonical ordering moves a mark before marks of a higher class, so marks of
    known classes measure the others."""
    nfd = normalizers.NFD().normalize_str
    ruler = {  # one mark for each class up to 240, the highest
        1: 0x334, 7: 0x93C, 8: 0x3099, 9: 0x94D, 10: 0x5B0, 11: 0x5B1, 12: 0x5B2,
        13: 0x5B3, 14: 0x5B4, 15: 0x5B5, 16: 0x5B6, 17: 0x5B7, 18: 0x5B8, 19: 0x5B9,
        20: 0x5BB, 21: 0x5BC, 22: 0x5BD, 23: 0x5BF, 24: 0x5C1, 25: 0x5C2, 26: 0xFB1E,
        27: 0x64B, 28: 0x64C, 29: 0x64D, 30: 0x64E, 31: 0x64F, 32: 0x650, 33: 0x651,
        34: 0x652, 35: 0x670, 36: 0x711, 84: 0xC55, 91: 0xC56, 103: 0xE38, 107: 0xE48,
        118: 0xEB8, 122: 0xEC8, 129: 0xF71, 130: 0xF72, 132: 0xF74, 202: 0x321,
        214: 0x1DCE, 216: 0x31B, 218: 0x302A, 220: 0x316, 222: 0x59A, 224: 0x302E,
        226: 0x1D16D, 228: 0x5AE, 230: 0x300, 232: 0x315, 233: 0x35C, 234: 0x35D,
        240: 0x345,
    }  # fmt: skip

    def before(a, b):  # class of a, not 0, is below that of b
        return a != b and nfd("a" + b + a) == "a" + a + b

    ruler = {k: chr(c) for k, c in ruler.items()}
    classes = {0x345: 240}
    for c in CODE_POINTS:
        ch = chr(c)
        if nfd(ch) == ch and before(ch, ruler[240]):
            (classes[c],) = (
                k
                for k, mark in ruler.items()
                if not before(ch, mark) and not before(mark, ch)
            )
    return classes


def decompositions():
    nfd = normalizers.NFD().normalize_str
    return {
        c: nfd(chr(c)) for c in CODE_POINTS if c not in HANGUL and nfd(chr(c)) != chr(c)
    }


def lower_cases():
    lower = normalizers.Lowercase().normalize_str
    mapped = {c: lower(chr(c)) for c in CODE_POINTS if lower(chr(c)) != chr(c)}
    assert mapped.pop(0x130) == "i\u0307"  # the only long one; unicode.cpp has it
    return {c: ord(to) - c for c, to in mapped.items()}


def ranges(values):
    """Runs of neighbours with an equal value, as (first, last, value)."""
    runs = []
    for c, value in sorted(values.items()):
        if runs and runs[-1][1] == c - 1 and runs[-1][2] == value:
            runs[-1][1] = c
        else:
            runs.append([c, c, value])
    return runs


def hexes(numbers):
    return "{" + ", ".join(f"0x{n:X}" for n in numbers) + "}"


def table(type, name, rows):
    lines, line = [], ""
    for row in rows:
        if len(line) + len(row) + 6 > 80:
            lines.append(line)
            line = ""
        line += ("  " if not line else " ") + row + ","
    body = "\n".join([*lines, line])
    return (
        f"constexpr {type} {name[0].lower()}{name[1:]}[] = {{\n{body}\n}};\n"
        f"const std::span<const {type}> k{name} = {name[0].lower()}{name[1:]};\n"
    )


def property_table(name, code_points):
    runs = ranges(dict.fromkeys(code_points, 0))
    rows = (hexes(run[:2]) for run in runs)
    return table("Range", name, rows)


def main():
    clean = bert(clean_text=True)
    strip = bert(strip_accents=True)
    split = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    nfd = normalizers.NFD().normalize_str
    byte_level = {c: byte_level_class(chr(c)) for c in CODE_POINTS}

    def of(name):
        return [c for c, found in byte_level.items() if found == name]

    # White space separates words for both tokenizers, and the same is stripped
    # around added tokens.
    space = select(lambda ch: len(split("a" + ch + "b")) == 2)
    assert space == of("space")

    parts = [
        property_table("Spaces", space),
        property_table("Removed", select(lambda ch: clean("a" + ch + "b") == "ab")),
        property_table(
            "Punctuation", select(lambda ch: len(split("a" + ch + "b")) == 3)
        ),
        property_table(
            "Nonspacing",
            select(lambda ch: nfd(ch) == ch and strip("a" + ch + "b") == "ab"),
        ),
        property_table("Letters", of("letter")),
        property_table("Numbers", of("number")),
        property_table("WordCharacters", word_characters()),
        table(
            "ClassRange",
            "CombiningClasses",
            (
                f"{{0x{first:X}, 0x{last:X}, {value}}}"
                for first, last, value in ranges(combining_classes())
            ),
        ),
        table(
            "LowerRange",
            "LowerCases",
            (
                f"{{0x{first:X}, 0x{last:X}, {offset}}}"
                for first, last, offset in ranges(lower_cases())
            ),
        ),
        table(
            "Decomposition",
            "Decompositions",
            (
                f"{{0x{c:X}, {hexes(map(ord, to))}}}"
                for c, to in decompositions().items()
            ),
        ),
    ]
    OUT.write_text(
        "// Written by scripts/make_unicode_tables.py; change that.\n"
        "// clang-format off\n\n"
        '#include "merganser/text/unicode_tables.h"\n\n'
        "namespace merganser::unicode {\n\n"
        + "\n".join(parts)
        + "\n} // namespace merganser::unicode\n"
    )


if __name__ == "__main__":
    main()
