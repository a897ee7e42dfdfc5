"""The `torchvision` adapter, against torchvision's own feature extraction and transforms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from capture_helpers import Mean, condition_of, hooks_on, random_states, streamed
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

import polycode_plugins as pc
from polycode_plugins import loading
from polycode_plugins.adapters import torchvision as adapter_module
from polycode_plugins.adapters.base import Batch, DataOptions
from polycode_plugins.adapters.module import ModuleAdapter
from polycode_plugins.adapters.torchvision import TorchvisionAdapter

IMAGES = torch.randn(3, 3, 40, 40, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def resnet() -> models.ResNet:
    torch.manual_seed(0)
    model = models.resnet18(weights=None)
    model(IMAGES)  # statistics that are not zero and one
    return model.eval()


# -- values ----------------------------------------------------------------------------------------


def test_activations_are_those_of_torchvisions_feature_extractor(resnet):
    nodes = {
        "conv1": "conv1",
        "maxpool": "maxpool",
        "layer1.0.conv1": "layer1.0.conv1",
        "layer1.0.relu": "layer1.0.relu:0",
        "layer1.0.relu_1": "layer1.0.relu:1",
        "layer2.1.relu_1": "layer2.1",
        "layer4.1.relu_1": "layer4.1",
        "avgpool": "avgpool",
        "fc": "fc",
    }
    with torch.no_grad():
        expected = create_feature_extractor(resnet, nodes)(IMAGES)
    got = streamed(TorchvisionAdapter(resnet), IMAGES, list(expected))
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        flat = values.permute(0, 2, 3, 1).flatten(0, 2) if values.dim() == 4 else values
        assert torch.equal(got[name], flat), name


def test_a_batch_norm_before_a_relu_in_place_is_captured_as_it_was(resnet):
    copy = models.resnet18(weights=None).eval()
    copy.load_state_dict(resnet.state_dict())
    for module in copy.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    got = streamed(TorchvisionAdapter(resnet), IMAGES, ["bn1", "layer1.0.bn1", "layer3.0.bn1"])
    with torch.no_grad():
        expected = create_feature_extractor(copy, list(got))(IMAGES)
        spoilt = create_feature_extractor(resnet, list(got))(IMAGES)
    for name, values in expected.items():
        assert torch.equal(got[name], values.permute(0, 2, 3, 1).flatten(0, 2))
        assert float(got[name].min()) < 0
    # The comparison can fail: what is merely kept has gone through the ReLU.
    assert float(spoilt["bn1"].min()) == float(spoilt["layer1.0.bn1"].min()) == 0


def test_outputs_are_bit_equal_and_the_model_is_left_as_it_was(resnet):
    with torch.no_grad():
        expected = resnet(IMAGES)
        with pc.attach(resnet, "layer*.*", Mean()):
            assert torch.equal(resnet(IMAGES), expected)
    assert hooks_on(resnet) == 0
    before = condition_of(resnet)
    with pytest.raises(pc.DataError, match="evaluation mode"):
        pc.analyze(resnet, IMAGES, Mean(), train_mode=True)
    pc.analyze(resnet, IMAGES, Mean())
    assert condition_of(resnet) == before


def test_analyze_attach_and_measure_agree(resnet):
    sites = ["maxpool", "layer1.0.relu:1", "layer3.1", "fc"]
    analysed = pc.analyze(resnet, IMAGES, Mean(), sites)
    with pc.attach(resnet, sites, Mean()) as probe, torch.no_grad():
        resnet(IMAGES)
    nodes = {"maxpool": "maxpool", "layer1.0.relu_1": sites[1], "layer3.1.relu_1": sites[2]}
    with torch.no_grad():
        cache = create_feature_extractor(resnet, nodes | {"fc": "fc"})(IMAGES)
    measured = pc.measure({site: cache[site] for site in sites}, Mean())
    for site in sites:
        means = [a[site, "mean"].mean for a in (analysed, probe.compute(), measured)]
        assert torch.equal(means[0], means[1])
        assert torch.equal(means[0], means[2])


def test_any_batch_size_gives_the_same_activations(resnet):
    adapter = TorchvisionAdapter(resnet)
    whole = streamed(adapter, IMAGES, ["layer1.0", "fc"], batch_size=3)
    for size in (1, 2):
        parts = streamed(adapter, IMAGES, ["layer1.0", "fc"], batch_size=size)
        for name, values in whole.items():
            # A convolution of another batch may add in another order.
            assert torch.allclose(parts[name], values, atol=1e-5 * float(values.abs().max()))


def test_the_pass_ends_after_the_last_site(resnet):
    calls: list[int] = []
    handle = resnet.layer3.register_forward_hook(lambda *_: calls.append(1))
    streamed(TorchvisionAdapter(resnet), IMAGES, "layer2.1", batch_size=1)
    handle.remove()
    assert len(calls) == 1  # of the trace, before three batches


# -- sites -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "first", "last", "count", "size"),
    [
        ("resnet18", "maxpool", "layer4.1", 9, 32),
        ("mobilenet_v3_small", "features.0", "features.12", 13, 32),
        ("squeezenet1_1", "features.2", "features.12", 9, 64),
        ("shufflenet_v2_x0_5", "maxpool", "stage4.3", 17, 32),
        ("regnet_y_400mf", "stem", "trunk_output.block4.block4-5", 17, 32),
        ("densenet121", "features.pool0", "features.denseblock4", 8, 32),
        ("googlenet", "conv1", "inception5b", 12, 64),
        ("swin_t", "features.0.2", "features.7.1", 16, 64),
        ("convnext_tiny", "features.0", "features.7.2", 19, 32),
        ("vit_b_32", "encoder.dropout", "encoder.layers.encoder_layer_11", 13, 224),
        ("alexnet", "features.1", "classifier.5", 7, 64),
        ("lraspp_mobilenet_v3_large", "backbone.0", "backbone.16", 17, 32),
    ],
)
@pytest.mark.usefixtures("undrawn")
def test_default_sites_are_the_blocks_and_all_of_them_fire(name, first, last, count, size):
    # Shapes are enough here, but RegNet computes its widths with tensors.
    with torch.device("cpu" if name.startswith("regnet") else "meta"):
        model = models.get_model(name, weights=None, **_untrained(name)).eval().to("meta")
    adapter = TorchvisionAdapter(model)
    images = torch.empty(2, 3, size, size, device="meta")
    sites = adapter.resolve(None, Batch(images, rows=torch.arange(2)))
    assert (sites[0].name, sites[-1].name, len(sites)) == (first, last, count)
    assert all(site.axes for site in sites)
    # Without an example the same sites are found, and fire.
    blind = TorchvisionAdapter(model)
    found = blind.resolve(None, None)
    assert {s.name for s in found} == {s.name for s in sites}
    seen: dict[str, tuple[str, ...]] = {}
    with blind.capture(found, lambda at, a: seen.update({at: a.axes})) as live, torch.no_grad():
        model(images)
        live.require_fired()
    assert seen == {s.name: s.axes for s in sites}


@pytest.fixture
def undrawn(monkeypatch):
    """Weights are not drawn where their values are of no interest: it takes as long as the rest."""
    drawing = ("normal_", "trunc_normal_", "uniform_", "kaiming_normal_", "kaiming_uniform_")
    for name in drawing:
        monkeypatch.setattr(nn.init, name, lambda tensor, *_, **__: tensor)


def _untrained(name: str) -> dict[str, object]:
    if name == "googlenet":
        return {"init_weights": True}
    return {"weights_backbone": None} if name.startswith("lraspp") else {}


@pytest.mark.usefixtures("undrawn")
def test_channels_last_and_channels_second_are_told_apart():
    with torch.device("meta"):
        swin, convnext = models.swin_t(weights=None), models.convnext_tiny(weights=None)
    images = torch.empty(2, 3, 64, 64, device="meta")
    example = Batch(images, rows=torch.arange(2))
    widths = {"features.0.0": 96, "features.1.0": 96, "features.2": 192, "features.7.1": 768}
    found = TorchvisionAdapter(swin).resolve(list(widths), example)
    assert {s.name: s.width for s in found} == widths
    assert found[0].axes == ("batch", "channel", "height", "width")
    assert found[1].axes == ("batch", "height", "width", "feature")
    widths = {"features.1.0.block.4": 384, "features.1.0": 96, "features.2": 192}
    found = TorchvisionAdapter(convnext).resolve(list(widths), example)
    assert {s.name: s.width for s in found} == widths
    # Other sizes of the input show the same to an adapter that knows nothing of these models.
    for model, path in ((swin, "features.1.0"), (convnext, "features.1.0.block.4")):
        (site,) = ModuleAdapter(model).resolve(path, example)
        assert site.axes == ("batch", "height", "width", "feature")


def test_unknown_sites_name_what_is_near(resnet):
    with pytest.raises(pc.SiteError, match=r"did you mean .*'layer1\.0'"):
        pc.analyze(resnet, IMAGES, Mean(), "layer1.O")
    with pytest.raises(pc.SiteError, match=r"called 2 times .* 'layer1.0.relu:0'"):
        pc.analyze(resnet, IMAGES, Mean(), "layer1.0.relu")


# -- models ----------------------------------------------------------------------------------------


def test_names_and_live_models_are_claimed_and_nothing_else(resnet):
    class Mine(models.ResNet):
        pass

    mine = Mine(models.resnet.BasicBlock, [1, 1, 1, 1])
    for model in (resnet, mine, "resnet18", "vit_b_16"):
        assert TorchvisionAdapter.accepts(model)
        assert loading._natural_adapter(model) == "torchvision"
    for other in (
        nn.Linear(2, 2),
        "gpt2",
        "org/resnet18",
        "./resnet18",
        "resnet 18",
        None,
        Path("x"),
    ):
        assert not TorchvisionAdapter.accepts(other)
    assert isinstance(pc.load(resnet), TorchvisionAdapter)
    # Any other image classifier, when it is asked for.
    own = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert streamed(pc.load(own, "torchvision", size=8), None, "1", limit=2)["1"].shape == (72, 4)


def test_random_initialisation_is_seeded_and_disturbs_nobody():
    before = random_states()
    first = pc.load("squeezenet1_1", init_seed=3)
    assert random_states() == before
    again, other = pc.load("squeezenet1_1", init_seed=3), pc.load("squeezenet1_1")
    weights = [a.model.features[0].weight for a in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert first.describe()["init_seed"] == 3
    assert first.model.training  # as torchvision makes it: train_mode=True means something
    assert all(p.requires_grad for p in first.model.parameters())


def test_models_that_would_download_or_warn_do_neither(monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a download")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", refuse)
    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", refuse)
    # Its builder loads a pretrained backbone unless it is told not to.
    adapter = pc.load("lraspp_mobilenet_v3_large")
    assert adapter.describe()["weights"] is None
    pc.load("googlenet")  # warns about its initialisation when that is left to it
    with pytest.raises(pc.ModelError, match=r"do not load .* leave weights out"):
        pc.load("resnet18", weights="DEFAULT")


def test_named_weights_go_through_torchvisions_loader(monkeypatch, resnet):
    asked = []

    def loaded(url: str, **_: object):
        asked.append(url)
        return resnet.state_dict()

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", loaded)
    enum = models.ResNet18_Weights
    for weights in ("DEFAULT", "IMAGENET1K_V1", "ResNet18_Weights.DEFAULT", enum.DEFAULT):
        adapter = pc.load("resnet18", weights=weights)
        assert asked[-1] == enum.IMAGENET1K_V1.url
        assert torch.equal(adapter.model.fc.weight, resnet.fc.weight)
        described = adapter.describe()
        assert described["weights"] == "ResNet18_Weights.IMAGENET1K_V1"
        assert described["init_seed"] is None
        assert described["torchvision"] == torchvision.__version__.partition("+")[0]


def test_what_cannot_be_loaded_says_why(resnet):
    with pytest.raises(pc.ModelError, match="no model 'resnet81'; did you mean 'resnet18'"):
        TorchvisionAdapter("resnet81")
    with pytest.raises(pc.ModelError, match=r"no weights 'IMAGENET'.*IMAGENET1K_V1"):
        TorchvisionAdapter("resnet18", weights="IMAGENET")
    with pytest.raises(pc.ModelError, match="full name"):
        TorchvisionAdapter(resnet, weights="IMAGENET1K_V1")
    with pytest.raises(pc.ModelError, match="move a live model yourself"):
        TorchvisionAdapter(resnet, device="cpu")


# -- images ----------------------------------------------------------------------------------------


def pixels(adapter: TorchvisionAdapter, data: object = None, **options: int) -> torch.Tensor:
    batches = adapter.batches(data, DataOptions(**options))
    return torch.cat([b.inputs for b in batches])


def photographs(folder: Path) -> Path:
    generator = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True)
        for i in range(2):
            pixels = generator.integers(0, 255, (50 + 20 * i, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / label / f"{i}.png")
    return folder


def test_folders_go_through_the_transform_of_the_weights(tmp_path, resnet):
    folder = photographs(tmp_path / "photographs")
    files = sorted(folder.rglob("*.png"))
    for weights in (models.ResNet18_Weights.DEFAULT, models.ConvNeXt_Tiny_Weights.DEFAULT):
        imagenet = weights is models.ResNet18_Weights.DEFAULT  # what stands in where none are named
        adapter = TorchvisionAdapter(resnet, weights=None if imagenet else str(weights))
        transform = weights.transforms()
        expected = torch.stack([transform(Image.open(f)) for f in files])
        assert torch.equal(pixels(adapter, folder, batch_size=3), expected)
        assert adapter.describe()["transform"] == " ".join(repr(transform).split())
    (batch,) = adapter.batches(str(folder), DataOptions())
    assert batch.labels.tolist() == [0, 0, 1, 1]
    assert batch.rows.tolist() == [0, 1, 2, 3]


def test_without_weights_the_transform_is_that_of_the_default_weights():
    adapter = pc.load("squeezenet1_1")
    transform = models.SqueezeNet1_1_Weights.DEFAULT.transforms()
    assert adapter.describe()["transform"] == " ".join(repr(transform).split())
    assert pixels(adapter, limit=2).shape == (2, 3, 224, 224)


def test_a_size_scales_and_cuts_and_a_vision_transformer_knows_its_own(tmp_path, resnet):
    folder = photographs(tmp_path)
    small = TorchvisionAdapter(resnet, size=32)
    transform = models.ResNet18_Weights.DEFAULT.transforms(crop_size=32, resize_size=32)
    files = sorted(folder.rglob("*.png"))
    assert torch.equal(
        pixels(small, folder), torch.stack([transform(Image.open(f)) for f in files])
    )
    assert pixels(small, limit=3).shape == (3, 3, 32, 32)
    with torch.device("meta"):
        vit = models.VisionTransformer(32, 16, 1, 2, 16, 16)
    assert pixels(TorchvisionAdapter(vit), limit=2).shape == (2, 3, 32, 32)


def test_embedded_crops_keep_the_pixels_of_the_photographs(resnet):
    """Cut at the size that is used: nothing is scaled, so the normalisation can be undone."""
    made = pixels(TorchvisionAdapter(resnet, size=48), limit=5)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    raw = (made * std.reshape(3, 1, 1) + mean.reshape(3, 1, 1)) * 255
    assert torch.allclose(raw, raw.round(), atol=1e-3)
    assert 0 <= float(raw.min()) < float(raw.max()) <= 255.001
    other = pixels(TorchvisionAdapter(resnet, size=48), limit=5, seed=1)
    assert not torch.equal(made, other)
    assert torch.equal(made, pixels(TorchvisionAdapter(resnet, size=48), limit=5, batch_size=2))


def test_ones_own_transform_is_used_and_recorded(resnet):
    def grey(image: Image.Image) -> torch.Tensor:
        side = torch.from_numpy(np.array(image.convert("L"))).float() / 255
        return side.expand(3, -1, -1)

    adapter = TorchvisionAdapter(resnet, transform=grey, size=40)
    made = pixels(adapter, limit=2)
    assert made.shape == (2, 3, 40, 40)
    assert torch.equal(made[:, 0], made[:, 2])
    recorded = adapter.describe()["transform"]
    assert "grey" in recorded
    assert "0x" not in recorded  # the same in every process, or shards could not be merged


def test_tensors_and_loaders_are_taken_as_they_are(resnet):
    adapter = TorchvisionAdapter(resnet)
    assert torch.equal(pixels(adapter, IMAGES, batch_size=2), IMAGES)
    loader = DataLoader(TensorDataset(IMAGES, torch.tensor([4, 5, 6])), batch_size=2)
    assert torch.equal(pixels(adapter, loader), IMAGES)
    assert [b.labels.tolist() for b in adapter.batches(loader, DataOptions())] == [[4, 5], [6]]


def test_the_three_line_analysis_of_embedded_images(resnet):
    analysis = pc.analyze(resnet, metrics=Mean(), limit=4, size=32, sites=["layer1.0", "fc"])
    assert analysis["layer1.0", "mean"].n_samples == 4 * 8 * 8
    assert analysis.run["model"]["adapter"] == "torchvision"
    assert TorchvisionAdapter(resnet, size=32).example().inputs.shape == (2, 3, 32, 32)


def test_models_of_clips_take_tensors_only():
    with torch.device("meta"):
        video = models.video.r3d_18(weights=None)
    adapter = TorchvisionAdapter(video)
    with pytest.raises(pc.DataError, match="video clips"):
        list(adapter.batches(None, DataOptions()))
    assert adapter.example() is None
    assert adapter.describe()["transform"] is None


def test_a_broken_or_missing_torchvision_is_a_sentence(monkeypatch, resnet):
    real = __import__

    def without(error: Exception):
        def importing(name, *args, **kwargs):
            if name.startswith("torchvision"):
                raise error
            return real(name, *args, **kwargs)

        return importing

    missing = ModuleNotFoundError("No module named 'torchvision'", name="torchvision")
    broken = RuntimeError("operator torchvision::nms does not exist")
    for error, match in (
        (missing, r"pip install 'polycode-plugins\[torchvision\]'"),
        (broken, "nms"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr("builtins.__import__", without(error))
            # Not "we couldn't connect to the hub", where somebody else looks for the name.
            assert TorchvisionAdapter.accepts("resnet18")
            assert not TorchvisionAdapter.accepts("gpt2")
            with pytest.raises(pc.PolycodeError, match=match):
                pc.load("resnet18")


def test_names_are_known_by_their_looks_without_torchvision():
    assert [n for n in models.list_models() if not adapter_module._FAMILIES.match(n)] == []
