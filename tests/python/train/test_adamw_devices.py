"""AdamW steps of many parameters at once, on every device."""

import pytest
import torch
from merganser import AdamWFisher, ops

STATE = 4  # lists that a step changes: parameters, two moments, Fishers


def make_lists(device="cpu"):
    """Parameters, moments, Fishers and gradients: more than one launch takes, of all
    sizes and dtypes, some at odd addresses. The same values on every call."""
    generator = torch.Generator().manual_seed(3)
    lists = [[] for _ in range(STATE + 1)]
    for k in range(150):
        size = (0, 1, 3, 255, 4097)[k % 5] + k
        dtype = torch.float64 if k % 7 == 6 else torch.float32
        for which, tensors in enumerate(lists):
            x = torch.rand(size + 1, generator=generator, dtype=dtype)
            if which == STATE and dtype == torch.float32:
                x = x.to((torch.float32, torch.bfloat16, torch.float16)[k % 3])
            tensors.append(x.to(device)[k % 2 :])
    return lists


def step(lists, first=0, last=None):
    params, exp_avgs, exp_avg_sqs, fishers, grads = (x[first:last] for x in lists)
    steps = list(range(1, 1 + len(lists[0])))[first:last]
    ops.adam_fisher_step_(
        params,
        grads,
        exp_avgs,
        exp_avg_sqs,
        fishers,
        steps=steps,
        lr=0.01,
        weight_decay=0.1,
        grad_scale=0.5,
        fisher_weight=4,
    )
    return lists


def assert_same_bits(lists, expected):
    for found, wanted in zip(lists[:STATE], expected[:STATE], strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0)


def test_a_list_is_stepped_as_each_of_its_parameters(device):
    one_by_one = make_lists(device)
    for k in range(len(one_by_one[0])):
        step(one_by_one, k, k + 1)
    assert_same_bits(step(make_lists(device)), one_by_one)


@pytest.mark.cuda
def test_cuda_lists_have_the_bits_of_the_cpu():
    on_gpu = [[x.cpu() for x in tensors] for tensors in step(make_lists("cuda"))]
    assert_same_bits(on_gpu, step(make_lists()))


def test_lists_without_data_are_checked():
    lists = make_lists("meta")
    step(lists)
    missing = r"expected one of grads per parameter \(150\)"
    with pytest.raises(RuntimeError, match=missing):
        step([*lists[:STATE], lists[STATE][1:]])
    with pytest.raises(RuntimeError, match="params must be on meta"):
        step([[lists[0][0], *make_lists()[0][1:]], *lists[1:]])


def test_the_optimizer_is_torchs(device):
    shapes = [(7, 5), (), (130, 257), *[(11,)] * 60]
    dtypes = [
        torch.float64 if k % 5 == 4 else torch.float32 for k in range(len(shapes))
    ]
    courses = [[], []]
    for shape, dtype in zip(shapes, dtypes, strict=True):
        start = torch.randn(shape, dtype=dtype, device=device)
        for course in courses:
            course.append(torch.nn.Parameter(start.clone()))
    options = {"lr": 2e-3, "weight_decay": 0.1}
    peer = torch.optim.AdamW(courses[0], foreach=False, **options)
    ours = AdamWFisher(
        [(f"p{k}", p) for k, p in enumerate(courses[1])], max_grad_norm=1, **options
    )
    ours.batch_size = 4
    sums = [torch.zeros_like(p, requires_grad=False) for p in courses[0]]
    for _ in range(10):
        for total, *pair in zip(sums, *courses, strict=True):
            gradient = torch.randn_like(total)
            total += (4 * gradient).square() / 40
            for p in pair:
                p.grad = gradient.clone()
        torch.nn.utils.clip_grad_norm_(courses[0], 1)
        peer.step()
        ours.step()
    torch.testing.assert_close(courses[1], courses[0])
    torch.testing.assert_close(list(ours.fisher(40).diagonal.values()), sums)
