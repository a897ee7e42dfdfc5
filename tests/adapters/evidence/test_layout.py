"""Which axes of an output are samples and which are features: told, or asked, never guessed."""

from __future__ import annotations

import pytest
import torch
from capture_helpers import Mean, streamed
from torch import Tensor, nn

import polycode_plugins as pc
from polycode_plugins.adapters.base import Batch
from polycode_plugins.adapters.module import ModuleAdapter


def axes(model: nn.Module, data: Tensor, path: str, **options) -> tuple[str, ...]:
    """The axes of a site as `analyze` finds them; `attach` must find the same or ask."""
    adapter = ModuleAdapter(model, **options)
    (site,) = adapter.resolve(path, Batch(data, rows=torch.arange(data.shape[0])))
    analysis = pc.analyze(model, data, Mean(), path, **options)
    assert analysis.sites[0].axes == site.axes
    return site.axes


class Stacked(nn.Module):
    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
            x = x[0] if isinstance(x, tuple) else x
        return x


def test_three_axes_after_convolutions_and_after_linear_maps():
    signal, tokens = torch.randn(4, 3, 9), torch.randn(4, 9, 3)
    conv = Stacked(nn.Conv1d(3, 5, 3), nn.ReLU())
    assert axes(conv, signal, "parts.1") == ("batch", "channel", "position")
    assert streamed(ModuleAdapter(conv), signal, "parts.1")["parts.1"].shape == (4 * 7, 5)
    linear = Stacked(nn.Linear(3, 5), nn.ReLU())
    assert axes(linear, tokens, "parts.1") == ("batch", "position", "feature")
    assert streamed(ModuleAdapter(linear), tokens, "parts.1")["parts.1"].shape == (4 * 9, 5)


def test_the_layout_of_the_number_of_axes_at_hand_decides():
    """A classifier on top of convolutions sees [batch, feature], which says nothing of images."""
    model = Stacked(nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(20, 2))
    images = torch.randn(4, 3, 4, 4)
    assert axes(model, images, "parts.1") == ("batch", "channel", "height", "width")
    with pc.attach(model, ["parts.1", "parts.3"], Mean()) as probe:
        model(images)
    assert probe.compute()["parts.1", "mean"].mean.shape == (5,)


class Permute(nn.Module):
    def __init__(self, *order: int) -> None:
        super().__init__()
        self.order = order

    def forward(self, x: Tensor) -> Tensor:
        return x.permute(self.order)


def channels_last() -> Stacked:
    """Swin's way: a convolution makes patches, and from then on the channels come last."""
    return Stacked(nn.Conv2d(3, 6, 2, 2), Permute(0, 2, 3, 1), nn.LayerNorm(6), nn.GELU())


def test_two_layouts_in_one_model_are_told_apart_by_other_sizes():
    images = torch.randn(2, 3, 8, 10)
    proven = ("batch", "height", "width", "feature")
    assert axes(channels_last(), images, "parts.3") == proven
    with pc.attach(channels_last(), "parts.3", Mean()) as probe:
        probe._adapter.model(images)
    assert probe.compute().sites[0].axes == proven
    asked = {"parts.3": ("batch", "position", "position", "feature")}
    assert axes(channels_last(), images, "parts.3", axes=asked) == asked["parts.3"]
    for site in ("parts.0", "parts.1", "parts.2", "parts.3"):
        assert streamed(ModuleAdapter(channels_last()), images, site)[site].shape == (40, 6)


def test_axes_that_do_not_fit_are_refused():
    images = torch.randn(2, 3, 8, 10)
    for wrong in (("batch", "feature"), ("height", "width", "position", "feature")):
        with pytest.raises(pc.SiteError, match="does not fit"):
            streamed(ModuleAdapter(channels_last(), axes=wrong), images, "parts.3")
    wrong = ("batch", "height", "depht", "feature")
    with pytest.raises(pc.DataError, match="unknown axis 'depht'"):
        streamed(ModuleAdapter(channels_last(), axes=wrong), images, "parts.3")


class Recurrent(nn.Module):
    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.batch_first = batch_first
        self.rnn = nn.LSTM(3, 5, batch_first=batch_first)
        self.act, self.out = nn.Tanh(), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.batch_first else x.transpose(0, 1)
        x = self.act(self.rnn(x)[0])
        return self.out(x[:, -1] if self.batch_first else x[-1])


def test_recurrent_layers_in_both_orders():
    x = torch.randn(4, 7, 3)
    got = {}
    for batch_first in (True, False):
        adapter = ModuleAdapter(Recurrent(batch_first))
        for batch in adapter.stream(x, ["rnn", "act"]):
            assert batch["rnn"].axes == ("batch", "position", "feature")
            assert batch["rnn"].values.shape == (4, 7, 5)
            assert batch["rnn"].rows.tolist() == [0, 1, 2, 3]
            # What the activation function reads is what the layer below it wrote.
            assert batch["act"].values.shape == (4, 7, 5)
            got[batch_first] = batch
    for site in ("rnn", "act"):
        assert torch.allclose(got[True][site].values, got[False][site].values, atol=1e-6)


def test_rows_are_known_only_where_the_model_kept_them():
    class Windows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x.reshape(-1, 2, 3))

    for batch in ModuleAdapter(Windows()).stream(torch.randn(4, 6, 3), "linear"):
        assert batch["linear"].rows is None
        # Each row was cut into three, which are of one document.
        assert batch["linear"].documents.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
        assert batch["linear"].matrix().shape == (24, 5)


def test_more_axes_than_have_a_meaning_must_be_named():
    x = torch.randn(2, 3, 4, 5, 6, 7)
    model = Stacked(nn.Identity())
    with pytest.raises(pc.SiteError, match=r"axes are ambiguous; name them, for example axes="):
        pc.analyze(model, x, Mean(), "parts.0")
