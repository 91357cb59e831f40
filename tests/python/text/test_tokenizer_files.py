"""Contents of a tokenizer's files: flags of added tokens, options of the models, bare
vocabulary files next to transformers' configuration."""

import itertools
import json
import re

import merganser
import pytest
from tokenizer_folders import (
    ROBERTA_SPECIAL,
    Pair,
    byte_level,
    enumerated,
    minilm_folder,
    save,
    trained_bpe,
    vocabulary_folder,
    wordpiece,
)
from tokenizers import (
    AddedToken,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import BertTokenizer, RobertaTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

FLAGS = ("single_word", "lstrip", "rstrip", "normalized")
LETTERS = "abcdefghijklmnopqrstuvwxyz\u0301\u4e2d_-0"


def texts_around(token):
    """The token next to itself, words, white space, punctuation and marks."""
    sides = [
        "",
        " ",
        "  ",
        "\u3000",
        "\n ",
        "a",
        "Z",
        "_",
        "0",
        "-",
        "\u0301",
        "\u4e2d",
    ]
    for form in (token, token.upper(), token * 2, f"{token} {token}"):
        for left, right in itertools.product(sides, sides):
            yield f"{left}{form}{right}"
            yield f"x{left}{form}{right}y"


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [*itertools.product([False, True], repeat=4)], ids=str
)
@pytest.mark.parametrize("kind", ["bert", "byte_level", "prefix_space"])
def test_flags_of_added_tokens(tmp_path, kind, flags):
    if kind == "bert":
        tokenizer = wordpiece(LETTERS)
    else:
        vocabulary = enumerated([*ROBERTA_SPECIAL, *bytes_to_unicode().values()])
        tokenizer = byte_level(vocabulary, [], kind == "prefix_space")
    options = dict(zip(FLAGS, flags, strict=True))
    tokenizer.add_tokens(
        [
            AddedToken("t\u00f6k", **options),
            AddedToken("t\u00f6k t\u00f6k", **options),
            AddedToken("a  ", normalized=False),
            AddedToken(" y", normalized=True),
        ]
    )
    pair = Pair(save(tokenizer, tmp_path))
    assert tokenizer.token_to_id(" y") == pair.ours.vocab_size - 1
    pair.check([*texts_around("t\u00f6k"), *texts_around("to\u0308k")])


def test_words_of_too_many_characters(tmp_path):
    tokenizer = wordpiece("abc")
    tokenizer.model.max_input_chars_per_word = 4
    texts = ["abca", "abcab", "abc abca,abcab.", "\u00e4bca", "\u00e4bcab", "abcd"]
    Pair(save(tokenizer, tmp_path)).check(texts)


@pytest.mark.parametrize("prefix", ["", "##", "@"])
def test_continuing_prefix(tmp_path, prefix):
    tokenizer = wordpiece("ab")
    document = json.loads(tokenizer.to_str())
    document["model"]["continuing_subword_prefix"] = prefix
    document["model"]["vocab"]["@a"] = len(document["model"]["vocab"])
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    Pair(tmp_path).check(["a", "aa", "ab", "ba", "aab", "##a", "@a"])


@pytest.mark.parametrize("fuse", [False, True])
@pytest.mark.parametrize("unknown", [None, "<unk>"])
def test_bytes_without_a_token(tmp_path, unknown, fuse):
    letters = [*ROBERTA_SPECIAL, *"abc", "\u0120", "ab", "\u0120a", "<unk>a"]
    merges = [("a", "b"), ("\u0120", "a"), ("<unk>", "a")]
    tokenizer = byte_level(
        enumerated(letters), merges, unk_token=unknown, fuse_unk=fuse
    )
    Pair(save(tokenizer, tmp_path)).check(
        ["abc", "axb", "axxb", "xxa", "\u00e9\u00e9a xa", "x", "ab ab\u4e2d\u4e2dab"]
    )


@pytest.mark.parametrize(
    "processor", ["none", "bert", "roberta", "template", "pair template"]
)
def test_post_processors(tmp_path, processor):
    tokenizer = wordpiece("ab")
    tokenizer.post_processor = {
        "none": processors.ByteLevel(),
        "bert": processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
        "roberta": processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
        "template": processors.TemplateProcessing(
            single="[CLS] [CLS] $A [SEP] [MASK] [CLS]",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3), ("[MASK]", 4)],
        ),
        "pair template": processors.TemplateProcessing(
            single="[CLS] $A",
            pair="[CLS]:1 $B:1 [SEP] [MASK]:2 $A [SEP]",
            special_tokens=[("[CLS]", 2), ("[SEP]", 3), ("[MASK]", 4)],
        ),
    }[processor]
    pair = Pair(save(tokenizer, tmp_path))
    pair.check(["", "ab", "ab ab ab ab ab"])
    pair.check(["", "ab", "ab ab ab ab ab"], 7)
    pairs = [("", ""), ("ab ab ab", "b"), ("a", "ab ab ab")]
    pair.check_pairs(pairs)
    pair.check_pairs(pairs, 8)


@pytest.mark.parametrize(
    "template, message",
    [
        ({"single": "[CLS]:1 $A"}, "type_id of a single text '1' is not supported"),
        ({"single": "[CLS]"}, "the template 'single' has the text A 0 times"),
        ({"single": "$A $A"}, "the template 'single' has the text A 2 times"),
        ({"single": "$A", "pair": "$A [CLS]"}, "'pair' has the text B 0 times"),
        ({"single": "$B"}, "'single' has the text 'B', expected A"),
    ],
)
def test_templates_that_are_refused(tmp_path, template, message):
    tokenizer = wordpiece("ab")
    save(tokenizer, tmp_path)
    document = json.loads((tmp_path / "tokenizer.json").read_text())
    pieces = {"single": "$A", "pair": "$A $B:1"} | template
    document["post_processor"] = {"type": "TemplateProcessing"} | {
        key: [parse_piece(piece) for piece in text.split()]
        for key, text in pieces.items()
    }
    document["post_processor"]["special_tokens"] = {
        "[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(merganser.InputError, match=re.escape(message)):
        merganser._C.Tokenizer.load(tmp_path)


def parse_piece(piece):
    """As in a tokenizer.json, from "$A:1" or "[CLS]"."""
    name, _, kind = piece.partition(":")
    content = {"id": name.removeprefix("$"), "type_id": int(kind or 0)}
    return {"Sequence" if name[0] == "$" else "SpecialToken": content}


def test_models_without_token_types(tmp_path):
    """transformers passes no token types where model_input_names leaves them out."""
    names = {"model_input_names": ["input_ids", "attention_mask"]}
    for config, expected in ({}, [0, 0, 0, 1, 1]), (names, []):
        folder = tmp_path / str(len(config))
        vocabulary_folder(minilm_folder(), folder, tokenizer_config=config)
        pair = Pair(folder, BertTokenizer)
        ids, types = pair.ours.encode_pair("a", "b", 9)
        theirs = pair.transformers("a", "b")
        assert (ids, types) == (theirs["input_ids"], expected)
        assert theirs.get("token_type_ids", []) == expected


@pytest.mark.parametrize("named", [True, False])
def test_unigram_is_refused_by_name(tmp_path, named):
    model = models.Unigram([("<s>", 0.0), ("a", -1.0)], 0)
    save(Tokenizer(model), tmp_path)
    if not named:  # as old versions write it
        document = json.loads((tmp_path / "tokenizer.json").read_text())
        del document["model"]["type"]
        (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(merganser.InputError, match="model 'Unigram' is not supported"):
        merganser._C.Tokenizer.load(tmp_path)


def test_word_level_is_refused_by_name(tmp_path):
    save(Tokenizer(models.WordLevel({"a": 0}, "a")), tmp_path)
    with pytest.raises(merganser.InputError, match="model 'WordLevel' is not supp"):
        merganser._C.Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "part, value, named",
    [
        ("normalizer", normalizers.NFKC(), "normalizer 'NFKC'"),
        ("pre_tokenizer", pre_tokenizers.Metaspace(), "pre_tokenizer 'Metaspace'"),
        (
            "post_processor",
            processors.Sequence([processors.ByteLevel()]),
            "post_processor 'Sequence'",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["wordpiece", "byte_level"])
def test_parts_are_refused_by_name(tmp_path, kind, part, value, named):
    alphabet = enumerated([*ROBERTA_SPECIAL, *bytes_to_unicode().values()])
    tokenizer = wordpiece("ab") if kind == "wordpiece" else byte_level(alphabet, [])
    setattr(tokenizer, part, value)
    save(tokenizer, tmp_path)
    with pytest.raises(merganser.InputError, match=f"{named} is not supported"):
        merganser._C.Tokenizer.load(tmp_path)


@pytest.mark.parametrize("name", ["sentencepiece.bpe.model", "spm.model", "bpe.codes"])
def test_vocabularies_of_other_kinds_are_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    if name == "bpe.codes":  # BERTweet's, next to a vocab.txt that is not WordPiece
        (tmp_path / "vocab.txt").write_text("a\n")
    with pytest.raises(merganser.InputError, match=f"{name}.*not supported"):
        merganser._C.Tokenizer.load(tmp_path)


def test_old_merges_as_lines(tmp_path):
    source = trained_bpe(tmp_path / "files")
    document = json.loads(
        RobertaTokenizer.from_pretrained(source).backend_tokenizer.to_str()
    )
    document["model"]["merges"] = [
        "#version: 0.2",
        *(" ".join(pair) for pair in document["model"]["merges"]),
    ]
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    Pair(tmp_path).check(
        ["the movie was not as good", "caf\u00e9 na\u00efve", "#version"]
    )


TEXTS = [
    "The QUICK brown fox, caf\u00e9 na\u00efve r\u00e9sum\u00e9 \u4f60\u597d \u0130I",
    "[CLS] [MASK] <mask>, <s>a</s> <pad> [new] <new> NEW  new [X]",
    " <mask>  [MASK]  x",
    "",
]

BERT_CONFIGS = [
    {},
    {"do_lower_case": False},
    {"do_lower_case": False, "strip_accents": True},
    {"do_lower_case": True, "strip_accents": False},
    {"tokenize_chinese_chars": False, "tokenizer_class": "BertTokenizerFast"},
    {"cls_token": "[unused1]", "sep_token": "[unused2]", "pad_token": "[unused3]"},
    {"mask_token": {"__type": "AddedToken", "content": "[MASK]", "lstrip": True}},
    {"additional_special_tokens": ["<new>", "[X]"], "bos_token": "<s>"},
    {
        "added_tokens_decoder": {
            "30523": {"content": "new", "single_word": True, "normalized": True},
            "30522": {"content": "[new]", "rstrip": True, "special": True},
        }
    },
]


@pytest.mark.parametrize("config", BERT_CONFIGS, ids=str)
def test_vocab_txt(tmp_path, config):
    folder = vocabulary_folder(minilm_folder(), tmp_path, tokenizer_config=config)
    Pair(folder, BertTokenizer).check(TEXTS)


ROBERTA_CONFIGS = [
    {},
    {"add_prefix_space": True},
    {"mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True}},
    {"cls_token": "</s>", "sep_token": "<s>", "tokenizer_class": "RobertaTokenizer"},
    {"extra_special_tokens": ["<new>", "[X]"]},
    {"bos_token": "[CLS]", "eos_token": None},
]


@pytest.mark.parametrize("config", ROBERTA_CONFIGS, ids=str)
def test_vocab_json_and_merges(tmp_path, config):
    source = trained_bpe(tmp_path / "source")
    folder = vocabulary_folder(source, tmp_path / "lone", tokenizer_config=config)
    Pair(folder, RobertaTokenizer).check(TEXTS)


def test_files_of_old_versions(tmp_path):
    files = {
        "special_tokens_map": {
            "mask_token": {"content": "[MASK]", "lstrip": True, "normalized": False},
            "cls_token": "[unused1]",
            "additional_special_tokens": ["<new>"],
        },
        "added_tokens": {"<new>": 30522, "new": 30523},
    }
    folder = vocabulary_folder(minilm_folder(), tmp_path, **files)
    Pair(folder, BertTokenizer).check(TEXTS)


def test_trailing_space_in_vocab_txt(tmp_path):
    lines = ["[PAD]", "[UNK] ", "[CLS]\t", "[SEP]\u3000", "[MASK]\r", "a ", "", "##a"]
    (tmp_path / "vocab.txt").write_text("\n".join([*lines, "b"]), newline="")
    Pair(tmp_path, BertTokenizer).check(["a", "aa b ab", "[MASK]"])


@pytest.mark.parametrize(
    ("config", "padding", "expected"),
    [
        ({"pad_token": "[MASK]"}, {"pad_id": 1}, 4),
        ({"pad_token": {"content": "[SEP]"}}, None, 3),
        ({}, {"pad_id": 1}, 1),
        ({}, None, 0),
    ],
    ids=str,
)
def test_padding_token(tmp_path, config, padding, expected):
    document = json.loads(wordpiece("ab").to_str())
    document["padding"] = padding
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    assert merganser._C.Tokenizer.load(tmp_path).pad_id == expected


def test_padding_token_that_is_not_there(tmp_path):
    save(wordpiece("ab"), tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": "<pad>"}')
    with pytest.raises(merganser.InputError, match="<pad>.*pad_token"):
        merganser._C.Tokenizer.load(tmp_path)
