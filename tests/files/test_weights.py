"""The fingerprint of a model sees every weight, and nothing but weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from polycode_plugins.files.weights import (
    fingerprint,
    format_of,
    identified,
    parameter_count,
)


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(16, 64), nn.BatchNorm1d(64), nn.Linear(64, 16))


def test_every_single_weight_counts():
    model = network()
    whole = fingerprint(model)
    for parameter in model.parameters():
        flat = parameter.data.view(-1)
        for place in range(0, flat.numel(), 37):
            before = float(flat[place])
            flat[place] = before + 1e-3
            assert fingerprint(model) != whole
            flat[place] = before
    assert fingerprint(model) == whole


@pytest.mark.parametrize(
    "edit",
    [
        lambda m: m[0].weight.neg_(),
        lambda m: m[0].weight[0].neg_(),
        lambda m: m[0].weight.copy_(m[0].weight.flip(0)),
        lambda m: m[0].weight[:2].copy_(m[0].weight[:2].flip(0).clone()),
        lambda m: m[1].running_mean.add_(1e-6),
        lambda m: m[1].num_batches_tracked.add_(1),
    ],
    ids=["signs", "signs of a row", "order", "two rows change places", "buffer", "count"],
)
def test_edits_that_sums_would_not_see(edit):
    model = network()
    whole = fingerprint(model)
    with torch.no_grad():
        edit(model)
    assert fingerprint(model) != whole


def test_names_shapes_and_number_formats_count():
    model = network()
    whole = fingerprint(model)
    assert fingerprint(copy.deepcopy(model).double()) != whole
    renamed = nn.ModuleDict(dict(zip("abc", copy.deepcopy(model), strict=True)))
    assert fingerprint(renamed) != whole


def test_the_order_in_memory_does_not_count():
    one, other = nn.Linear(30, 20), nn.Linear(30, 20)
    other.bias = one.bias
    other.weight = nn.Parameter(one.weight.detach().T.contiguous().T)
    assert not other.weight.is_contiguous()
    assert fingerprint(one) == fingerprint(other)


def test_a_buffer_that_is_not_saved_counts():
    model = nn.Linear(3, 3)
    model.register_buffer("angles", torch.arange(4.0), persistent=False)
    whole = fingerprint(model)
    model.angles[2] = 7
    assert fingerprint(model) != whole


def test_large_tensors_are_read_to_their_end(monkeypatch):
    from polycode_plugins.files import weights

    model = nn.Linear(40, 30)
    whole = fingerprint(model)
    monkeypatch.setattr(weights, "_AT_ONCE", 64)
    assert fingerprint(model) == whole
    model.weight = nn.Parameter(model.weight.detach().T.contiguous().T)
    assert fingerprint(model) == whole
    with torch.no_grad():
        model.weight[-1, -1] += 1
    assert fingerprint(model) != whole


@pytest.mark.filterwarnings("ignore:Sparse CSR")
@pytest.mark.filterwarnings("ignore:Sparse CSC")
@pytest.mark.parametrize("kind", ["coo", "csr", "csc"])
def test_sparse_weights(kind):
    model = nn.Module()
    eye = torch.eye(3)
    made = {"coo": eye.to_sparse, "csr": eye.to_sparse_csr, "csc": eye.to_sparse_csc}[kind]()
    model.register_buffer("held", made)
    whole = fingerprint(model)
    assert whole is not None
    other = nn.Module()
    other.register_buffer("held", made * 2)
    assert fingerprint(other) != whole


@pytest.mark.parametrize(
    "model",
    [object(), nn.Linear(3, 3, device="meta"), nn.LazyLinear(3)],
    ids=["no module", "meta", "lazy"],
)
def test_what_has_no_values_here_has_no_fingerprint(model):
    assert fingerprint(model) is None


def test_an_adapter_may_say_which_weights_its_model_has():
    assert identified({"fingerprint": "revision 3"}, object())["fingerprint"] == "revision 3"
    assert identified({}, network())["fingerprint"] == fingerprint(network())


def test_the_format_of_a_fingerprint():
    assert format_of(fingerprint(network())) == 2
    assert format_of("d" * 64) == 1  # as 0.1 wrote it
    assert format_of(None) is None


def test_a_shared_parameter_counts_once():
    model = nn.Sequential(nn.Embedding(50, 8), nn.Linear(8, 50, bias=False))
    assert parameter_count(model) == 800
    model[1].weight = model[0].weight
    assert parameter_count(model) == 400
    model[1].weight = nn.Parameter(model[0].weight.data)  # another name of the same memory
    assert parameter_count(model) == 400
    joint = nn.Module()
    joint.whole = nn.Parameter(torch.zeros(30, 4))
    joint.first = nn.Parameter(joint.whole.data[:10])
    joint.columns = nn.Parameter(joint.whole.data[:, :2])
    assert parameter_count(joint) == 120
    assert parameter_count(nn.LazyLinear(3)) == 0
    assert parameter_count(object()) == 0
