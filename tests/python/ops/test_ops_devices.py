"""The operators where devices may differ: alignment, non-finite values, repeated runs,
streams, CUDA graphs, a second GPU, very long tensors."""

import math
import subprocess
import sys

import pytest
import torch
from merganser import ops

SIZE = 4099  # elementwise: whole packs of 16 bytes, and a remainder
ELEMENTWISE = ("square_accumulate_", "adam_fisher_step_", "merge", "dropout")
# Both devices share their formulas; each operation is rounded once.
SAME_BITS = (*ELEMENTWISE, "sample_labels")
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
# Includes rows of whole packs, which are read as packs if aligned (test_ops.py has
# other rows), and more tokens than a slice or a ballot holds.
SHAPES = {
    "square_accumulate_": [(SIZE,)] * 2,
    "adam_fisher_step_": [(SIZE,)] * 5,
    "merge": [(SIZE,)] * 6,
    "linear_square_accumulate_": [(136, 40), (3, 37, 40), (3, 37, 136)],
    "bias_square_accumulate_": [(72,), (3, 37, 72)],
    "layer_norm_square_accumulate_": [(72,), (3, 37, 72), (3, 37, 72)],
    "embedding_square_accumulate_": [(9, 72), (3, 37, 72)],
    "sample_labels": [(300, 7)],
    "dropout": [(SIZE,)],
}
PER_EXAMPLE = [name for name in SHAPES if "_square_accumulate_" in name]
# Inputs that are float32 next to halves: accumulators (mostly the first), Fishers.
SUMS = {name: {0} for name in SHAPES} | {
    "square_accumulate_": {0},
    "adam_fisher_step_": {0, 2, 3, 4},
    "merge": {1, 3, 5},
    "dropout": set(),
}


def make_inputs(name, dtype=torch.float32):
    """The operator's inputs on the CPU, the same positive values on every call."""
    generator = torch.Generator().manual_seed(7)
    return [
        torch.rand(shape, generator=generator).to(
            torch.float32 if k in SUMS[name] and dtype.itemsize < 4 else dtype
        )
        for k, shape in enumerate(SHAPES[name])
    ]


def place(tensors, device, offsets=(0,)):
    """Copies `offset` elements after an aligned address; the offsets alternate."""
    placed = []
    for k, tensor in enumerate(tensors):
        offset = offsets[k % len(offsets)]
        storage = torch.empty(
            tensor.numel() + offset, dtype=tensor.dtype, device=device
        )
        placed.append(storage[offset:].view(tensor.shape).copy_(tensor))
    return placed


def run(name, tensors):
    """Returns what the operator writes or returns."""
    first, *rest = tensors
    device = first.device
    if name == "merge":
        base_fisher, fishers = rest[0], [rest[2], rest[4]]
        options = {"base_fisher": base_fisher, "scales": [20.0, 30.0]}
        options["rhos"] = [0.5, 0.25]
        return [
            ops.merge(
                first,
                [rest[1], rest[3]],
                fishers,
                method="gradient_matching",
                **options,
            )
        ]
    if name == "dropout":
        return [ops.dropout(first, 0.3, seed=2)]
    if name == "sample_labels":
        rows = torch.arange(len(first), device=device)
        return [ops.sample_labels(first / first.sum(-1, keepdim=True), rows, seed=5)]
    if name == "adam_fisher_step_":
        ops.adam_fisher_step_(
            *([x] for x in tensors), steps=[3], lr=0.01, weight_decay=0.1
        )
        return [first, *rest[1:]]
    if name == "embedding_square_accumulate_":
        shape = rest[0].shape[:2]
        ids = (torch.arange(shape.numel(), device=device) * 5 % 9).view(shape)
        ops.embedding_square_accumulate_(first, ids, *rest)
    else:
        getattr(ops, name)(*tensors)
    return [first]


def same_bits(actual, expected):
    torch.testing.assert_close(actual, expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_alignment_changes_nothing(device, name, dtype):
    given = make_inputs(name, dtype)
    expected = run(name, place(given, device))
    for offsets in ((1,), (2,), (3,), (4,), (0, 1), (1, 0), (8, 4, 2)):
        actual = run(name, place(given, device, offsets))
        if name in SAME_BITS:
            same_bits(actual, expected)
        else:
            torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_strides_change_nothing(device, name, dtype):
    given = make_inputs(name, dtype)
    expected = run(name, place(given, device))
    tensors = place(given, device)
    for k, tensor in enumerate(tensors):
        if k not in SUMS[name] or name in ("merge", "sample_labels"):
            wide = torch.stack([tensor, tensor + 1], dim=-1)
            tensors[k] = wide.select(-1, 0)
    same_bits(run(name, tensors), expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place_of_value", [0, 2050, SIZE - 1])
@pytest.mark.parametrize("name", ELEMENTWISE)
def test_what_is_not_finite_stays_where_it_is(device, name, place_of_value, value):
    given = make_inputs(name)
    gradient_or_model = 0 if name == "dropout" else 1 if name != "merge" else 2
    given[gradient_or_model][place_of_value] = value
    for written in run(name, place(given, device)):
        finite = written.isfinite()
        assert finite[:place_of_value].all() and finite[place_of_value + 1 :].all()
        # Dropout may have dropped it.
        assert not finite[place_of_value] or (
            name == "dropout" and written[place_of_value] == 0
        )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_what_is_not_finite_stays_in_its_channel(device, name, value):
    given = make_inputs(name)
    given[-1][1, 4, 33] = value  # gradient: example, token, channel
    (written,) = run(name, place(given, device))
    expected = torch.ones_like(written, dtype=torch.bool)
    if name == "embedding_square_accumulate_":
        expected[(37 + 4) * 5 % 9, 33] = False
    else:
        expected[33] = False
    assert torch.equal(written.isfinite(), expected)


@pytest.mark.parametrize("examples,tokens", [(0, 3), (3, 0)])
@pytest.mark.parametrize("name", PER_EXAMPLE)
def test_an_empty_batch_changes_nothing(device, name, examples, tokens):
    fisher, *inputs = make_inputs(name)
    empty = [x.new_empty(examples, tokens, x.shape[-1]) for x in inputs]
    (written,) = run(name, place([fisher, *empty], device))
    same_bits(written.cpu(), fisher)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_every_run_has_the_same_bits(device, name, dtype):
    given = make_inputs(name, dtype)
    expected = run(name, place(given, device))
    for _ in range(5):
        same_bits(run(name, place(given, device)), expected)


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", SHAPES)
def test_cuda_agrees_with_the_cpu(name, dtype):
    given = make_inputs(name, dtype)
    expected = run(name, place(given, "cpu"))
    found = [x.cpu() for x in run(name, place(given, "cuda"))]
    if name in SAME_BITS:
        same_bits(found, expected)
    else:  # sums have another order
        relative = 1e-12 if dtype == torch.float64 else 1e-5
        torch.testing.assert_close(found, expected, rtol=relative, atol=relative)


@pytest.mark.cuda
@pytest.mark.parametrize("name", SHAPES)
def test_cuda_runs_on_the_stream_of_the_caller(name):
    """Waits for inputs that are late on a side stream."""
    given = place(make_inputs(name), "cuda")
    expected = run(name, [x.clone() for x in given])
    late = [torch.ones_like(x) for x in given]
    run(name, [x.clone() for x in late])  # one-time setup
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(20_000_000)
        for target, source in zip(late, given, strict=True):
            target.copy_(source)
        actual = [x.clone() for x in run(name, late)]
    torch.cuda.synchronize()
    same_bits(actual, expected)


@pytest.mark.cuda
@pytest.mark.parametrize("name", SHAPES)
def test_cuda_graphs_replay(name):
    given = place(make_inputs(name), "cuda")
    expected = run(name, [x.clone() for x in given])
    inputs = [torch.ones_like(x) for x in given]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run(name, inputs)  # one-time setup
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = run(name, inputs)
    for _ in range(2):
        for target, source in zip(inputs, given, strict=True):
            target.copy_(source)
        graph.replay()
        same_bits(outputs, expected)


@pytest.mark.cuda
@pytest.mark.parametrize("tokens", [1, 5])
def test_cuda_products_are_of_float32(tokens):
    x, d = torch.rand(64, tokens, 48), torch.rand(64, tokens, 40)
    expected, found = torch.zeros(40, 48), torch.zeros(40, 48, device="cuda")
    ops.linear_square_accumulate_(expected, x, d)
    allowed = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")  # TF32
    try:
        ops.linear_square_accumulate_(found, x.cuda(), d.cuda())
    finally:
        torch.set_float32_matmul_precision(allowed)
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=0)


@pytest.mark.cuda
@pytest.mark.parametrize(
    "call",
    [
        "sample_labels(torch.ones(2, 3).cuda(), torch.arange(2).cuda(), seed=1)",
        "embedding_square_accumulate_(torch.ones(2, 3).cuda(), "
        "torch.tensor([[2]]).cuda(), torch.ones(1, 1, 3).cuda())",
    ],
)
def test_cuda_stops_at_values_that_are_refused(call):
    """Needs its own process, whose GPU context is unusable afterwards."""
    script = (
        f"import torch; from merganser.ops import *; {call}; torch.cuda.synchronize()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True
    )
    assert done.returncode != 0 and "CUDA error" in done.stderr


@pytest.mark.two_gpus
@pytest.mark.parametrize("name", SHAPES)
def test_cuda_runs_where_the_tensors_are(name):
    given = make_inputs(name)
    expected = run(name, place(given, "cuda:0"))
    actual = run(name, place(given, "cuda:1"))
    assert torch.cuda.current_device() == 0
    assert all(x.device.index == 1 for x in actual)
    same_bits([x.cpu() for x in actual], [x.cpu() for x in expected])


@pytest.mark.cuda
def test_cuda_counts_beyond_32_bits():
    if torch.cuda.mem_get_info()[0] < 20e9:
        pytest.skip("needs 20 GB of a GPU's memory")
    n = 2**31 + 5
    fisher = torch.ones(n, device="cuda")
    grad = torch.full((n,), 2, dtype=torch.bfloat16, device="cuda")
    ops.square_accumulate_(fisher, grad)
    assert fisher.eq(5).all()
    del fisher
    assert ops.merge(None, [grad, grad], method="linear").eq(4).all()
    kept = ops.dropout(grad, 0.5, seed=1).ne(0)
    assert abs(kept[-(2**20) :].float().mean().item() - 0.5) < 0.01
    del grad, kept
    tokens = width = 2**15
    d = torch.full((2, tokens + 1, width), 2, dtype=torch.bfloat16, device="cuda")
    bias, table, weight = (
        torch.zeros(s, device="cuda") for s in [(width,), (1, width), (width, 1)]
    )
    ops.bias_square_accumulate_(bias, d)
    ops.embedding_square_accumulate_(table, torch.zeros_like(d[..., 0]).long(), d)
    ops.linear_square_accumulate_(weight, torch.ones_like(d[..., :1]), d)
    for written in (bias, table, weight):
        expected = torch.full_like(written, 2 * (2 * (tokens + 1)) ** 2)
        torch.testing.assert_close(written, expected)
