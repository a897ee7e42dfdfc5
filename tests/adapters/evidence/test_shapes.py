"""What functions of torch return, by shape alone."""

from __future__ import annotations

import operator
import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from polycode_plugins.adapters.evidence.shapes import ANSWERS, Shapes


def empty(*shape, dtype=None):
    return torch.empty(shape, device="meta", dtype=dtype)


def moved(values):
    """With other axes first in memory."""
    return values.transpose(0, -1).contiguous().transpose(0, -1)


def attention(query, key, value, **named):
    return functional.scaled_dot_product_attention(query, key, value, **named)


HEADS, SHARED = empty(2, 4, 5, 8), empty(2, 2, 5, 8)
LATER = empty(2, 4, 7, 8)

#: A function and its arguments: all of these are answered without torch.
ANSWERED = {
    "batch norm": (nn.BatchNorm2d(4), moved(empty(2, 4, 5, 3))),
    "batch norm without weights": (nn.BatchNorm1d(4, affine=False), moved(empty(2, 4))),
    "layer norm": (nn.LayerNorm((5, 3)), moved(empty(2, 4, 5, 3))),
    "gelu": (nn.GELU(), moved(empty(2, 3))),
    "silu": (nn.SiLU(), moved(empty(2, 3))),
    "relu": (nn.ReLU(), moved(empty(2, 4, 3))),
    "relu in place": (nn.ReLU(inplace=True), moved(empty(2, 3))),
    "hardswish": (nn.Hardswish(inplace=True), moved(empty(2, 3))),
    "hardsigmoid": (nn.Hardsigmoid(), moved(empty(2, 3))),
    "relu6": (nn.ReLU6(), moved(empty(2, 3))),
    "rsqrt": (torch.rsqrt, moved(empty(2, 3))),
    "tanh": (torch.tanh, moved(empty(2, 3))),
    "sigmoid": (torch.sigmoid, empty(2, 1, 3).expand(2, 4, 3)),
    "negative": (operator.neg, moved(empty(2, 3))),
    "sum": (operator.add, empty(2, 4, 3), empty(2, 4, 3)),
    "sum with what is spread": (operator.add, moved(empty(2, 4, 3)), empty(4, 3)),
    "sum with rows": (operator.add, empty(2, 4, 3), empty(2, 1, 3)),
    "sum with columns": (operator.add, empty(2, 4, 3)[..., :2], empty(4, 1)),
    "product with what is larger": (operator.mul, empty(3), empty(2, 4, 3)),
    "sum with a number": (operator.add, 1, moved(empty(2, 4, 3))),
    "difference": (operator.sub, empty(2, 3), 0.5),
    "product": (operator.mul, empty(2, 3), empty(2, 3)),
    "product with a number": (operator.mul, 0.5, empty(2, 1, 3).expand(2, 4, 3)),
    "quotient": (operator.truediv, empty(2, 3), 8),
    "square": (operator.pow, moved(empty(2, 3)), 2),
    "cube": (torch.pow, empty(2, 3), 3.0),
    "map": (nn.Linear(3, 6), empty(2, 4, 3)),
    "map without bias": (nn.Linear(3, 6, bias=False), empty(2, 3)),
    "product of matrices": (torch.addmm, empty(6), empty(4, 3), empty(3, 6)),
    "attention": (attention, HEADS, HEADS, HEADS),
    "attention to others": (attention, HEADS, LATER, LATER),
    "attention to a narrower stream": (attention, HEADS, LATER, empty(2, 4, 7, 3)),
}
NAMED = {
    "masked attention": (attention, HEADS, LATER, LATER, {"attn_mask": empty(2, 1, 1, 7)}),
    "causal attention": (attention, HEADS, HEADS, HEADS, {"is_causal": True}),
    "mean that stays": (Tensor.mean, empty(2, 4, 3), -1, {"keepdim": True}),
    "attention of groups": (attention, HEADS, SHARED, SHARED, {"enable_gqa": True}),
}
CASES = {k: (*v, {}) for k, v in ANSWERED.items()} | NAMED


class Asking(TorchFunctionMode):
    """Notes which functions torch itself was asked."""

    def __init__(self):
        super().__init__()
        self.asked = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.asked.append(func)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", CASES)
def test_shapes_are_those_of_torch(name, dtype):
    function, *args, named = CASES[name]
    args = [v.to(dtype) if isinstance(v, Tensor) else v for v in args]
    named = {k: v.to(dtype) if isinstance(v, Tensor) else v for k, v in named.items()}
    if isinstance(function, nn.Module):
        function = function.to("meta", dtype).eval()
    with torch.no_grad(), Asking() as mode, Shapes():
        found = function(*args, **named)
    assert not set(mode.asked) & set(ANSWERS)
    expected = function(*args, **named)
    assert (found.shape, found.dtype, found.device) == (expected.shape, dtype, expected.device)
    assert found.stride() == expected.stride()


def test_attention_lies_in_memory_as_a_processor_leaves_it():
    def strides(device):
        rows = torch.zeros(2, 5, 4, 8, device=device).transpose(1, 2)
        return attention(rows, rows, rows, is_causal=True).stride()

    with torch.no_grad(), Shapes():
        assert strides("meta") == strides("cpu") == (160, 8, 32, 1)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (operator.add, (empty(2, 1, 3), empty(3))),
        (operator.add, (empty(2, 3), empty(4, 2, 1))),
        (operator.add, (empty(1, 3).expand(2, 3), empty(3))),
        (operator.mul, (empty(3), moved(empty(2, 3)))),
        (Tensor.mean, (empty(2, 4, 3), -1)),
        (Tensor.mean, (moved(empty(2, 4, 3)), -1, True)),
        (operator.add, (empty(2, 3), moved(empty(2, 3)))),
        (operator.mul, (empty(2, 3, dtype=torch.float16), empty(2, 3))),
        (operator.mul, (empty(2, 3), 1j)),
        (functional.linear, (moved(empty(2, 4, 3)), empty(6, 3))),
        (functional.linear, (empty(3), empty(6, 3))),
        (torch.addmm, (empty(4, 6), empty(4, 3), empty(3, 6))),
        (torch.addmm, (empty(6), moved(empty(4, 3)), empty(3, 6))),
        (attention, (empty(4, 5, 8), empty(4, 5, 8), empty(4, 5, 8))),
    ],
)
def test_other_layouts_are_left_to_torch(function, args):
    expected = function(*args)
    with torch.no_grad(), Asking() as mode, Shapes():
        found = function(*args)
    assert set(mode.asked) & set(ANSWERS)
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    assert found.stride() == expected.stride()


@pytest.mark.parametrize(
    ("function", "args", "named"),
    [
        (functional.linear, (empty(2, 5), empty(6, 3)), {}),
        (functional.linear, (empty(2, 3), empty(6, 3), empty(5)), {}),
        (torch.addmm, (empty(6), empty(4, 5), empty(3, 6)), {}),
        (torch.addmm, (empty(5), empty(4, 3), empty(3, 6)), {}),
        (operator.add, (empty(2, 3), empty(2, 4)), {}),
        (attention, (HEADS, SHARED, SHARED), {}),
        (attention, (HEADS, empty(2, 4, 5, 6), HEADS), {}),
        (attention, (HEADS, LATER, HEADS), {}),
        (attention, (HEADS, empty(3, 4, 5, 8), empty(3, 4, 5, 8)), {}),
        (attention, (HEADS, HEADS, HEADS), {"attn_mask": empty(2, 1, 5, 7)}),
        (attention, (HEADS, empty(2, 3, 5, 8), empty(2, 3, 5, 8)), {"enable_gqa": True}),
    ],
)
def test_what_does_not_fit_is_refused_as_by_torch(function, args, named):
    with pytest.raises(RuntimeError):
        function(*args, **named)
    with pytest.raises(RuntimeError), Shapes():
        function(*args, **named)


def test_norms_that_do_not_fit_are_refused_as_by_torch():
    batch, layer = nn.BatchNorm1d(4).to("meta").eval(), nn.LayerNorm(4).to("meta")
    for module in (batch, layer):
        with pytest.raises(RuntimeError), Shapes():
            module(empty(2, 5))
    with pytest.raises(ValueError, match="more than 1 value per channel"), Shapes():
        batch.train()(empty(1, 4))


def test_values_are_computed():
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4), nn.GELU()).eval()
    values = torch.randn(3, 4)
    with Shapes():
        found = 2 * nn.functional.gelu(input=model[1](model[0](values)))
    assert torch.equal(found, 2 * model(values))


def test_whatever_lies_in_whatever_order_is_as_torch_lays_it():
    draw = random.Random(0)

    def drawn(shape):
        """Of a shape, its axes in any order in memory, a part of something larger or repeated."""
        order = draw.sample(range(len(shape)), len(shape))
        larger = draw.choice([0, 2])
        held = empty(*(shape[i] + larger for i in order)).permute(
            [order.index(i) for i in range(len(shape))]
        )
        held = held[tuple(slice(0, n) for n in shape)]
        return empty(*(1 for _ in shape)).expand(shape) if draw.random() < 0.1 else held

    answered = 0
    for _ in range(400):
        shape = [draw.choice([1, 2, 3, 5]) for _ in range(draw.randint(1, 4))]
        other = [n if draw.random() < 0.6 else 1 for n in shape][draw.randint(0, len(shape)) :]
        pair = [drawn(shape), drawn(other)]
        draw.shuffle(pair)
        with torch.no_grad(), Asking() as mode, Shapes():
            found = operator.add(*pair)
        answered += Tensor.add not in mode.asked
        expected = operator.add(*pair)
        assert (found.shape, found.stride()) == (expected.shape, expected.stride())
    assert 50 < answered < 350
