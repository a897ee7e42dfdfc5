"""The `module` adapter: which sites there are, and that exactly their activations are captured."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
import torch
from capture_helpers import Mean, hooks_on, streamed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import polycode_plugins as pc
from polycode_plugins.adapters.base import Batch, DataOptions
from polycode_plugins.adapters.module import ModuleAdapter

IMAGES = torch.randn(7, 3, 8, 8, generator=torch.Generator().manual_seed(1))
ROWS = torch.randn(23, 6, generator=torch.Generator().manual_seed(2))


class Residual(nn.Module):
    """A basic block as torchvision's: one in-place ReLU that fires twice."""

    def __init__(self, inplace: bool = True) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=inplace)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += x
        return self.relu(out)


def images_network(inplace: bool = True) -> nn.Sequential:
    torch.manual_seed(3)
    model = nn.Sequential(
        OrderedDict(
            block=Residual(inplace),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            fc=nn.Linear(3, 4),
        )
    )
    model.get_submodule("block.bn1").running_var.fill_(0.3)
    return model.eval()


def rows_network() -> nn.Sequential:
    torch.manual_seed(4)
    layers = nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(8, 5), nn.Tanh()
    return nn.Sequential(*layers).eval()


# -- values ----------------------------------------------------------------------------------------


def test_activations_are_the_modules_outputs():
    model = rows_network()
    got = streamed(ModuleAdapter(model), ROWS, ["0", "3", "4"])
    first = nn.functional.linear(ROWS, model[0].weight, model[0].bias)
    third = model[3](first.relu())
    assert torch.equal(got["0"], first)
    assert torch.equal(got["3"], third)
    assert torch.equal(got["4"], third.tanh())


def test_an_operation_in_place_does_not_reach_what_was_captured():
    sites = ["block.bn1", "block.bn2", "block.conv1", "block.relu:0", "block.relu:1"]
    got = streamed(ModuleAdapter(images_network(inplace=True)), IMAGES, sites)
    copy = images_network(inplace=False)
    seen: dict[str, Tensor] = {}
    for name in ("bn1", "conv1"):
        copy.block.get_submodule(name).register_forward_hook(
            lambda m, a, o, name=name: seen.update({f"block.{name}": o.clone()})
        )
    copy(IMAGES)
    for name, values in seen.items():
        assert torch.equal(got[name], values.permute(0, 2, 3, 1).reshape(-1, 3))
    assert float(got["block.bn1"].min()) < 0 <= float(got["block.relu:0"].min())
    # The check can fail: a reference kept beyond the hook holds what the ReLU left of it.
    kept: dict[str, Tensor] = {}
    adapter = ModuleAdapter(images_network(inplace=True))
    sites = adapter.resolve("block.bn1", None)
    with adapter.capture(sites, lambda name, a: kept.update({name: a.values})), torch.no_grad():
        adapter.model(IMAGES)
    assert float(kept["block.bn1"].min()) == 0


def test_statistics_are_taken_before_an_operation_in_place():
    got = streamed(ModuleAdapter(images_network()), IMAGES, "block.bn1")["block.bn1"]
    analysis = pc.analyze(images_network(), IMAGES, Mean(), "block.bn1", batch_size=7)
    assert torch.allclose(analysis["block.bn1", "mean"].mean, got.double().mean(dim=0), atol=1e-12)


def test_a_module_called_twice_is_two_sites():
    adapter = ModuleAdapter(images_network())
    names = [s.name for s in adapter.sites(Batch(IMAGES, rows=torch.arange(7)))]
    assert [n for n in names if "relu" in n] == ["block.relu:0", "block.relu:1"]
    got = streamed(adapter, IMAGES, "block.relu:*")
    assert list(got) == ["block.relu:0", "block.relu:1"]
    with torch.no_grad():
        whole = adapter.model.block(IMAGES).permute(0, 2, 3, 1).reshape(-1, 3)
    assert torch.equal(got["block.relu:1"], whole)
    assert not torch.equal(got["block.relu:0"], whole)
    with pytest.raises(pc.SiteError, match=r"called 2 times .* 'block.relu:0' or 'block.relu:1'"):
        streamed(adapter, IMAGES, "block.relu")


def test_calls_are_counted_in_somebody_elses_forward_passes():
    model = images_network()
    got = streamed(ModuleAdapter(model), IMAGES, "block.relu:*")
    with pc.attach(model, ["block.relu:1", "block.relu:0"], Mean()) as probe:
        for part in IMAGES.split(2):
            model(part)
    analysis = probe.compute()
    for name, values in got.items():
        assert torch.allclose(analysis[name, "mean"].mean, values.double().mean(dim=0), atol=1e-6)
    with pc.attach(model, "block.relu", Mean()) as probe:
        model(IMAGES)
    assert hooks_on(model) == 0
    with pytest.raises(pc.SiteError, match="called more than once"):
        probe.compute()


@settings(max_examples=25, deadline=None)
@given(size=st.integers(1, 30), limit=st.none() | st.integers(1, 30), world=st.integers(1, 4))
def test_any_batch_size_and_shard_gives_the_same_activations(size, limit, world):
    adapter = ModuleAdapter(rows_network())
    whole = streamed(adapter, ROWS[:limit], "4", batch_size=100)["4"]
    parts: dict[int, Tensor] = {}
    for rank in range(world):
        options = DataOptions(batch_size=size, limit=limit, shard=(rank, world))
        for batch in adapter.stream(ROWS, "4", options=options):
            parts |= dict(zip(batch["4"].rows.tolist(), batch["4"].values, strict=True))
    assert sorted(parts) == list(range(whole.shape[0]))
    # Matrix products of other shapes may add in another order.
    assert torch.allclose(torch.stack([parts[i] for i in sorted(parts)]), whole, atol=1e-6)


def test_data_loaders_arrays_and_dicts_are_read_alike():
    adapter = ModuleAdapter(rows_network())
    whole = streamed(adapter, ROWS, "4", batch_size=5)["4"]
    loader = DataLoader(TensorDataset(ROWS, torch.arange(23)), batch_size=5)
    assert torch.equal(streamed(adapter, loader, "4")["4"], whole)
    assert torch.equal(streamed(adapter, ROWS.numpy(), "4", batch_size=5)["4"], whole)
    named = [{"input": part.clone()} for part in ROWS.split(5)]
    assert torch.equal(streamed(adapter, named, "4")["4"], whole)
    labels = [b.labels for b in adapter.batches(loader, DataOptions())]
    assert torch.equal(torch.cat(labels), torch.arange(23))
    limited = list(adapter.batches(loader, DataOptions(limit=12)))
    assert [len(b) for b in limited] == [5, 5, 2]
    assert torch.equal(torch.cat([b.inputs for b in limited]), ROWS[:12])
    assert torch.cat([b.rows for b in limited]).tolist() == list(range(12))
    assert list(adapter.batches(ROWS, DataOptions(limit=2, shard=(3, 4)))) == []
    for wrong in (
        "texts.txt",
        {"input": ROWS, "x": "y"},
        [],
        torch.empty(0, 6),
        [(ROWS, ROWS, ROWS)],
    ):
        with pytest.raises(pc.DataError):
            list(adapter.batches(wrong, DataOptions()))


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(9, 4), nn.Linear(4, 2)

    def forward(self, tokens: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.out(self.embed(tokens))


def test_masked_positions_never_enter_the_statistics():
    torch.manual_seed(0)
    model = Masked()
    tokens = torch.randint(9, (5, 6))
    mask = torch.arange(6) < torch.tensor([[6], [1], [3], [6], [2]])
    expected = model.embed(tokens)[mask].double().mean(dim=0).detach()
    parts = zip(tokens.split(2), mask.long().split(2), strict=True)
    data = [{"tokens": t, "attention_mask": m} for t, m in parts]
    masked = pc.analyze(model, data, Mean(), "embed")["embed", "mean"]
    assert torch.allclose(masked.mean, expected)
    assert masked.n_samples == int(mask.sum())
    assert pc.analyze(model, tokens, Mean(), "embed")["embed", "mean"].n_samples == 30
    with pc.attach(model, "embed", Mean()) as probe:
        model(tokens, attention_mask=mask.long())
    assert torch.allclose(probe.compute()["embed", "mean"].mean, expected)
    # While text is generated, the mask also covers positions that were computed before.
    with pc.attach(model, "embed", Mean()) as probe:
        model(tokens[:, -2:], attention_mask=mask.long())
    assert probe.n_samples == {"embed": int(mask[:, -2:].sum())}


# -- sites -----------------------------------------------------------------------------------------


def test_unknown_sites_name_what_is_near():
    adapter = ModuleAdapter(images_network())
    example = Batch(IMAGES, rows=torch.arange(7))
    for wrong, hint in (
        ("block.conv", "'block.conv"),
        ("blok.bn1", "'block.bn1'"),
        ("*.bn1*", None),
    ):
        if hint is None:
            assert [s.name for s in adapter.resolve(wrong, example)] == ["block.bn1"]
            continue
        with pytest.raises(pc.SiteError, match=hint):
            adapter.resolve(wrong, example)
    with pytest.raises(pc.SiteError, match=r"'\*\*' crosses them: 'block.bn1'"):
        adapter.resolve("*bn1", example)
    with pytest.raises(pc.SiteError, match="leaves out none"):
        adapter.resolve(["block.*", "!fc"], example)
    chosen = adapter.resolve(["block.*", "!block.relu:*"], example)
    assert [s.name for s in chosen] == ["block.conv1", "block.bn1", "block.conv2", "block.bn2"]
    assert [s.depth for s in chosen] == [0, 1, 3, 4]
    assert [s.width for s in chosen] == [3] * 4


class Branches(nn.Module):
    """Passes `rare` in training only, returns tuples, dicts and integers, and shares a module."""

    def __init__(self) -> None:
        super().__init__()
        self.pair, self.table, self.index = Pair(), Table(), Index()
        self.shared = nn.Linear(6, 6)
        self.alias, self.rare = self.shared, nn.Linear(6, 6)
        self.unused = nn.ModuleList([nn.Linear(6, 6)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.shared(self.pair(x)[0])
        self.table(x), self.index(x)
        return self.rare(x) if self.training else x


class Pair(nn.Linear):
    def __init__(self) -> None:
        super().__init__(6, 6)

    def forward(self, x: Tensor) -> Any:
        return super().forward(x), None


class Table(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"hidden": x}


class Index(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(dim=1)


def test_a_silent_site_is_an_error():
    model = Branches()
    with pytest.raises(pc.SiteError, match="'rare' exists and did not fire"):
        pc.analyze(model, ROWS, Mean(), ["shared", "rare"])
    with pc.attach(model.eval(), ["shared", "rare"], Mean()) as probe:
        model(ROWS)
    with pytest.raises(pc.SiteError, match="'rare' did not fire"):
        probe.compute()
    with pc.attach(model, "pair", Mean()) as probe:
        pass
    with pytest.raises(pc.SiteError, match="inside the 'with' block"):
        probe.compute()


def test_sites_that_only_fire_in_training_are_found_in_training():
    model = Branches().train()
    analysis = pc.analyze(model, ROWS, Mean(), ["rare"], train_mode=True)
    assert analysis["rare", "mean"].n_samples == 23
    assert streamed(ModuleAdapter(model), ROWS, "rare", train_mode=True)["rare"].shape == (23, 6)
    with pytest.raises(pc.SiteError, match="did not fire"):
        streamed(ModuleAdapter(model), ROWS, "rare")


def test_tuples_give_their_first_entry_and_other_outputs_are_named():
    model = Branches()
    got = streamed(ModuleAdapter(model), ROWS, "pair")["pair"]
    assert torch.equal(got, nn.functional.linear(ROWS, model.pair.weight, model.pair.bias))
    with pytest.raises(pc.SiteError, match="a mapping with the keys 'hidden'"):
        streamed(ModuleAdapter(model), ROWS, "table")
    with pytest.raises(pc.SiteError, match=r"a tensor of torch\.int64"):
        streamed(ModuleAdapter(model), ROWS, "index")
    with pc.attach(model, ["table", "pair"], Mean()) as probe:
        model(ROWS)
    with pytest.raises(pc.SiteError, match=r"mapping.*leave it out, with '!table'"):
        probe.compute()


def test_a_shared_module_answers_to_both_names_and_counts_once_in_a_glob():
    adapter = ModuleAdapter(Branches())
    got = streamed(adapter, ROWS, ["shared", "alias"])
    assert list(got) == ["shared", "alias"]
    assert torch.equal(got["shared"], got["alias"])
    example = Batch(ROWS, rows=torch.arange(23))
    for known in (example, None):
        assert [s.name for s in adapter.resolve(["shared", "ali*"], known)] == ["shared", "alias"]
        found = [s.name for s in adapter.resolve(["[sa]*"], known)]
        assert found == ["shared"]
    assert "unused" not in [s.name for s in adapter.sites()]  # a list of modules is never called


# -- leaving early ---------------------------------------------------------------------------------


def test_the_pass_ends_after_the_last_site_and_changes_nothing():
    model = rows_network()
    calls: list[int] = []
    model[3].register_forward_hook(lambda *_: calls.append(1))
    early = streamed(ModuleAdapter(model), ROWS, ["0", "1"], batch_size=6)
    # The one call is that of tracing the model; four batches never got there.
    assert len(calls) == 1
    whole = streamed(ModuleAdapter(model), ROWS, ["0", "1", "4"], batch_size=6)
    assert len(calls) == 1 + 1 + 4
    assert all(torch.equal(early[name], whole[name]) for name in early)


def test_the_pass_ends_after_the_right_call():
    model = images_network()
    calls: list[str] = []
    model.block.bn2.register_forward_hook(lambda *_: calls.append("bn2"))
    model.fc.register_forward_hook(lambda *_: calls.append("fc"))
    streamed(ModuleAdapter(model), IMAGES, "block.relu:0")
    assert calls == ["bn2", "fc"]  # of the trace
    streamed(ModuleAdapter(model), IMAGES, "block.relu:1")
    assert calls == ["bn2", "fc", "bn2", "fc", "bn2"]


def test_models_that_handle_exceptions_do_not_swallow_the_stop():
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.late = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            try:
                x = self.inner(x)
            except Exception:
                x = x * 0
            return self.late(x)

    model = Careful()
    late: list[int] = []
    model.late.register_forward_hook(lambda *_: late.append(1))
    assert streamed(ModuleAdapter(model), ROWS, "inner")["inner"].abs().sum() > 0
    assert len(late) == 1


# -- what it takes ---------------------------------------------------------------------------------


def test_what_is_no_module_is_refused():
    with pytest.raises(pc.ModelError, match=r"torch\.nn\.Module"):
        ModuleAdapter("resnet18")
    with pytest.raises(pc.ModelError, match="does not take this option"):
        pc.load(rows_network(), shape=3)
    assert ModuleAdapter.accepts(rows_network())
    assert not ModuleAdapter.accepts("resnet18")
    assert isinstance(pc.load(rows_network()), ModuleAdapter)


def test_strings_and_a_bare_layer_are_refused_with_the_way_out():
    with pytest.raises(pc.DataError, match=r"yields strings.*tokenise"):
        pc.analyze(nn.Sequential(nn.Linear(4, 4)), (text for text in ["a", "b"]))
    with pytest.raises(pc.SiteError, match="wrap a bare layer"):
        pc.analyze(nn.Linear(4, 4), torch.randn(20, 4))
    with pytest.raises(pc.SiteError, match=r"there are 2, such as '1'; list them with .*sites\(\)"):
        pc.analyze(nn.Sequential(nn.Linear(4, 4), nn.Tanh()), torch.randn(20, 4), sites="zzz*")
