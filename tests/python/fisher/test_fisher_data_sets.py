"""merganser.fisher with a datasets.Dataset and transformers' collators."""

import functools
import warnings

import datasets
import merganser
import pytest
import tiny_models
import tokenizer_folders
import torch
from fisher_oracle import assert_fishers_close
from transformers import DataCollatorWithPadding, PreTrainedTokenizerFast

COUNT = 7
Y = torch.arange(COUNT).remainder(3)
TEXTS = ["a cab", "bad", "a b c d", "dad", "cc", "a", "bab a"]


def tokenizer():
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer_folders.wordpiece("abcd"),
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        unk_token="[UNK]",
        mask_token="[MASK]",
    )


@functools.cache
def tokenized():
    """Tokenized texts with columns "label" and "text"; the model does not take text."""
    rows = [{"text": t, "label": int(y)} for t, y in zip(TEXTS, Y, strict=True)]
    data = datasets.Dataset.from_list(rows)
    return data.map(lambda row: dict(tokenizer()(row["text"])))


@pytest.mark.slow
@pytest.mark.parametrize("wrap", ["", "format", "labels", "iterable", "peft"])
def test_data_set(wrap):
    model, data = tiny_models.bert(), tokenized()
    rows = [
        {key: torch.tensor([row[key]]) for key in ("input_ids", "attention_mask")}
        for row in data
    ]
    batches = [{**row, "labels": Y[i, None]} for i, row in enumerate(rows)]
    if wrap == "format":
        data = data.with_format("torch")
    elif wrap == "labels":
        data = data.rename_column("label", "labels")
    elif wrap == "iterable":
        data = data.to_iterable_dataset()
    elif wrap == "peft":
        peft = pytest.importorskip("peft")
        lora = peft.LoraConfig("SEQ_CLS", target_modules=["query"], r=2)
        model = peft.get_peft_model(model, lora)
    expected = merganser.fisher(model, batches, "empirical")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = merganser.fisher(
            model,
            data,
            "empirical",
            collator=DataCollatorWithPadding(tokenizer()),
            batch_size=3,
        )
    assert_fishers_close(result, expected)
    assert result.num_examples == COUNT


def test_data_set_without_collator():
    with pytest.raises(merganser.InputError, match=r"a datasets.Dataset needs a colla"):
        merganser.fisher(tiny_models.bert(), tokenized())
