"""The commands train, fisher and eval of the executable, and their errors."""

import fcntl
import json
import signal
import subprocess
import time

import command
import merganser
import pytest
import sentence_models
import tiny_models
import torch
from merganser import FisherResult
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from training_inputs import make_bert, make_data, make_roberta, write

TRAIN = {"--lr": "3e-3", "--batch-size": "8", "--max-length": "24", "--epochs": "3"}


@pytest.fixture
def folder(tmp_path):
    make_bert(tmp_path / "model")
    make_data(tmp_path / "train.jsonl", 40, seed=1)
    make_data(tmp_path / "dev.tsv", 30, seed=2)
    return tmp_path


def train(folder, *more, **options):
    return command.run(
        "train",
        *("--model", folder / "model"),
        *("--train", folder / "train.jsonl"),
        *("--out", folder / "out"),
        *(word for flag in TRAIN if flag not in more for word in (flag, TRAIN[flag])),
        *more,
        **options,
    )


def assert_refused(done, code, *words):
    """Checks for one sentence on stderr that has the words, and for no results."""
    assert done.returncode == code, done.stderr
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1 and lines[0].startswith("merganser: "), done.stderr
    for word in words:
        assert str(word) in lines[0]
    assert done.stdout == ""


@pytest.mark.slow
def test_a_sentence_encoder_keeps_its_other_modules(tmp_path):
    encoder, out = tmp_path / "encoder", tmp_path / "out"
    sentence_models.sentence_encoder(encoder, 0)
    rows = [{"text": t, "label": i % 2} for i, t in enumerate(sentence_models.TEXTS)]
    data = tmp_path / "train.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ("--num-labels", "2", "--max-length", "16", "--epochs", "3", "-q")
    command.run("train", "--model", encoder, "--train", data, "--out", out, *options)
    before, after = (SentenceTransformer(str(d), device="cpu") for d in (encoder, out))
    pooler, other = (model[0].model.pooler.dense.weight for model in (before, after))
    assert not torch.equal(pooler, other)
    assert torch.equal(before[2].linear.weight, after[2].linear.weight)
    assert before.encode(["cold"]).shape == after.encode(["cold"]).shape


@pytest.mark.slow
def test_train_eval_fisher(folder):
    done = train(folder, "--eval", folder / "dev.tsv", "--quiet", "--json")
    report = json.loads(done.stdout)
    assert done.stderr == ""
    assert report["steps"] == 15
    kept = report["epochs"][report["model_epoch"] - 1]["eval"][0]

    data = ("--data", folder / "dev.tsv", "--max-length", "24")
    done = command.run("eval", "--model", folder / "out", *data, "--json", "-q")
    (row,) = json.loads(done.stdout)
    # Another batch size sums in another order.
    assert row.pop("loss") == pytest.approx(kept.pop("loss"), rel=1e-6)
    assert row == {**kept, "examples": 30}

    fisher = folder / "fisher.safetensors"
    options = ["--estimator", "mc", "--samples", "2", "--limit", "20", "--seed", "4"]
    command.run("fisher", "--model", folder / "out", *data, "--out", fisher, *options)
    saved = FisherResult.load(fisher)
    assert (saved.estimator, saved.samples, saved.seed) == ("mc", 2, 4)
    assert (saved.num_examples, saved.num_examples_used) == (30, 20)


@pytest.mark.slow
def test_text_for_people(folder):
    done = train(folder, "--eval", folder / "dev.tsv", "--fisher", "adam")
    assert "epoch 3: step 15, training loss" in done.stdout
    assert f"{folder / 'dev.tsv'}: accuracy" in done.stdout
    assert f"{folder / 'out'}: model of epoch 3, 15 steps" in done.stdout
    assert "fisher.safetensors" in done.stdout


OPTIONS = {
    "max-steps": 11,
    "lr": 2e-3,
    "batch-size": 3,
    "accumulate": 2,
    "max-length": 20,
    "num-labels": 3,
    "seed": 6,
    "dtype": "bfloat16",
    "scheduler": "cosine",
    "warmup": 3.0,
    "weight-decay": 0.2,
    "beta1": 0.8,
    "beta2": 0.9,
    "epsilon": 1e-6,
    "clip": 0.3,
    "dropout": 0.3,
    "fisher": "online_mc",
    "fisher-interval": 3,
    "fisher-storage": "factored",
}


LINEARIZED = {
    "linearized": True,
    "weight-decay": 0.2,
    "clip": 0.3,
    "seed": 6,
    "max-steps": 7,
    "batch-size": 8,
}


@pytest.mark.slow
def test_linearized_text_and_bits(folder):
    """The flag, its report, and the same bits as from Python."""
    options = {k: v for k, v in LINEARIZED.items() if k != "linearized"}
    flags = [str(x) for name, value in options.items() for x in (f"--{name}", value)]
    done = train(folder, "--linearized", *flags, "--eval", folder / "dev.tsv")
    assert "epoch 2: step 7, training loss" in done.stdout
    assert done.stdout.count("(first-order model)") == 2
    rows = [json.loads(line) for line in (folder / "out/metrics.jsonl").open()]
    assert [row["linearized"] for row in rows if "eval" in row] == [True, True]
    merganser.Trainer(
        folder / "model",
        folder / "train.jsonl",
        folder / "py",
        eval=folder / "dev.tsv",
        lr=float(TRAIN["--lr"]),
        max_length=int(TRAIN["--max-length"]),
        **{name.replace("-", "_"): value for name, value in LINEARIZED.items()},
    ).train()
    for name in ("model.safetensors", "metrics.jsonl"):
        own = (folder / "out" / name).read_bytes()
        assert own == (folder / "py" / name).read_bytes(), name


@pytest.mark.slow
def test_evaluation_of_the_first_order_model(folder):
    """eval --linearized-at gives the numbers of the training, plain eval others."""
    data = ("--data", folder / "dev.tsv", "--max-length", "24", "--batch-size", "8")
    done = train(folder, "--linearized", "--eval", folder / "dev.tsv", "--json")
    report = json.loads(done.stdout)
    kept = report["epochs"][report["model_epoch"] - 1]["eval"][0]
    model = ("eval", "--model", folder / "out", *data, "--json")
    done = command.run(*model, "--linearized-at", folder / "model")
    (row,) = json.loads(done.stdout)
    assert row["accuracy"] == kept["accuracy"]
    assert row["loss"] == pytest.approx(kept["loss"], rel=1e-6)
    (ordinary,) = json.loads(command.run(*model).stdout)
    assert ordinary["loss"] != pytest.approx(kept["loss"], rel=1e-3)


@pytest.mark.slow
def test_first_order_model_of_another_architecture(folder):
    make_roberta(folder / "other")
    data = ("--data", folder / "dev.tsv", "--max-length", "24")
    options = ("--linearized-at", folder / "other")
    done = command.run(
        "eval", "--model", folder / "model", *data, *options, check=False
    )
    words = (folder / "model", "linearized at", "roberta.embeddings.word_embeddings")
    assert_refused(done, 2, *words)


@pytest.mark.slow
def test_linearized_refuses_a_fisher(folder):
    done = train(folder, "--linearized", "--fisher", "adam", check=False)
    assert_refused(done, 2, "collects no Fisher, got adam", "merganser fisher")


@pytest.mark.slow
def test_same_bits_as_from_python(folder):
    flags = [str(x) for name, value in OPTIONS.items() for x in (f"--{name}", value)]
    command.run(
        "train",
        *("--model", folder / "model", "--train", folder / "train.jsonl"),
        *("--out", folder / "cli", *flags),
    )
    options = {name.replace("-", "_"): value for name, value in OPTIONS.items()}
    merganser.Trainer(
        folder / "model", folder / "train.jsonl", folder / "py", **options
    ).train()
    names = sorted(path.name for path in (folder / "cli").iterdir())
    assert "fisher.safetensors" in names
    assert names == sorted(path.name for path in (folder / "py").iterdir())
    for name in names:
        own = (folder / "cli" / name).read_bytes()
        assert own == (folder / "py" / name).read_bytes(), name


@pytest.mark.slow
def test_proximal_from_the_executable(folder):
    """train --proximal reads the output of fisher --out."""
    f0 = folder / "f0.safetensors"
    command.run(
        "fisher",
        *("--model", folder / "model", "--data", folder / "train.jsonl"),
        *("--out", f0, "--max-length", "24"),
    )
    train(folder, "--proximal", f0, "--proximal-weight", "2")
    rows = [json.loads(line) for line in (folder / "out/metrics.jsonl").open()]
    assert rows[0]["penalty"] == 0 < rows[14]["penalty"]
    for options, words in (
        (("--proximal", f0), "f0.safetensors is given twice"),
        (("--proximal-weight", "1e39"), "is beyond the range of float32"),
    ):
        data = ("--train", folder / "train.jsonl", "--out", folder / "wrong")
        done = command.run(
            *("train", "--model", folder / "model", *data),
            *("--proximal", f0, *options, "--max-length", "24"),
            check=False,
        )
        assert done.returncode == 2
        assert words in done.stderr
        assert not (folder / "wrong").exists()


@pytest.mark.slow
def test_proximal_reads_factored_fishers(folder):
    """The penalty is that of the same values in float32."""
    penalties = []
    fisher(folder, "f.safetensors", "--storage", "factored")
    FisherResult.load(folder / "f.safetensors").save(folder / "g.safetensors")
    for name in "fg":
        proximal = ("--proximal", folder / f"{name}.safetensors")
        train(folder, *proximal, "--max-steps", "3")
        (folder / "out").rename(folder / name)
        rows = (folder / name / "metrics.jsonl").read_text().splitlines()
        penalties.append([json.loads(row).get("penalty") for row in rows])
    assert penalties[0] == penalties[1]
    assert penalties[0][2] > 0


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["bfloat16", "factored"])
def test_storage_of_fisher(storage, folder):
    fisher(folder, "float32.safetensors")
    fisher(folder, "compact.safetensors", "--storage", storage)
    FisherResult.load(folder / "float32.safetensors").save(
        folder / "expected.safetensors", storage=storage
    )
    # The same values and metadata; the order of the tensors differs.
    compact, expected = [
        merganser._C.read_checkpoint(folder / f"{name}.safetensors")
        for name in ("compact", "expected")
    ]
    assert sorted(compact[0]) == sorted(expected[0])
    assert compact[1] == expected[1]
    assert compact[1]["storage"] == storage


@pytest.mark.slow
def test_interrupt_leaves_a_checkpoint(folder):
    arguments = [
        *("train", "--model", folder / "model", "--train", folder / "train.jsonl"),
        *("--out", folder / "out", *sum(TRAIN.items(), ()), "--max-steps", "4000"),
    ]
    process = subprocess.Popen(
        [command.executable(), *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    metrics = folder / "out.partial" / "metrics.jsonl"
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 1
    last = [line for line in err.splitlines() if line][-1]
    assert last.startswith("merganser: interrupted after step ")
    assert "to resume" in last
    assert (folder / "out.partial" / "state.safetensors").exists()
    assert not (folder / "out").exists()


@pytest.mark.slow
def test_two_runs_do_not_share_a_folder(folder):
    partial = folder / "out.partial"
    partial.mkdir()
    with open(partial / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = train(folder, "-q", check=False)
        assert_refused(done, 1, partial, "another run")
    train(folder, "-q")


def spoil_label(folder):
    write(folder / "train.jsonl", [("fine", 1), ("dull", 3)])
    return folder / "train.jsonl", ":2:", "3"


def spoil_empty(folder):
    (folder / "train.jsonl").write_text("")
    return (folder / "train.jsonl",)


def spoil_encoding(folder):
    (folder / "train.jsonl").write_bytes(b'{"text": "\xff", "label": 1}\n')
    return folder / "train.jsonl", ":1:"


def spoil_tokenizer(folder):
    (folder / "model" / "vocab.txt").unlink()
    return (folder / "model", "tokenizer")


def spoil_config(folder):
    (folder / "model" / "config.json").unlink()
    return (folder / "model", "config.json")


def spoil_weights(folder):
    path = folder / "model" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    return (path,)


def edit_config(folder, **values):
    path = folder / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder / "model", *values


def spoil_number_of_layers(folder):
    # Larger than memory: must be refused before it is allocated.
    edit_config(folder, num_hidden_layers=10**9)
    return folder / "model", "encoder.layer.999999999."


def spoil_layers_beyond(folder):
    return edit_config(folder, num_hidden_layers=1)[0], "num_hidden_layers"


def spoil_hidden_size(folder):
    edit_config(folder, hidden_size=4 * 10**11)
    return folder / "model", "word_embeddings", "400000000000"


def spoil_vocabulary(folder):
    with open(folder / "model" / "vocab.txt", "a") as file:
        file.writelines(f"more{i}\n" for i in range(1000))
    return folder / "model", "tokenizer", "another model"


def spoil_column(folder):
    path = folder / "train.csv"
    path.write_text("text,lable\nfine,1\n")
    return path, ":1:", "label"


def spoil_out(folder):
    (folder / "out").mkdir()
    (folder / "out" / "mine").touch()
    return (folder / "out", "exists")


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil",
    [
        spoil_label,
        spoil_empty,
        spoil_encoding,
        spoil_tokenizer,
        spoil_config,
        spoil_weights,
        spoil_number_of_layers,
        spoil_layers_beyond,
        spoil_hidden_size,
        spoil_vocabulary,
        spoil_column,
        spoil_out,
    ],
)
def test_bad_input(spoil, folder):
    words = spoil(folder)
    before = sorted(folder.rglob("*"))
    more = ["--train", folder / "train.csv"] if spoil is spoil_column else []
    assert_refused(train(folder, *more, check=False), 2, *words)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--lr", "-1"], ["lr", "-1"]),
        (["--lr", "nan"], ["lr", "nan"]),
        (["--epochs", "0"], ["epochs", "0"]),
        (["--epochs", "1e300"], ["epochs", "1e+300"]),
        (["--max-steps", "0"], ["max-steps", "0"]),
        (["--max-steps", "-5"], ["max-steps", "-5"]),
        (["--max-steps", "9223372036854775807"], ["max-steps"]),
        (["--num-labels", "1000000000000"], ["num-labels"]),
        (["--dropout", "0.9999"], ["dropout", "0.9999"]),
        (["--accumulate", "0"], ["accumulate", "0"]),
        (["--accumulate", "99999999999999999999"], ["accumulate"]),
        (["--batch-size", "0"], ["batch-size"]),
        (["--batch-size", "99999999999999999999"], ["batch-size"]),
        (["--seed", "-1"], ["seed"]),
        (["--num-labels", "1"], ["num-labels", "1"]),
        (["--num-labels", "-3"], ["num-labels", "-3"]),
        (["--max-length", "25"], ["max-length 25", "24"]),
        (["--dropout", "1"], ["dropout", "1"]),
        (["--warmup", "-2"], ["warmup", "-2"]),
        (["--beta1", "1"], ["beta1", "1"]),
        (["--epsilon", "0"], ["epsilon", "0"]),
        (["--num-labels", "5"], ["classifier", "labels"]),
        (["--scheduler", "polynomial"], ["polynomial", "cosine"]),
        (["--fisher", "ivon"], ["ivon", "online_mc"]),
        (["--fisher-storage", "int4"], ["int4", "factored"]),
        (["--dtype", "float16"], ["float16", "bfloat16"]),
        (["--proximal", "nowhere.safetensors"], ["nowhere.safetensors"]),
        (["--eval", "nowhere.csv"], ["nowhere.csv"]),
        (["--momentum", "0.9"], ["--momentum"]),
    ],
)
def test_bad_options(flags, words, folder):
    assert_refused(train(folder, *flags, check=False), 2, *words)
    assert not list(folder.glob("out*"))


@pytest.mark.slow
def test_divergence_is_reported(folder):
    done = train(folder, "--lr", "1e30", "--clip", "0", "-q", check=False)
    assert_refused(done, 1, "at step", "learning rate", folder / "out.partial")
    assert not (folder / "out").exists()


@pytest.mark.slow
def test_divergence_of_the_last_step_is_reported(folder):
    options = ("--lr", "1e39", "--warmup", "0", "--max-steps", "1", "-q")
    assert_refused(train(folder, *options, check=False), 1, "after step 1")
    assert not (folder / "out").exists()


@pytest.mark.slow
def test_a_model_that_is_not_finite_is_not_evaluated(folder):
    path = folder / "model" / "model.safetensors"
    state = load_file(path)
    state["classifier.bias"][0] = float("nan")
    save_file(state, path, {"format": "pt"})
    data = ("--data", folder / "dev.tsv", "--max-length", "24")
    done = command.run("eval", "--model", folder / "model", *data, "-q", check=False)
    assert_refused(done, 2, folder / "model", "tensor classifier.bias", "not finite")


def fisher(folder, out, *more, **options):
    return command.run(
        "fisher",
        *("--model", folder / "model", "--data", folder / "train.jsonl"),
        *("--out", folder / out, "--max-length", "24", "-q", *more),
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("out", "words"),
    [
        ("model/model.safetensors", ["not a Fisher file"]),
        ("train.jsonl", [".safetensors"]),
        ("train.jsonl/f.safetensors", ["train.jsonl"]),
        ("f", [".safetensors"]),
    ],
)
def test_a_fisher_replaces_nothing_but_a_fisher(out, words, folder):
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    assert_refused(fisher(folder, out, check=False), 2, *words)
    assert before == {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_a_fisher_replaces_a_fisher(folder):
    fisher(folder, "new/f.safetensors", "--estimator", "mc", "--seed", "1")
    fisher(folder, "new/f.safetensors", "--estimator", "mc", "--seed", "2")
    assert FisherResult.load(folder / "new" / "f.safetensors").seed == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--limit", "-7"], ["limit", "-7"]),
        (["--limit", "0"], ["limit", "0"]),
        (["--seed", "-1"], ["seed"]),
        (["--estimator", "mc", "--samples", "0"], ["samples", "0"]),
        (["--estimator", "mc", "--samples", "99999999999999999999"], ["samples"]),
        (["--estimator", "exact", "--samples", "2"], ["samples"]),
    ],
)
def test_bad_options_of_fisher(flags, words, folder):
    assert_refused(fisher(folder, "f.safetensors", *flags, check=False), 2, *words)
    assert not (folder / "f.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eval", "fisher"])
def test_interrupt_of_eval_and_fisher(name, folder):
    make_data(folder / "many.jsonl", 20000, seed=3)
    arguments = [
        *(name, "--model", folder / "model", "--data", folder / "many.jsonl"),
        *("--max-length", "24", "--batch-size", "1"),
    ]
    if name == "fisher":
        arguments += ["--out", folder / "f.safetensors", "--estimator", "mc"]
        arguments += ["--samples", "1000000"]
    process = subprocess.Popen(
        [command.executable(), *map(str, arguments)],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert err.splitlines()[-1].startswith("merganser: interrupted")
    assert out == "" and not (folder / "f.safetensors").exists()


@pytest.mark.slow
def test_full_disk_of_fisher(folder):
    done = subprocess.run(
        [
            *("bash", "-c", 'ulimit -f 4; exec "$@"', "bash", command.executable()),
            *("fisher", "--model", folder / "model", "--data", folder / "train.jsonl"),
            *("--max-length", "24", "--out", folder / "f.safetensors", "-q"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert_refused(done, 1, folder / "f.safetensors")
    assert not (folder / "f.safetensors").exists()
    assert not [path for path in folder.rglob("*.tmp")]


@pytest.mark.slow
@pytest.mark.parametrize("limit_kib", [4, 40])
def test_full_disk(folder, limit_kib):
    """Limits file sizes, within a checkpoint and at the end."""
    run = ["bash", "-c", f'ulimit -f {limit_kib}; exec "$@"', "bash"]
    arguments = [
        *("train", "--model", folder / "model", "--train", folder / "train.jsonl"),
        *("--out", folder / "out", "-q", *sum(TRAIN.items(), ())),
    ]
    done = subprocess.run(
        [*run, command.executable(), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert_refused(done, 1, folder / "out")
    assert not (folder / "out").exists()
    assert not [path for path in folder.rglob("*.tmp")]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["eval", "fisher"])
def test_a_model_without_a_head_is_refused(name, tmp_path):
    make_roberta(tmp_path / "model")
    model = tiny_models.roberta()
    model.roberta.save_pretrained(tmp_path / "model")
    make_data(tmp_path / "data.jsonl", 5, seed=1)
    flags = ["--out", tmp_path / "f.safetensors"] if name == "fisher" else []
    done = command.run(
        name,
        *("--model", tmp_path / "model", "--data", tmp_path / "data.jsonl", *flags),
        check=False,
    )
    assert_refused(done, 2, tmp_path / "model", "no classification head")
    assert not (tmp_path / "f.safetensors").exists()


@pytest.mark.parametrize("name", ["eval", "fisher"])
def test_more_tokens_than_positions_are_refused(name, folder):
    flags = ["--out", folder / "f.safetensors"] if name == "fisher" else []
    done = command.run(
        name,
        *("--model", folder / "model", "--data", folder / "dev.tsv", *flags),
        check=False,
    )
    assert_refused(done, 2, "max-length 128", "24 tokens")
