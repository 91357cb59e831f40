"""Ids equal those of the `tokenizers` package."""

import itertools
import json

import merganser
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import GOLDEN
from tokenizer_folders import (
    Pair,
    minilm_folder,
    shared_data,
    trained_bpe,
)
from transformers import RobertaTokenizer

CASES = [
    json.loads(line) for line in (GOLDEN / "hard_texts.jsonl").read_text().splitlines()
]
BROKEN = [case["text"] for case in CASES if "surrogate" in case["note"]]
HARD = [case["text"] for case in CASES if "surrogate" not in case["note"]]


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


PAIRS = [*itertools.product(["", "a", "a b", "a b c d e", "a b c d e f g h"], repeat=2)]


@pytest.mark.slow
@pytest.mark.parametrize("max_length", [5, 6, 7, 8, 9, 12, 64])
def test_pairs(pair, max_length):
    pair.check_pairs([*PAIRS, *itertools.pairwise(HARD)], max_length)


def test_pairs_of_transformers(pair, tmp_path):
    """A tokenizer's call with lists of texts, where an empty second text counts."""
    theirs = pair.transformers
    for a, b in PAIRS:
        ids, types = pair.ours.encode_pair(a, b, 9)
        both = theirs([a], [b], truncation=True, max_length=9)
        assert ids == both["input_ids"][0]
        zeros = [[0] * len(ids)]
        assert (types or zeros[0]) == both.get("token_type_ids", zeros)[0]


def test_no_room_for_text(pair):
    with pytest.raises(merganser.InputError, match="no room"):
        pair.ours.encode("text", 2)
    with pytest.raises(merganser.InputError, match="no room"):
        pair.ours.encode_pair("text", "text", 3)


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


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(PIECES, max_size=6).map("".join))
def test_generated_texts(pair, text):
    pair.check([text])


def shared_texts():
    for path in sorted(shared_data().glob("*/*.jsonl")):
        with path.open() as lines:
            yield [json.loads(line)["text"] for line in lines]


@pytest.mark.slow
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
