"""A random LLaMA of 16 dimensions with a tied head and a vocabulary of words, as a
directory of transformers, and sets of texts of these words."""

import json
import random

import torch
import transformers as tf
from tokenizers import Tokenizer, models, pre_tokenizers

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "?"]
WORDS = [f"w{i}" for i in range(40)]


def make_model(folder):
    tokens = {token: i for i, token in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="?",
        pad_token="<|im_end|>",
        eos_token="<|im_end|>",
        bos_token="<|im_start|>",
        additional_special_tokens=["<|endoftext|>"],
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = tf.LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    tf.LlamaForCausalLM(config).save_pretrained(folder)


def make_texts(folder, sets, count=40):
    """Each set prefers words of its own, and its labels alternate."""
    generator = random.Random(1)
    for i, name in enumerate(sets):
        weights = [1 + 5 * (j % len(sets) == i) for j in range(len(WORDS))]
        for part in ("train", "test"):
            file = folder / name / f"{part}.jsonl"
            file.parent.mkdir(parents=True, exist_ok=True)
            lines = []
            for label in range(count):
                words = generator.choices(WORDS, weights, k=generator.randint(3, 12))
                example = {"text": " ".join(words), "label": label % 2}
                lines.append(json.dumps(example) + "\n")
            file.write_text("".join(lines))
