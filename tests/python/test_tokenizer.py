"""Ids equal those of the `tokenizers` package."""

import json
from pathlib import Path

import merganser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from merganser._C import Tokenizer as Ours
from tokenizer_folders import (
    CODE_POINTS,
    boundary_bpe,
    minilm_folder,
    save,
    shared_data,
    trained_bpe,
    wordpiece,
)
from tokenizers import Tokenizer
from transformers import RobertaTokenizer

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = [
    json.loads(line) for line in (GOLDEN / "hard_texts.jsonl").read_text().splitlines()
]
BROKEN = [case["text"] for case in CASES if "surrogate" in case["note"]]
HARD = [case["text"] for case in CASES if "surrogate" not in case["note"]]


class Pair:
    """A tokenizer of ours and the package's, made from the same folder."""

    def __init__(self, folder, kind=None):
        self.ours = Ours.load(folder)
        if kind is None:
            self.theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:
            self.theirs = kind.from_pretrained(folder).backend_tokenizer
        self.theirs.no_padding()

    def check(self, texts, max_length=512):
        self.theirs.enable_truncation(max_length)
        ours = self.ours.encode_batch(texts, max_length)
        theirs = self.theirs.encode_batch_fast(texts)
        for text, a, b in zip(texts, ours, theirs, strict=True):
            assert a == b.ids, ascii(text)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(scope="module")
def small_roberta(folders):
    return trained_bpe(folders / "small_roberta")


@pytest.fixture(scope="module", params=["minilm", "small_roberta", "roberta"])
def pair(request, small_roberta):
    if request.param == "minilm":
        return Pair(minilm_folder())
    if request.param == "small_roberta":
        return Pair(small_roberta, RobertaTokenizer)
    if shared_data() is None:
        pytest.skip("needs MERGANSER_SHARED_DATA")
    return Pair(shared_data() / "roberta_tokenizer", RobertaTokenizer)


def test_hard_texts(pair):
    pair.check(HARD)
    pair.check(["\n".join(HARD), "".join(HARD)], 100_000)


def test_lone_surrogates_are_refused(pair):
    for text in BROKEN:
        with pytest.raises(TypeError):
            pair.theirs.encode(text)
        with pytest.raises(TypeError):
            pair.ours.encode(text, 512)


@pytest.mark.parametrize("max_length", [3, 4, 5, 8, 64])
def test_truncation(pair, max_length):
    pair.check(HARD, max_length)


def test_no_room_for_text(pair):
    with pytest.raises(merganser.InputError, match="no room"):
        pair.ours.encode("text", 2)


def test_ill_formed_bytes(pair):
    for text in (
        b"ok \xff",
        b"abc\xc0\xaf",
        b"abc\xed\xa0\x80",
        b"abc\xf4\x90\x80\x80",
    ):
        with pytest.raises(merganser.InputError, match="byte 3"):
            pair.ours.encode(text, 512)


PIECES = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.text(st.characters(max_codepoint=0x24F), max_size=20),
    st.sampled_from(HARD),
    st.sampled_from(
        ["[MASK]", "<mask>", "[SEP]", "</s>", " ", "  ", "\n", "'s", "'ll", "\u0301"]
    ),
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(PIECES, max_size=6).map("".join))
def test_generated_texts(pair, text):
    pair.check([text])


def shared_texts():
    for path in sorted(shared_data().glob("*/*.jsonl")):
        with path.open() as lines:
            yield [json.loads(line)["text"] for line in lines]


@pytest.mark.skipif(shared_data() is None, reason="needs MERGANSER_SHARED_DATA")
@pytest.mark.parametrize("name", ["minilm", "roberta"])
def test_real_texts(name):
    if name == "minilm":
        pair = Pair(minilm_folder())
    else:
        pair = Pair(shared_data() / "roberta_tokenizer", RobertaTokenizer)
    count = 0
    for texts in shared_texts():
        pair.check(texts)
        count += len(texts)
    assert count > 100_000


# Every code point, alone, in a word and between words. Packed, because texts are
# slower than characters.
def packed(form):
    for first in range(0, len(CODE_POINTS), 500):
        yield " ".join(
            form.replace("?", chr(c)) for c in CODE_POINTS[first : first + 500]
        )


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
def test_every_code_point_in_bert(folders, options):
    tokenizer = wordpiece("ab", **options)
    changed = (
        tokenizer.normalizer.normalize_str(chr(c)) for c in CODE_POINTS if c != 0x20
    )
    seen = {c for text in changed for c in text if len(c.encode()) < 5}
    known = {c for c in seen if ord(c) < 0x3400 or ord(c) > 0xA000}
    folder = save(wordpiece("ab\u4e2d" + "".join(known), **options), folders / "bert")
    pair = Pair(folder)
    for form in ("?", "a?b", "a ? b"):
        pair.check(list(packed(form)), 1_000_000)


def test_every_code_point_in_byte_level_words(folders):
    pair = Pair(save(boundary_bpe("a1! \n"), folders / "boundary"))
    for form in ("a?b", "1?", "!?", "\n?", "? a"):
        pair.check(list(packed(form)), 1_000_000)
