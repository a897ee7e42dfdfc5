"""Capacity of the weights of a model."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn
from weight_matrices import direct, matrix

from polycode_plugins.adapters.module import ModuleAdapter
from polycode_plugins.errors import DataError, ModelError, SiteError
from polycode_plugins.metrics import capacity_of_weights


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(9, 4)
        self.up = nn.Linear(4, 7)
        self.down = nn.Linear(7, 4)
        self.norm = nn.LayerNorm(4)
        self.table = nn.Parameter(matrix(3, 4))
        self.conv = nn.Conv1d(4, 6, 3)


def test_modules_say_which_side_is_which():
    model = Small()
    embedded = capacity_of_weights(model, "embed_tokens.weight")["embed_tokens.weight"]
    assert (embedded.features, embedded.dimensions) == (9, 4)
    up = capacity_of_weights(model, "up.weight", features="outputs")["up.weight"]
    assert (up.features, up.dimensions, up.features_are) == (7, 4, "rows")
    np.testing.assert_allclose(up.capacities, direct(model.up.weight.detach()))
    down = capacity_of_weights(model, "down.weight", features="inputs")["down.weight"]
    assert (down.features, down.dimensions, down.features_are) == (7, 4, "columns")
    np.testing.assert_allclose(down.capacities, direct(model.down.weight.detach().T))
    rows = capacity_of_weights(model, ["table"], features="rows")["table"]
    assert (rows.features, rows.dimensions) == (3, 4)
    adapter = ModuleAdapter(model)
    assert list(capacity_of_weights(adapter, ["up.*", "down.*"], features="outputs")) == [
        "up.weight",
        "down.weight",
    ]


def test_what_cannot_be_told_has_to_be_said():
    model = Small()
    with pytest.raises(DataError, match="features='inputs'"):
        capacity_of_weights(model, "up.weight")
    with pytest.raises(DataError, match="features='rows' or 'columns'"):
        capacity_of_weights(model, "table", features="inputs")
    with pytest.raises(DataError, match="features is one of"):
        capacity_of_weights(model, "table", features="row")
    with pytest.raises(SiteError, match=r"did you mean 'up\.weight'"):
        capacity_of_weights(model, "ub.weight")
    with pytest.raises(SiteError, match="name the matrices"):
        capacity_of_weights(model)
    with pytest.raises(DataError, match=r"conv\.weight has shape"):
        capacity_of_weights(model, "conv.weight", features="rows")
    with pytest.raises(ModelError, match="has no weights"):
        capacity_of_weights(np.eye(2))
    with pytest.raises(ModelError, match="not loaded"):
        capacity_of_weights(nn.Linear(3, 2, device="meta"), "weight", features="outputs")


def test_transformer_lens_matrices_are_found_and_the_right_way_round():
    pytest.importorskip("transformer_lens")
    import polycode_plugins as pc

    model = pc.load().model
    found = capacity_of_weights(model)
    layers, width, hidden = model.cfg.n_layers, model.cfg.d_model, model.cfg.d_mlp
    assert list(found)[:3] == ["embed.W_E", "blocks.0.mlp.W_in", "blocks.0.mlp.W_out"]
    assert len(found) == 1 + 2 * layers
    for name, result in found.items():
        assert result.dimensions == width
        assert result.features == (model.cfg.d_vocab if name == "embed.W_E" else hidden)
        assert result.total <= width + 1e-9
    last = layers - 1
    np.testing.assert_allclose(
        found[f"blocks.{last}.mlp.W_in"].capacities,
        direct(model.blocks[last].mlp.W_in.detach().T),
        rtol=1e-9,
    )
    np.testing.assert_allclose(
        found[f"blocks.{last}.mlp.W_out"].capacities,
        direct(model.blocks[last].mlp.W_out.detach()),
        rtol=1e-9,
    )
    one = capacity_of_weights(model, ["blocks.1.mlp.W_*", "W_U"])
    assert list(one) == ["unembed.W_U", "blocks.1.mlp.W_in", "blocks.1.mlp.W_out"]
    assert one["unembed.W_U"].features == model.cfg.d_vocab
    read = capacity_of_weights(model, "blocks.0.mlp.W_in", features="inputs")
    assert read["blocks.0.mlp.W_in"].dimensions == hidden


class Hooked(nn.Module):
    """The parameters of a HookedTransformer (TransformerLens 2 and 3) under their own names."""

    def __init__(self) -> None:
        super().__init__()

        def holder(**shapes: tuple[int, int]) -> nn.Module:
            module = nn.Module()
            for name, shape in shapes.items():
                setattr(module, name, nn.Parameter(matrix(*shape)))
            return module

        self.hook_dict: dict[str, nn.Module] = {}
        self.embed = holder(W_E=(11, 8))
        self.blocks = nn.ModuleList(nn.Module() for _ in range(2))
        for block in self.blocks:
            block.mlp = holder(W_in=(8, 12), W_out=(12, 8))
            block.attn = holder(W_O=(8, 8))
        self.blocks[1].mlp.W_gate = nn.Parameter(matrix(8, 12))

    def run_with_hooks(self) -> None: ...


def test_hooked_transformer_has_the_same_names():
    model = Hooked()
    found = capacity_of_weights(model, blocks=True)
    assert list(found) == ["embed.W_E"] + [
        f"blocks.{i}.mlp.{w}" for i in (0, 1) for w in ("W_in", "W_out")
    ]
    np.testing.assert_allclose(
        found["blocks.1.mlp.W_in"].capacities, direct(model.blocks[1].mlp.W_in.detach().T)
    )
    assert {r.dimensions for r in found.values()} == {8}
    assert list(capacity_of_weights(model, "W_gate")) == ["blocks.1.mlp.W_gate"]
    with pytest.raises(DataError, match="features='rows' or 'columns'"):
        capacity_of_weights(model, "W_O")


def test_weights_that_cannot_be_read_say_why():
    class Quantised(nn.Module):
        @property
        def W_in(self):
            raise NotImplementedError("the weights are packed")

    model = Hooked()
    model.blocks[0].mlp = Quantised()
    assert "blocks.1.mlp.W_in" in capacity_of_weights(model, "blocks.1.mlp.*")
    with pytest.raises(ModelError, match=r"blocks\.0\.mlp\.W_in cannot be read: the weights are"):
        capacity_of_weights(model)
