"""Rotated neurons: the layer's own units in another basis, at the threshold of a neuron."""

from __future__ import annotations

import pytest
import torch
from layer_moments import moments
from torch import nn

import polycode_plugins as pc
from polycode_plugins.errors import DataError
from polycode_plugins.explainers.units.neurons import neurons
from polycode_plugins.explainers.units.nonlinearities import Nonlinearity
from polycode_plugins.explainers.units.rotations import rotations

WIDTH = 12


@pytest.fixture
def inputs():
    g = torch.Generator().manual_seed(0)
    mixing = torch.randn(WIDTH, WIDTH, generator=g)
    return [
        torch.randn(3000, WIDTH, generator=g) @ mixing * torch.logspace(-2, 1, WIDTH) + shift
        for shift in (torch.linspace(-3, 3, WIDTH), torch.linspace(5, -5, WIDTH))
    ]


def made(inputs, function="relu", which=None, seed=0):
    layer = Nonlinearity(function, ("a", "b")[: len(inputs)])
    of = [moments(x) for x in inputs]
    return rotations(layer, of, neurons(WIDTH, which), "s", seed=seed)


def test_before_the_nonlinearity_a_unit_has_the_mean_and_deviation_of_its_neuron(inputs):
    rotated = made(inputs[:1])
    (part,), x = rotated.parts, inputs[0]
    read = part.project(x)
    assert read.mean(dim=0).numpy() == pytest.approx(x.mean(dim=0).numpy(), abs=1e-3)
    assert read.std(dim=0).numpy() == pytest.approx(x.std(dim=0).numpy(), rel=1e-3)
    assert torch.equal(rotated.read(inputs[:1]), torch.relu(read))
    # In standardised features a direction is uniform: no neuron is in it more than others.
    directions = part.directions * x.std(dim=0)
    shares = directions.square() / directions.square().sum(dim=1, keepdim=True)
    assert shares.max() < 0.8
    assert shares.diagonal().mean() == pytest.approx(1 / WIDTH, abs=0.08)


def test_gate_and_value_are_rotated_together(inputs):
    rotated = made(inputs, "silu")
    gate, value = rotated.parts
    a, b = (p.directions * x.std(dim=0) for p, x in zip(rotated.parts, inputs, strict=True))
    assert nn.functional.cosine_similarity(a, b).numpy() == pytest.approx(1, abs=1e-4)
    expected = nn.functional.silu(gate.project(inputs[0])) * value.project(inputs[1])
    assert rotated.read(inputs).allclose(expected)
    assert rotated.described().directions.shape == (WIDTH, 2 * WIDTH)


def test_each_unit_is_of_one_neuron_and_a_constant_one_has_none(inputs):
    inputs[0][:, 3] = 1.0
    rotated = made(inputs[:1], which=[1, 3, 5])
    assert rotated.parts[0].names == ("rotated 1", "rotated 5")
    assert rotated.parts[0].origin["pairs"] == {"rotated 1": "neuron 1", "rotated 5": "neuron 5"}
    assert not rotated.parts[0].directions[:, 3].any()
    with pytest.raises(DataError, match="every neuron of 's' is constant"):
        made(inputs[:1], which=[3])
    again, other = made(inputs[:1], which=[1]), made(inputs[:1], which=[1], seed=1)
    assert torch.equal(again.parts[0].directions, made(inputs[:1], which=[1]).parts[0].directions)
    assert not torch.equal(again.parts[0].directions, other.parts[0].directions)


class Words:
    def decode(self, ids):
        return "".join(f" w{i}" for i in ids)


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(50, 8)
        self.gate, self.up = nn.Linear(8, 10), nn.Linear(8, 10)
        self.neurons = nn.Identity()
        self.down = nn.Linear(10, 8)

    def forward(self, tokens):
        x = self.words(tokens)
        return self.down(self.neurons(nn.functional.silu(self.gate(x)) * self.up(x)))


def test_the_rotated_units_of_a_gated_layer_go_through_the_whole_comparison(tmp_path):
    texts = torch.randint(50, (80, 10), generator=torch.Generator().manual_seed(1))
    model = Gated()
    comparison = pc.compare(
        model, texts, "neurons", units=("neuron", "rotated"), n_units=10, tokenizer=Words(),
        judge=False, floors=("shuffled",), batch_size=32, out=tmp_path,
    )  # fmt: skip
    units = comparison.directions["neurons", "rotated", "trained"]
    assert units.origin["function"] == "silu"
    assert units.origin["inputs"] == ["gate", "up"]
    # What was recorded is what the layer would do with these weights.
    with torch.no_grad():
        x = model.words(texts)
        pre = torch.cat([model.gate(x), model.up(x)], dim=-1)
    for i, unit in enumerate(u for u in comparison if u.kind == "rotated"):
        gate, value = units.directions[i].split(10)
        offset = units.origin["value_offsets"][i]
        read = nn.functional.silu(pre[..., :10] @ gate - units.offsets[i])
        read = read * (pre[..., 10:] @ value - offset) * unit.evaluation.records.sign
        for record in unit.evaluation.records.score.all():
            assert record.activations == pytest.approx(read[record.row].numpy(), abs=1e-3)
    contrast = comparison.contrast("neuron", "rotated")[-1]
    assert contrast.pairs == contrast.n[0]
    assert contrast.pairs > 0
    read = pc.Comparison.load(tmp_path)
    assert read.contrast("neuron", "rotated")[-1] == contrast


def test_a_site_that_is_behind_no_nonlinearity_is_refused_with_what_to_name():
    texts = torch.randint(50, (40, 10))
    with pytest.raises(DataError, match="rotated units need the input of the nonlinearity"):
        pc.compare(Gated(), texts, "down", units="rotated", tokenizer=Words())
