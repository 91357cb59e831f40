"""Small sequence classifiers from transformers with random weights."""

import torch

SIZE = {"vocab_size": 43, "max_position_embeddings": 24}


def bert(num_labels=3, **options):
    from transformers import BertConfig, BertForSequenceClassification

    return with_larger_weights(
        BertForSequenceClassification(
            BertConfig(**(_layers() | options), num_labels=num_labels)
        )
    )


def roberta(num_labels=3, **options):
    from transformers import RobertaConfig, RobertaForSequenceClassification

    config = RobertaConfig(**_layers(), num_labels=num_labels, **options)
    return with_larger_weights(RobertaForSequenceClassification(config))


def distilbert(num_labels=3, **options):
    from transformers import DistilBertConfig, DistilBertForSequenceClassification

    config = DistilBertConfig(
        **SIZE,
        dim=16,
        n_layers=2,
        n_heads=4,
        hidden_dim=28,
        num_labels=num_labels,
        **options,
    )
    return with_larger_weights(DistilBertForSequenceClassification(config))


FACTORIES = {"bert": bert, "roberta": roberta, "distilbert": distilbert}


def batch(lengths, num_labels=3, pad_id=None, generator=None, pad_to=None):
    """A padded batch of random tokens: input_ids, attention_mask, labels.

    Token ids avoid 0 and 1, the padding ids of BERT and RoBERTa.
    """
    generator = generator or torch.Generator().manual_seed(7)
    width = pad_to or max(lengths)
    ids = torch.full((len(lengths), width), 0 if pad_id is None else pad_id)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(
            2, SIZE["vocab_size"], (length,), generator=generator
        )
        mask[row, :length] = 1
    labels = torch.randint(0, num_labels, (len(lengths),), generator=generator)
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def _layers():
    return dict(
        **SIZE,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=28,
    )


def with_larger_weights(model):
    """Sets larger random weights than by default, including biases, so that every
    gradient is well above rounding."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.3)
            elif name.endswith("bias"):
                parameter.normal_(std=0.1)
            else:
                parameter.uniform_(0.5, 1.5)
    return model
