"""The nonlinearity behind a site is proven by what the sites hold, or none is named."""

from __future__ import annotations

import pytest
import torch

from polycode_plugins.explainers.units.nonlinearities import (
    FUNCTIONS,
    Nonlinearity,
    nonlinearity_of,
)


@pytest.fixture
def inputs():
    g = torch.Generator().manual_seed(0)
    return {name: 2 * torch.randn(200, 6, generator=g) for name in ("near", "far", "other")}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("function", ["relu", "silu", "tanh", "gelu", "leaky_relu", "relu_squared"])
def test_a_function_of_one_input_is_found_with_that_input(inputs, function, dtype):
    held = {name: x.to(dtype) for name, x in inputs.items()}
    made = FUNCTIONS[function](held["far"].float()).to(dtype)
    found = nonlinearity_of(made, held)
    assert found.inputs == ("far",)
    assert (found.function == function) or dtype == torch.bfloat16
    assert found([held["far"].float()]).allclose(made.float(), rtol=0.01, atol=0.01)


def test_the_two_forms_of_gelu_are_told_apart_in_float32(inputs):
    for function in ("gelu", "gelu_tanh"):
        assert nonlinearity_of(FUNCTIONS[function](inputs["near"]), inputs).function == function


def test_a_gated_layer_has_two_inputs_in_order(inputs):
    made = FUNCTIONS["silu"](inputs["far"]) * inputs["near"]
    assert nonlinearity_of(made, inputs) == Nonlinearity("silu", ("far", "near"))


def test_what_no_function_gives_has_no_nonlinearity(inputs):
    product = inputs["near"] @ torch.randn(6, 6)
    assert nonlinearity_of(product, inputs) is None
    assert nonlinearity_of(inputs["near"], inputs) is None  # the same tensor under another name
    assert nonlinearity_of(torch.zeros(200, 6), inputs) is None
    narrow = {"near": inputs["near"][:, :3]}
    assert nonlinearity_of(torch.relu(inputs["near"]), narrow) is None
    off = torch.relu(inputs["near"])
    off[7, 3] += 0.1  # one value of 1,200
    assert nonlinearity_of(off, inputs) is None
