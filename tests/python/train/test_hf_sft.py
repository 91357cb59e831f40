"""FisherCallback in supervised fine-tuning of language models: prompts without loss,
packed texts, checkpointed layers, bfloat16, accumulation."""

import merganser
import pytest
import torch
from fisher_oracle import assert_fishers_close
from hf_training import SPLITS, define_adam, llama, make_trainer, sentences
from merganser import InputError
from merganser.adamw_fisher import AdamWFisher
from merganser.hf import FisherCallback
from torch.utils.data import default_collate
from transformers import DataCollatorWithFlattening

pytestmark = pytest.mark.usefixtures("quick_collections")

RUNS = {
    "plain": {},
    "accumulated": SPLITS["2x4"],
    "one by one": SPLITS["4x2"],
    "checkpoints": {"gradient_checkpointing": True},
    "bf16": {"bf16": True},
    "all": {"gradient_checkpointing": True, "bf16": True, **SPLITS["2x4"]},
}


def conversations(count):
    """Padded texts; the first third of each, the prompt, has no loss."""
    data = sentences(count)
    for row in data:
        prompt = int(row["attention_mask"].sum()) // 3
        row["labels"][:prompt] = -100
    return data


def unpadded(data):
    """The same texts as lists, for a collator."""
    found = []
    for row in data:
        length = int(row["attention_mask"].sum())
        found.append(
            {name: row[name][:length].tolist() for name in ("input_ids", "labels")}
        )
    return found


def train(folder, data, callback, collator=None, ours=False, **options):
    model = llama()
    optimizer = AdamWFisher(model.parameters(), lr=0.0) if ours else None
    of_trainer = {"data_collator": collator} if collator else {}
    options = {"max_grad_norm": 1e-3, **options}
    make_trainer(
        folder, model, data, [callback], optimizer, of_trainer, **options
    ).train()
    return callback.result


def relative(found, expected):
    away = sum((found[n].double() - f).square().sum() for n, f in expected.items())
    return float((away / sum(f.square().sum() for f in expected.values())).sqrt())


def test_packed_texts_do_not_see_each_other():
    """On which the comparison with single texts below rests."""
    model, data = llama().double().eval(), conversations(4)
    batch = DataCollatorWithFlattening()(unpadded(data))
    packed = model(**batch).logits[0]
    single = [
        model(input_ids=torch.tensor([row["input_ids"]])).logits[0]
        for row in unpadded(data)
    ]
    torch.testing.assert_close(packed, torch.cat(single))


@pytest.mark.slow
@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("run", RUNS)
def test_adam(run, packed, tmp_path):
    """The squared sum of each step's single texts in float64."""
    data = conversations(20)
    expected = define_adam(llama(), data, 8)
    collator = DataCollatorWithFlattening() if packed else None
    given = unpadded(data) if packed else data
    for ours in (False, True):
        callback = FisherCallback()
        found = train(tmp_path, given, callback, collator, ours, **RUNS[run])
        assert found.num_examples == found.num_examples_used == 20
        if RUNS[run].get("bf16"):
            assert relative(found, expected) < 0.05
        else:
            assert_fishers_close(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", ["online_mc", "online_mc_eval"])
@pytest.mark.parametrize("run", ["plain", "checkpoints", "bf16"])
def test_online_mc_of_packed_texts(run, estimator, tmp_path):
    """Draws are keyed by row, the mean is over texts."""
    data = unpadded(conversations(20))
    collator = DataCollatorWithFlattening()
    callback = FisherCallback(estimator, interval=1, seed=3)
    found = train(tmp_path, data, callback, collator, **RUNS[run])
    batches = [
        {**collator(data[i : i + 8]), "index": torch.tensor([i])} for i in (0, 8, 16)
    ]
    half = RUNS[run].get("bf16")  # rounds the probabilities of the draws, too
    model, dtype = (llama(), torch.bfloat16) if half else (llama().double(), None)
    rows = merganser.fisher(model, batches, "mc_batch", seed=3, dtype=dtype)
    expected = {name: f * len(batches) / 20 for name, f in rows.items()}
    assert found.num_examples == found.num_examples_used == 20
    assert_fishers_close(found, expected, 0.02 if half else 1e-5)


@pytest.mark.parametrize("estimator", ["adam", "online_mc", "online_mc_eval"])
@pytest.mark.parametrize("marks", ["position_ids", "seq_idx", "cu_seq_lens_q"])
def test_data_sets_of_packed_texts(marks, estimator, tmp_path):
    """The length of the data set is no number of texts."""

    def collator(rows):
        """4 rows of 2 texts each."""
        return DataCollatorWithFlattening(
            return_position_ids=marks == "position_ids",
            return_seq_idx=marks == "seq_idx",
            return_flash_attn_kwargs=marks == "cu_seq_lens_q",
        )([text for row in rows for text in row])

    texts = unpadded(conversations(16))
    data = list(zip(texts[::2], texts[1::2], strict=True))
    options = {"per_device_train_batch_size": 4}
    message = "4 of its rows gave 8 texts.*pass num_examples"
    with pytest.raises(InputError, match=message):
        train(tmp_path, data, FisherCallback(estimator), collator, **options)
    callback = FisherCallback(estimator, num_examples=16, interval=1)
    found = train(tmp_path, data, callback, collator, **options)
    assert found.num_examples == found.num_examples_used == 16


def test_padding_is_no_packing(tmp_path):
    """Positions of padded texts restart at padding only."""
    data = conversations(8)
    for row in data:
        row["position_ids"] = torch.where(
            row["attention_mask"] == 1, row["attention_mask"].cumsum(0) - 1, 1
        )
    found = train(tmp_path, data, FisherCallback())
    assert found.num_examples_used == 8
    assert_fishers_close(found, define_adam(llama(), data, 8))
    assert default_collate(data)["position_ids"].diff().ne(1).any()
