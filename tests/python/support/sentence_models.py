"""Small models of sentence-transformers with random weights, in directories."""

import copy
from pathlib import Path

import tiny_models
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Transformer
from sentence_transformers.sentence_transformer.modules import Pooling
from torch.nn import functional
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
)

WORDS = "a cold dark fine good hot mild old red small".split()
TEXTS = ["a good old red", "cold", "small mild hot a a", "dark red fine", "hot cold"]
# Enough different ones for a test: (text, text, similarity)
PAIRS = [
    ("a good red", "fine", 0.9),
    ("cold dark", "hot small old mild", 0.1),
    ("mild", "old red", 0.4),
    ("small a cold", "hot", 0.7),
    ("dark fine", "a a good", 0.3),
]


def save_tokenizer(folder: Path):
    """Returns the keys for the sizes of a BertConfig."""
    folder.mkdir(parents=True, exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(vocab=str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    return dict(
        vocab_size=len(words),
        max_position_embeddings=24,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=28,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )


def sentence_encoder(folder: Path, seed: int, width=8):
    """Saves transformer, Pooling, Dense and Normalize in `folder`."""
    torch.manual_seed(seed)
    raw = folder.with_name(folder.name + "-transformer")
    config = BertConfig(**save_tokenizer(raw))
    tiny_models.with_larger_weights(BertModel(config)).save_pretrained(raw)
    modules = [
        Transformer(str(raw), max_seq_length=16),
        Pooling(16),
        Dense(16, width),
        Normalize(),
    ]
    model = SentenceTransformer(modules=modules, device="cpu")
    model.save(str(folder), create_model_card=False)
    return folder


def cross_encoder(folder: Path, seed: int):
    torch.manual_seed(seed)
    raw = folder.with_name(folder.name + "-transformer")
    config = BertConfig(**save_tokenizer(raw), num_labels=1)
    model = tiny_models.with_larger_weights(BertForSequenceClassification(config))
    model.save_pretrained(raw)
    CrossEncoder(str(raw), device="cpu").save_pretrained(str(folder))
    return folder


def state(folder: Path, kind=SentenceTransformer):
    """The tensors of a model in float64, by their names in memory."""
    model = kind(str(folder), device="cpu")
    return {name: x.double() for name, x in model.state_dict().items()}


class Pairs(SentenceTransformer):
    """Embeds both texts of a pair: (B, 2, D)."""

    def forward(self, first, second):
        embed = super().forward
        return torch.stack(
            [embed(texts)["sentence_embedding"] for texts in (first, second)], 1
        )


def pair_batch(model, pairs):
    """A batch of PAIRS for Pairs, without what no transformer takes."""

    def tokens(texts):
        features = model.preprocess(texts)
        return {name: x for name, x in features.items() if torch.is_tensor(x)}

    first, second, labels = zip(*pairs, strict=True)
    inputs = {"first": tokens(list(first)), "second": tokens(list(second))}
    return inputs, torch.tensor(labels)


def cosine_loss(embeddings, labels):
    """CosineSimilarityLoss, of single pairs."""
    return (functional.cosine_similarity(*embeddings.unbind(1)) - labels) ** 2


def gradients(model, batches, loss=cosine_loss):
    """Gradients in float64, one batch at a time."""
    model = copy.deepcopy(model).double().eval()
    for inputs, labels in batches:
        model.zero_grad()
        loss(model(**inputs), labels.double()).sum().backward()
        yield {
            name: torch.zeros_like(p) if p.grad is None else p.grad
            for name, p in model.named_parameters()
        }
