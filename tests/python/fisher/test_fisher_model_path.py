"""model_path: its hash vouches for a model that has its tensors, and for no other."""

import merganser
import pytest
import tiny_models
import torch
import transformers as tf
from hf_training import bert, examples, make_trainer
from merganser import InputError
from merganser.hf import FisherCallback
from safetensors.torch import load_file, save_file
from torch import nn

X = torch.linspace(0, 9, 24).sin().view(6, 4)
Y = torch.arange(6).remainder(3)
DATA = [(X, Y)]


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.norm = nn.BatchNorm1d(4)
        self.second = nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.second(self.norm(self.first(x))).tanh())


def stored(model, path, change=lambda state: None, dtype=None):
    """Saves the model as safetensors.torch.save_model does: a tie has one name."""
    state = {name: x.clone() for name, x in model.state_dict().items()}
    del state["second.weight"]
    change(state)
    floats = {n: x.to(dtype) for n, x in state.items() if x.is_floating_point()}
    save_file(state | floats if dtype else state, path)
    return path


def with_fisher(model, path):
    return merganser.fisher(model, DATA, model_path=path)


def with_gram(model, path):
    return merganser.gram(model, DATA, model_path=path)


def with_adamw(model, path):
    optimizer = merganser.AdamWFisher(model.named_parameters(), lr=0.0)
    nn.functional.cross_entropy(model.eval()(X), Y).backward()
    optimizer.batch_size = 6
    optimizer.step()
    return optimizer.fisher(6, model_path=path)


ESTIMATES = [with_fisher, with_gram, with_adamw]


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize("dtype", [None, torch.bfloat16, torch.float16, torch.float64])
def test_the_model_in_any_dtype(estimate, dtype, tmp_path):
    model = Model()
    path = stored(model, tmp_path / "m.safetensors", dtype=dtype)
    result = estimate(model, path)
    assert result.base_model_hash == merganser.inspect(path)["content_hash"]
    assert set(result) <= set(load_file(path))


def rounded(model):
    """A float32 model read from a file in bfloat16."""
    return model.bfloat16().float()


@pytest.mark.parametrize("estimate", ESTIMATES)
def test_a_model_read_from_a_narrower_file(estimate, tmp_path):
    model = rounded(Model())
    path = stored(model, tmp_path / "m.safetensors", dtype=torch.bfloat16)
    assert estimate(model, path).base_model_hash


def one_value(state):
    state["head.weight"][2, 3] += 1e-6


def another_shape(state):
    state["head.weight"] = state["head.weight"].t().contiguous()


def absent(state):
    del state["head.bias"]


@pytest.mark.parametrize("estimate", ESTIMATES)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (one_value, "tensor 'head.weight' differs from the model's; pass"),
        (another_shape, "tensor 'head.weight' differs from the model's; pass"),
        (absent, "lacks tensors of the model: 'head.bias'; pass"),
    ],
)
def test_another_model_is_refused(estimate, change, message, tmp_path):
    model = Model()
    path = stored(model, tmp_path / "m.safetensors", change)
    with pytest.raises(InputError, match=message):
        estimate(model, path)


@pytest.mark.parametrize("estimate", [with_fisher, with_gram])
def test_buffers(estimate, tmp_path):
    """They also change the outputs; an optimizer has none."""

    def moved(state):
        state["norm.running_mean"] += 1

    model = Model()
    path = stored(model, tmp_path / "m.safetensors", moved)
    with pytest.raises(InputError, match="'norm.running_mean' differs"):
        estimate(model, path)
    path = stored(model, path, lambda state: state.pop("norm.running_mean"))
    assert estimate(model, path).base_model_hash


def test_a_tie_has_the_name_of_the_file(tmp_path):
    def renamed(state):
        state["second.weight"] = state.pop("first.weight")

    model = Model()
    path = stored(model, tmp_path / "m.safetensors", renamed)
    expected = merganser.fisher(model, DATA)
    found = with_fisher(model, path)
    assert torch.equal(found["second.weight"], expected["first.weight"])
    assert "first.weight" not in found


def test_shards_and_old_names(tmp_path):
    """BERT's files had LayerNorm.gamma and .beta."""
    model = tiny_models.bert()
    batches = [tiny_models.batch([3, 5])]
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    assert merganser.fisher(model, batches, model_path=tmp_path).base_model_hash
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): x.clone()
        for name, x in model.state_dict().items()
    }
    path = tmp_path / "old.safetensors"
    save_file(old, path)
    assert merganser.fisher(model, batches, model_path=path).base_model_hash
    old["bert.embeddings.LayerNorm.gamma"] += 1
    save_file(old, path)
    with pytest.raises(InputError, match="'bert.embeddings.LayerNorm.weight' differs"):
        merganser.fisher(model, batches, model_path=path)


@pytest.mark.filterwarnings("ignore:.*single example")
@pytest.mark.parametrize("read", [True, False])
def test_experts_that_are_fused_in_memory(read, tmp_path):
    """transformers stacks the experts' weights as it reads a file: w1 and w3 in
    gate_up_proj, w2 in down_proj."""
    model = tf.MixtralForCausalLM(
        tf.MixtralConfig(
            vocab_size=20,
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            num_local_experts=2,
            head_dim=4,
        )
    )
    model.save_pretrained(tmp_path)
    if read:
        model = tf.MixtralForCausalLM.from_pretrained(tmp_path)
    ids = torch.randint(3, 20, (2, 5))
    data = [{"input_ids": ids, "labels": ids}]
    memory = merganser.fisher(model, data, "empirical")
    found = merganser.fisher(model, data, "empirical", model_path=tmp_path)
    files = load_file(tmp_path / "model.safetensors")
    assert {n: f.shape for n, f in found.items()} == {
        n: x.shape for n, x in files.items()
    }
    experts = "model.layers.0.mlp.experts."
    for i in range(2):
        of_file = [
            found[f"model.layers.0.block_sparse_moe.experts.{i}.w{k}.weight"]
            for k in (1, 3, 2)
        ]
        gate_up, down = (
            memory[f"{experts}{name}_proj"][i] for name in ("gate_up", "down")
        )
        assert torch.equal(torch.cat(of_file[:2]), gate_up)
        assert torch.equal(of_file[2], down)
    same = found.keys() & memory.keys()
    assert len(same) == len(memory) - 3  # the experts and the router
    assert all(torch.equal(found[name], memory[name]) for name in same)


@pytest.mark.slow
def test_the_last_checkpoint_of_a_trainer(tmp_path):
    model, callback = bert(), FisherCallback()
    options = {"save_strategy": "steps", "save_steps": 1}
    make_trainer(tmp_path, model, examples(8), [callback], **options).train()
    expected = merganser.inspect(tmp_path / "checkpoint-1")["content_hash"]
    assert callback.result.base_model_hash == expected


class OtherFile(tf.TrainerCallback):
    """Changes the checkpoint after it was written."""

    def on_save(self, args, state, control, **_):
        path = f"{args.output_dir}/checkpoint-{state.global_step}/model.safetensors"
        save_file({n: x + 1 for n, x in load_file(path).items()}, path)


@pytest.mark.slow
def test_a_checkpoint_of_another_model(tmp_path):
    """The training succeeded: its Fisher is kept, without a hash."""
    callback = FisherCallback()
    options = {"save_strategy": "steps", "save_steps": 1}
    callbacks = [callback, OtherFile()]
    with pytest.warns(UserWarning, match="gets no hash of its model: .*differs"):
        make_trainer(tmp_path, bert(), examples(8), callbacks, **options).train()
    assert callback.result.base_model_hash == ""
