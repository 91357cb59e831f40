"""Tiny models of transformers with random weights, beyond BERT, and their batches."""

import tiny_models
import torch
import transformers as tf

VOCABULARY = 43
LENGTHS = [[5, 2, 9], [6, 6], [3, 7, 2, 8]]  # lengths of the examples in three batches
_COMMON = {"vocab_size": VOCABULARY, "hidden_size": 16, "num_hidden_layers": 2}
_ENCODER = {
    **_COMMON,
    "num_attention_heads": 4,
    "intermediate_size": 28,
    "max_position_embeddings": 24,
    "num_labels": 3,
}


def albert():
    return tf.AlbertForSequenceClassification(
        tf.AlbertConfig(**_ENCODER, embedding_size=12, pad_token_id=0)
    )


def electra():
    return tf.ElectraForSequenceClassification(
        tf.ElectraConfig(**_ENCODER, embedding_size=12)
    )


def deberta_v2():
    return tf.DebertaV2ForSequenceClassification(
        tf.DebertaV2Config(
            **_ENCODER,
            relative_attention=True,
            position_buckets=6,
            pos_att_type=["p2c", "c2p"],
            share_att_key=True,
            norm_rel_ebd="layer_norm",
            position_biased_input=False,
        )
    )


def modernbert():
    return tf.ModernBertForSequenceClassification(
        tf.ModernBertConfig(
            **_ENCODER,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=1,
            sep_token_id=2,
            global_attn_every_n_layers=2,
            local_attention=4,
        )
    )


def _gpt2_config():
    return tf.GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=16,
        n_layer=2,
        n_head=4,
        n_positions=24,
        num_labels=3,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )


def gpt2():
    return tf.GPT2ForSequenceClassification(_gpt2_config())


def gpt2_lm():
    return tf.GPT2LMHeadModel(_gpt2_config())  # head tied to the embedding


def _llama_config():
    return tf.LlamaConfig(
        **_ENCODER,
        num_key_value_heads=2,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )


def llama():
    return tf.LlamaForSequenceClassification(_llama_config())


def llama_lm():
    return tf.LlamaForCausalLM(_llama_config())


def vit():
    return tf.ViTForImageClassification(
        tf.ViTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=28,
            image_size=12,
            patch_size=4,
            num_labels=3,
        )
    )


def t5():
    config = tf.T5Config(
        vocab_size=VOCABULARY,
        d_model=16,
        d_kv=4,
        d_ff=28,
        num_layers=2,
        num_decoder_layers=1,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=12,
        num_labels=3,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
    )
    return tf.T5ForSequenceClassification(config)


CLASSIFIERS = {
    "bert": tiny_models.bert,
    "roberta": tiny_models.roberta,
    "distilbert": tiny_models.distilbert,
    "albert": albert,
    "electra": electra,
    "deberta_v2": deberta_v2,
    "modernbert": modernbert,
    "gpt2": gpt2,
    "llama": llama,
    "vit": vit,
    "t5": t5,
}
LANGUAGE_MODELS = {"gpt2_lm": gpt2_lm, "llama_lm": llama_lm}
# Not covered by a rule: the table of relative positions that all examples share.
BY_EXAMPLE = {
    "deberta_v2": ["rel_embeddings", "LayerNorm", "key_proj", "query_proj"],
    "t5": ["relative_attention_bias"],
}


def make(name):
    torch.manual_seed(5)
    model = {**CLASSIFIERS, **LANGUAGE_MODELS}[name]()
    return tiny_models.with_larger_weights(model)


def batches(name, lengths=LENGTHS, width=0):
    """Padded batches (at least to `width`) and their single examples, unpadded."""
    generator = torch.Generator().manual_seed(11)
    if name == "vit":
        images = [
            torch.randn(len(row), 3, 12, 12, generator=generator) for row in lengths
        ]
        labels = [torch.randint(0, 3, (len(row),)) for row in lengths]
        full = [
            {"pixel_values": x, "labels": y}
            for x, y in zip(images, labels, strict=True)
        ]
        return full, [{"pixel_values": x[None]} for batch in images for x in batch]
    pad = 1 if name == "roberta" else 0
    full = [
        tiny_models.batch(row, pad_id=pad, generator=generator, pad_to=max(width, *row))
        for row in lengths
    ]
    if name == "t5":  # classifies the last token of the text
        for batch in full:
            ends = batch["attention_mask"].sum(1) - 1
            batch["input_ids"][torch.arange(len(ends)), ends] = 1
    singles = [
        {"input_ids": ids[None, mask > 0], "attention_mask": mask[None, mask > 0]}
        for batch in full
        for ids, mask in zip(batch["input_ids"], batch["attention_mask"], strict=True)
    ]
    return full, singles
