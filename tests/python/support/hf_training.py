"""Small runs of transformers' Trainer, and the Fishers that they must collect."""

import copy

import tiny_models
import torch
from torch.nn import functional
from transformers import (
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainingArguments,
)

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
# Splits of a step of 8 examples into micro-batches.
SPLITS = {
    "1x8": {"per_device_train_batch_size": 8},
    "2x4": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2},
    "4x2": {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4},
}


def bert(dropout=False, **options):
    torch.manual_seed(1)
    return tiny_models.bert(**({} if dropout else NO_DROPOUT), **options)


def gpt2():
    torch.manual_seed(1)
    config = GPT2Config(
        vocab_size=43,
        n_positions=24,
        n_embd=16,
        n_layer=2,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=1,
    )
    return GPT2LMHeadModel(config)


def llama():
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=43,
        hidden_size=16,
        intermediate_size=28,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        pad_token_id=0,
        attn_implementation="sdpa",
        use_cache=False,  # as in training: with a cache packed texts see each other
    )
    return tiny_models.with_larger_weights(LlamaForCausalLM(config))


def rows(batch):
    return [
        {name: value[i] for name, value in batch.items()}
        for i in range(len(batch["labels"]))
    ]


def examples(count):
    """Classified sentences of 3 to 9 tokens."""
    return rows(tiny_models.batch([3 + i * 5 % 7 for i in range(count)]))


def sentences(count):
    """Sequences for a language model, padded to one length with labels -100."""
    batch = tiny_models.batch([3 + i * 5 % 7 for i in range(count)])
    labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return rows({**batch, "labels": labels})


def with_labels(data, shape, real):
    """The same texts with another kind of labels."""
    generator = torch.Generator().manual_seed(5)
    for row in data:
        value = torch.randn(shape, generator=generator)
        row["labels"] = value if real else (value > 0).float()
    return data


def token_classification():
    """A label per token except padding; some do not count."""
    data = sentences(16)
    for row in data:
        row["labels"] = torch.where(row["labels"] > 5, row["labels"] % 3, -100)
    return BertForTokenClassification(bert().config), data


def make_trainer(
    folder, model, data, callbacks=(), optimizer=None, of_trainer=None, **options
):
    """Trains one epoch in the data's order with lr=0, which keeps the model.

    of_trainer: further arguments of the Trainer; options: of TrainingArguments.
    """
    options = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": 8,
        "learning_rate": 0.0,
        "weight_decay": 0.0,
        "train_sampling_strategy": "sequential",
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": True,
        **options,
    }
    return Trainer(
        model,
        TrainingArguments(str(folder), **options),
        train_dataset=data,
        callbacks=list(callbacks),
        optimizers=(optimizer, None),
        **(of_trainer or {}),
    )


def negative_log_likelihood(model, batch):
    """Sum over the examples, by the definition of each problem type."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits, labels = model(**inputs).logits, batch["labels"]
    if isinstance(model, GPT2LMHeadModel | LlamaForCausalLM):
        logits, labels = logits[:, :-1], labels[:, 1:]
    if logits.dim() == 3:
        logits, labels = logits.flatten(0, 1), labels.flatten()
    if model.config.problem_type == "regression":
        return 0.5 * (logits.view_as(labels) - labels).square().sum()
    if labels.is_floating_point():
        p = torch.sigmoid(logits)
        return -(labels * p.log() + (1 - labels) * (1 - p).log()).sum()
    return functional.cross_entropy(logits, labels, reduction="sum")


def gradients(model, weighted_batches):
    """sum over (batch, c) of c times the gradient of the batch's sum, float64."""
    model = copy.deepcopy(model).double().eval()
    model.zero_grad()
    for batch, c in weighted_batches:
        batch = {
            name: v.double() if v.is_floating_point() else v
            for name, v in batch.items()
        }
        (c * negative_log_likelihood(model, batch)).backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad
        for name, p in model.named_parameters()
        if p.requires_grad
    }


def define_adam(model, data, step_size):
    """sum over steps of (sum of the step's gradients)^2 / N."""
    sums = {}
    for start in range(0, len(data), step_size):
        batch = torch.utils.data.default_collate(data[start : start + step_size])
        for name, gradient in gradients(model, [(batch, 1.0)]).items():
            sums[name] = sums.get(name, 0) + gradient**2
    return {name: total / len(data) for name, total in sums.items()}
