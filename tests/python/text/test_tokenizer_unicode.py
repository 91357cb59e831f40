"""Both tokenizers treat each code point like the `tokenizers` package."""

import pytest
from tokenizer_folders import Pair, boundary_bpe, save, wordpiece

# Planes with assigned characters or special rules, and the ends of the others.
CODE_POINTS = [
    *range(0xD800),
    *range(0xE000, 0x32400),
    *range(0x3FFF0, 0x40010),
    *range(0xDFFF0, 0xE1000),
    *range(0xEFFF0, 0xF0010),
    *range(0xFFFF0, 0x100010),
    *range(0x10FFF0, 0x110000),
]


def packed(form):
    """Texts of many code points each, much faster than one text per code point."""
    for first in range(0, len(CODE_POINTS), 500):
        yield " ".join(
            form.replace("?", chr(c)) for c in CODE_POINTS[first : first + 500]
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"lowercase": True},
        {"lowercase": False},
        {"lowercase": True, "strip_accents": False},
        {"lowercase": False, "strip_accents": True, "clean_text": False},
        {"lowercase": False, "handle_chinese_chars": False, "clean_text": False},
    ],
    ids=str,
)
def test_bert(tmp_path, options):
    normalize = wordpiece("", **options).normalizer.normalize_str
    # Every result of the normalization is a token, except for characters that it
    # keeps, which are tens of thousands.
    results = {c for text in map(chr, CODE_POINTS) for c in normalize(text)}
    letters = {c for c in results if not 0x3400 <= ord(c) < 0xAC00 and ord(c) < 0x20000}
    pair = Pair(save(wordpiece({*letters, "a", "b"}, **options), tmp_path))
    for form in ("?", "a?b", "a ? b", "?\u0345\u0334\u302e"):
        pair.check(list(packed(form)), 1_000_000)


@pytest.mark.slow
def test_byte_level_words(tmp_path):
    pair = Pair(save(boundary_bpe("a1! \n"), tmp_path))
    for form in ("a?b", "1?", "!?", "\n?", "? a"):
        pair.check(list(packed(form)), 1_000_000)
