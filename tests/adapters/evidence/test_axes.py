"""Which axis is what: proven by other sizes of the input, or asked for."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers
from capture_helpers import Mean, hooks_on
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.activations import Activations
from polycode_plugins.adapters.evidence.axes import (
    Reading,
    Shapes,
    lay,
)
from polycode_plugins.adapters.module import ModuleAdapter

IDS = torch.randint(5, 60, (4, 6), generator=torch.Generator().manual_seed(3))
SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 40,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
}


def seen(model: nn.Module, site: str, *calls: Any, **options: Any) -> list[Activations]:
    """What attach sees at a site in calls of the model; errors are those of `compute`."""
    kept: list[Activations] = []
    with pc.attach(model, site, Mean(), **options) as probe, torch.no_grad():
        sink = probe._capture.sink

        def keep(name: str, activations: Activations) -> None:
            kept.append(activations.clone())
            sink(name, activations)

        probe._capture.sink = keep
        for call in calls:
            model(*call) if isinstance(call, tuple) else model(**call)
    probe.compute()
    assert hooks_on(model) == 0
    return kept


def axes_at(model: nn.Module, site: str, *calls: Any) -> tuple[str, ...]:
    return seen(model, site, *calls)[-1].axes


# -- which axis is the batch -----------------------------------------------------------------------


class Tagger(nn.Module):
    def __init__(self, kind: str, batch_first: bool, last: bool = False) -> None:
        super().__init__()
        self.rnn = getattr(nn, kind)(5, 7, batch_first=batch_first, bidirectional=not last)
        self.head = nn.Linear(7 if last else 14, 3)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        x = self.rnn(x)[0]
        return self.head(x[-1] if self.last else x)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_models_in_both_orders(kind):
    x = torch.randn(6, 4, 5)  # also where a size could be either
    for square in (x, x[:4]):
        values = {}
        for batch_first in (True, False):
            torch.manual_seed(0)
            model = Tagger(kind, batch_first).eval()
            (got,) = seen(model, "head", (square.transpose(0, 1) if batch_first else square,))
            assert got.axes == ("batch", "position", "feature")
            values[batch_first] = got.values
        torch.testing.assert_close(values[True], values[False], rtol=1e-4, atol=1e-6)
    (last,) = seen(Tagger(kind, False, last=True), "head", (x,))
    assert (last.axes, tuple(last.values.shape)) == (("batch", "feature"), (4, 3))


def test_a_sequence_first_transformer_agrees_with_a_batch_first_one():
    def encoder(batch_first: bool) -> nn.Module:
        layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=batch_first)
        stack = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        return nn.Sequential(stack).eval()

    torch.manual_seed(0)
    second, first = encoder(False), encoder(True)
    first.load_state_dict(second.state_dict())
    x = torch.randn(7, 4, 8)
    for site in ("0.layers.0.linear1", "0.layers.1.norm2", "0.layers.1"):
        (a,), (b,) = seen(second, site, (x,)), seen(first, site, (x.transpose(0, 1),))
        assert a.axes == b.axes == ("batch", "position", "feature")
        torch.testing.assert_close(a.values, b.values, rtol=1e-4, atol=1e-5)


class Attention(nn.Module):
    """Attention as people write it: nothing in it says which axis is which."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.query, self.weights = nn.Linear(8, 8), nn.Softmax(-1)
        self.heads, self.out, self.stack = nn.Identity(), nn.Linear(8, 6), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        q = self.query(x)
        self.heads(q.unflatten(-1, (4, 2)).transpose(1, 2))
        x = self.weights(q @ q.transpose(1, 2)) @ q
        self.stack(torch.stack([x, q, x + q]))
        return self.out(x)


def test_a_model_of_ones_own_with_all_sizes_alike():
    x = torch.randn(4, 4, 8)
    model = Attention()
    for site in ("query", "out"):
        assert axes_at(model, site, (x,)) == ("batch", "position", "feature")
    assert axes_at(model, "heads", (x,)) == ("batch", "head", "position", "feature")
    with pytest.raises(pc.SiteError, match="attention weights, no activations"):
        seen(model, "weights", (x,))
    with pytest.raises(pc.SiteError, match=r"'stack' holds \(3, 4, 4, 8\).*axes=.*size 3 and 8"):
        seen(model, "stack", (x,))
    named = {"stack": ("head", "batch", "position", "feature")}
    assert seen(model, "stack", (x,), axes=named)[0].matrix().shape == (16, 24)


def test_what_two_readings_leave_is_asked_for():
    pointwise = nn.Sequential(nn.Linear(8, 6), nn.ReLU())
    with pytest.raises(pc.SiteError, match="nothing in this model tells which axis"):
        seen(pointwise, "0", (torch.randn(4, 5, 8),))
    named = ("position", "batch", "feature")
    assert seen(pointwise, "0", (torch.randn(4, 5, 8),), axes=named)[0].values.shape == (5, 4, 6)
    assert axes_at(pointwise, "0", (torch.randn(4, 8),)) == ("batch", "feature")
    # Data that were cut into batches say where their rows are.
    (site,) = pc.analyze(pointwise, torch.randn(4, 5, 8), Mean(), "0").sites
    assert site.axes == ("batch", "position", "feature")

    class Nodes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(8, 6)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x + x.mean(dim=0))

    with pytest.raises(pc.SiteError, match="mixes what lies along each axis"):
        seen(Nodes(), "linear", (torch.randn(9, 8),))


def test_data_cut_along_the_positions_of_a_model_are_refused():
    with pytest.raises(pc.SiteError, match=r"so it reads \[position, batch, \.\.\]"):
        pc.analyze(Tagger("LSTM", False).eval(), torch.randn(12, 6, 5), Mean(), "head")


def test_the_models_own_state_and_hooks_are_not_touched():
    fired: list[int] = []
    model = Attention()
    model.query.register_forward_hook(lambda *_: fired.append(1))
    with pc.attach(model, "out", Mean()), torch.no_grad():
        model(torch.randn(4, 5, 8))
    assert fired == [1]
    assert hooks_on(model) == 1


# -- models of transformers ------------------------------------------------------------------------

HEADS = {
    "Qwen3": ("self_attn.q_norm", {"num_key_value_heads": 2, "head_dim": 8}),
    "Gemma3Text": ("self_attn.k_norm", {"num_key_value_heads": 2, "head_dim": 8}),
    "Cohere": ("self_attn.q_norm", {"use_qk_norm": True}),
    "Phi": ("self_attn.q_layernorm", {"qk_layernorm": True}),
    "Persimmon": ("self_attn.q_layernorm", {}),
}


def language(name: str, **more: Any) -> nn.Module:
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**SIZES, **more)
    return getattr(transformers, f"{name}Model")(config).eval()


@pytest.mark.parametrize("name", HEADS)
def test_norms_of_each_head_are_no_images(name):
    site, more = HEADS[name]
    model = language(name, **more)
    (got,) = seen(model, f"layers.0.{site}", {"input_ids": IDS})  # as many rows as heads
    assert set(got.axes) == {"batch", "position", "head", "feature"}
    heads = 2 if "k_norm" in site else 4
    assert got.matrix().shape == (24, heads * 8)
    (rows,) = seen(model, f"layers.0.{site}", {"input_ids": IDS[:1]})
    assert torch.equal(got.sample_rows(), torch.arange(4).repeat_interleave(6))
    torch.testing.assert_close(got.matrix()[:6], rows.matrix(), rtol=1e-4, atol=1e-5)


def test_tokens_in_one_axis_find_their_rows_again():
    model = language("Mixtral", num_local_experts=4, num_experts_per_tok=2, num_key_value_heads=2)
    mask = torch.ones_like(IDS)
    mask[0, 4:] = 0
    for site in ("layers.0.mlp.gate", "layers.0.mlp.experts"):
        (got,) = seen(model, site, {"input_ids": IDS, "attention_mask": mask})
        assert got.axes == ("batch", "position", "feature")
        assert got.matrix().shape[0] == 22


class Experts(nn.Module):
    """Two experts, each called with the tokens that are given to it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(60, 8)
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(2))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        x = self.embed(input_ids)
        flat = x.flatten(0, 1)
        mine = input_ids.flatten() % 2 == 0
        out = torch.zeros_like(flat)
        for chosen, expert in ((mine, self.experts[0]), (~mine, self.experts[1])):
            out = out.index_put((chosen.nonzero()[:, 0],), expert(flat[chosen]))
        return out.unflatten(0, x.shape[:2])


def test_tokens_given_to_an_expert_are_rows_of_nobody():
    model = Experts()
    ids = torch.tensor([[2, 4, 1, 3, 5], [1, 3, 5, 7, 9], [6, 8, 1, 3, 5], [1, 3, 5, 7, 9]])
    (got,) = seen(model, "experts.0", {"input_ids": ids})  # 4 tokens of 4 rows, by chance
    assert got.axes == ("batch", "feature")
    assert got.documents.tolist() == [-1] * 4
    mask = torch.ones_like(ids)
    seen(model, "experts.0", {"input_ids": ids, "attention_mask": mask})  # leaves nothing out
    mask[0, 4:] = 0
    with pytest.raises(
        pc.SiteError, match=r"mask \(4, 5\).*which ones these are here is not known"
    ):
        seen(model, "experts.0", {"input_ids": ids, "attention_mask": mask})
    (all_,) = seen(model, "experts.0", {"input_ids": ids, "attention_mask": mask}, mask=None)
    assert all_.matrix().shape == (4, 8)


# -- models that cannot be tried -------------------------------------------------------------------


class Untried(Experts):
    def __deepcopy__(self, memo: Any) -> Any:
        raise TypeError("not to be copied")


def test_shapes_of_several_calls_decide_where_nothing_can_be_tried():
    model = Untried()
    tokens = {"input_ids": IDS}
    assert axes_at(model, "embed", tokens) == ("batch", "position", "feature")
    square = {"input_ids": IDS[:, :4]}
    with pytest.raises(pc.SiteError, match=r"leave more than one reading.*not to be copied"):
        seen(model, "embed", square)
    kept = seen(model, "embed", square, tokens)  # the first is held back until the second comes
    assert [tuple(a.values.shape) for a in kept] == [(4, 4, 8), (4, 6, 8)]


def test_shapes_leave_what_fits_every_call():
    shapes = Shapes()
    shapes.note((4, 4, 8), 4, 4)
    assert shapes.reading() is None
    shapes.note((4, 6, 8), 4, 6)
    assert shapes.reading() == Reading(("batch", "position", "feature"))
    rows = Shapes()
    rows.note((4, 8), 4, 6)  # a number of rows that may be chance
    assert rows.reading() is None
    rows.note((3, 8), 3, 6)
    assert rows.reading() == Reading(("batch", "feature"))


def test_laying_out_by_a_reading():
    x = torch.arange(24.0).reshape(6, 4)
    laid = lay(Reading(("batch", "feature"), flat=True), x, 2, 3)
    assert laid.axes == ("batch", "position", "feature")
    assert torch.equal(laid.values[1, 0], x[3])
    turned = lay(Reading(("batch", "feature"), flat=True, order="position"), x, 2, 3)
    assert torch.equal(turned.values[1, 0], x[1])
    assert lay(Reading(("batch", "feature")), x, 5, None) is None
    assert lay(Reading(("batch", "position", "feature")), x, 6, None) is None


# -- inputs of modules -----------------------------------------------------------------------------


def test_inputs_of_modules_are_sites():
    model = language("Qwen3", num_key_value_heads=2, head_dim=8)
    site = "layers.0.mlp.down_proj:in"
    (got,) = seen(model, site, {"input_ids": IDS})
    mlp, inputs = model.layers[0].mlp, []
    handle = mlp.register_forward_pre_hook(lambda _m, args: inputs.append(args[0]))
    with torch.no_grad():
        model(IDS)
        neurons = mlp.act_fn(mlp.gate_proj(inputs[0])) * mlp.up_proj(inputs[0])
    handle.remove()
    torch.testing.assert_close(got.values, neurons)
    adapter = ModuleAdapter(model)
    names = ["layers.*.mlp.down_proj:in", "layers.0.mlp.down_proj"]
    assert [s.name for s in adapter.resolve(names, None)] == [site, "layers.0.mlp.down_proj"]
    assert all(":in" not in s.name for s in adapter.resolve("**", None))
    analysis = pc.analyze(model, IDS, Mean(), names)
    assert list(analysis) == [site, "layers.0.mlp.down_proj"]
    torch.testing.assert_close(
        analysis[site, "mean"].mean, neurons.double().mean(dim=(0, 1)), rtol=1e-4, atol=1e-6
    )


def test_an_input_is_what_the_last_pre_hook_leaves():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    x = torch.randn(5, 4)
    with pc.attach(model, "1:in", Mean()) as probe, torch.no_grad():
        handle = model[1].register_forward_pre_hook(lambda _m, args: (args[0] * 0 + 2,))
        model(x)
        handle.remove()
    assert torch.equal(probe.compute()["1:in", "mean"].mean, torch.full((4,), 2.0).double())


# -- drawn architectures against a reference that keeps everything ---------------------------------


class Drawn(nn.Module):
    """A model drawn by layout, kind of mixing and sizes; it notes what its parts return."""

    def __init__(self, kind: str, second: bool, width: int, heads: int, fold: bool) -> None:
        super().__init__()
        self.kind, self.second, self.heads, self.fold = kind, second, heads, fold
        self.embed = nn.Embedding(30, width)
        self.rnn = nn.GRU(width, width, batch_first=not second)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=not second)
        self.mlp, self.split = nn.Linear(width, 2 * width), nn.Identity()

    def forward(self, tokens: Tensor, src_key_padding_mask: Tensor | None = None) -> Tensor:
        x = self.embed(tokens)
        if self.kind == "rnn":
            x = x + self.rnn(x)[0]
        else:
            x = x + self.attention(x, x, x, key_padding_mask=src_key_padding_mask)[0]
        y = x.flatten(0, 1) if self.fold else x
        self.split(y.unflatten(-1, (self.heads, -1)))
        return self.mlp(y)


@settings(max_examples=15, deadline=None)
@given(
    kind=st.sampled_from(["rnn", "attention"]),
    second=st.booleans(),
    heads=st.sampled_from([1, 2, 3]),
    fold=st.booleans(),
    rows=st.integers(2, 5),
    calls=st.lists(st.tuples(st.integers(2, 6), st.booleans()), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_drawn_models_are_read_as_a_reference_reads_them(
    kind, second, heads, fold, rows, calls, seed
):
    """Calls of several lengths, with padding and without, at every site and in every layout."""
    torch.manual_seed(seed)
    width = 6 * heads
    model = Drawn(kind, second, width, heads, fold).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    inputs = [torch.randint(0, 30, (n, rows) if second else (rows, n)) for n, _ in calls]
    padded = [padding(rows, n) if has_mask else None for n, has_mask in calls]
    sites = ["embed", "mlp", "split", "mlp:in"]
    kept: dict[str, list[Tensor]] = {site: [] for site in sites}
    handles = [
        getattr(model, site.removesuffix(":in")).register_forward_hook(
            lambda _m, args, out, site=site: kept[site].append(args[0] if ":in" in site else out)
        )
        for site in sites
    ]
    got: dict[str, list[Activations]] = {site: [] for site in sites}
    with pc.attach(model, sites, Mean()) as probe, torch.no_grad():
        sink = probe._capture.sink

        def keep(name: str, activations: Activations) -> None:
            got[name].append(activations.clone())
            sink(name, activations)

        probe._capture.sink = keep
        for tokens, mask in zip(inputs, padded, strict=True):
            model(tokens, mask) if seed % 2 else model(tokens, src_key_padding_mask=mask)
    for handle in handles:
        handle.remove()
    analysis = probe.compute()
    for site in sites:
        width_here = width * (2 if site == "mlp" else 1)
        expected = []
        for tokens, mask, whole, activations in zip(
            inputs, padded, kept[site], got[site], strict=True
        ):
            assert activations.axes[:2] == ("batch", "position")
            places = whole if whole.shape[:2] == tokens.shape else whole.unflatten(0, tokens.shape)
            places = places.transpose(0, 1) if second else places
            assert torch.equal(activations.values, places)
            places = places.flatten(2) if places.dim() > 3 else places
            counts = torch.ones(places.shape[:2]).bool() if mask is None else ~mask
            expected.append(places[counts].reshape(-1, width_here))
        total = torch.cat(expected).double()
        result = analysis[site, "mean"]
        assert result.n_samples == len(total)
        torch.testing.assert_close(result.mean, total.mean(dim=0), rtol=1e-6, atol=1e-6)
    missing = sum(int(mask.sum()) for mask in padded if mask is not None)
    assert sum(probe.left_out.get("mlp", {}).values()) == missing


def padding(rows: int, length: int) -> Tensor:
    """bool [rows, length], True on padding: at the right, at least one position of each row not."""
    lengths = torch.randint(1, length + 1, (rows, 1))
    return torch.arange(length) >= lengths
