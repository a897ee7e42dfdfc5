"""The `torchvision` adapter: image models through forward hooks, with the right preprocessing.

torchvision itself is imported when a model is named, when images are read, or to tell a name of one
of its models from any other.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from polycode_plugins.activations import Site
from polycode_plugins.adapters.base import Batch
from polycode_plugins.adapters.blocks import block_paths, sites_at
from polycode_plugins.adapters.inputs import tensor_batches
from polycode_plugins.adapters.module import ModuleAdapter
from polycode_plugins.adapters.pretrained import device_named
from polycode_plugins.adapters.undisturbed import seed_torch, undisturbed
from polycode_plugins.data.images import image_batches
from polycode_plugins.data.incoming import incoming
from polycode_plugins.data.picture_rows import pictures_of
from polycode_plugins.data.pictures import PHOTOGRAPH, Pictures
from polycode_plugins.data_options import DataOptions
from polycode_plugins.errors import DataError, ModelError, near
from polycode_plugins.plugins import cause, missing_extra

Transform = Callable[[Any], Tensor]

_HOME = "torchvision.models"
_FAMILIES = re.compile(
    r"(quantized_)?("
    r"(wide_)?resne[x]?t\d|alexnet|vgg\d|squeezenet|densenet\d|inception_v3|googlenet|mnasnet|"
    r"(shuffle|mobile)net_v\d|efficientnet_(b|v2)|regnet_|vit_[blh]_|swin(3d)?_|convnext_|maxvit_|"
    r"r3d_|mc3_|r2plus1d_|s3d|mvit_|raft_|fcn_|deeplabv3_|lraspp_|fcos_|retinanet_|ssd(lite)?\d|"
    r"(faster|mask|keypoint)rcnn_)"
)
_CROPS = 1000  # embedded crops, unless more rows are asked for

_LAST = ("batch", "height", "width", "feature")
_SECOND = ("batch", "channel", "height", "width")
# Architectures that keep images in two layouts, so that the axes of a block cannot be told from the
# convolutions and norms around it. The first pattern that fits a path decides.
_AXES: dict[str, dict[str, tuple[str, ...]]] = {
    "SwinTransformer": {"features.0.0": _SECOND, "features.*": _LAST, "permute": _SECOND},
    "ConvNeXt": {
        "features.*.block.[1-5]": _LAST,
        "features.*.block.0": _SECOND,
        "features.*.block.6": _SECOND,
        "features.*": _SECOND,
    },
    "MaxVit": {
        "stem*": _SECOND,
        "blocks.[0-9]": _SECOND,
        "blocks.[0-9].layers.[0-9]": _SECOND,
        "blocks.[0-9].layers.[0-9][0-9]": _SECOND,
    },
}


class TorchvisionAdapter(ModuleAdapter):
    """A model of torchvision, or any other model that takes images [batch, 3, height, width].

    Args:
        model: a live model, or a name that `torchvision.models.list_models()` knows.
        weights: for a name, what `get_model` loads (and may download): "DEFAULT" or the name of an
            entry of the model's weights enum; None initialises at random. For a live model, the
            entry it was loaded from ("ResNet18_Weights.IMAGENET1K_V1"), which decides the
            preprocessing.
        init_seed: of the random initialisation; the global random state stays as it was.
        transform: what makes a float tensor [3, height, width] of an RGB PIL image. By default the
            transform of the weights, without weights that of the model's default weights (its
            metadata: nothing is downloaded), else ImageNet's (resized to 256, cut to 224,
            normalised).
        size: height and width of the images the model gets, where the default of the transform
            does not fit it: each is scaled to cover size x size and the centre is cut.
        device: where to put a model given by name.
        axes: as for the `module` adapter.

    Raises:
        ModelError: for an unknown name or weights, and weights that do not load.
        PluginError: when torchvision is needed and missing.
    """

    name = "torchvision"
    generic = False

    def __init__(
        self,
        model: nn.Module | str,
        *,
        weights: Any = None,
        init_seed: int = 0,
        transform: Transform | None = None,
        size: int | None = None,
        device: str | None = None,
        axes: Mapping[str, Sequence[str]] | Sequence[str] | None = None,
    ) -> None:
        self._name = model if isinstance(model, str) else None
        self._init_seed = init_seed
        self._own_transform = transform
        self._size = size
        if isinstance(model, str):
            self._weights = _weights_of(model, weights)
            device = None if device is None else device_named(device)
            model = _load(model, self._weights, init_seed)
            if device is not None:
                model = model.to(device)
        else:
            self._weights = _weights_named(weights)
            if device is not None:
                raise ModelError("device= is for models given by name; move a live model yourself")
        super().__init__(model, axes=axes if axes is not None else _known_axes(model))

    @classmethod
    def accepts(cls, model: object) -> bool:
        """A live model whose class, or a base of it, is torchvision's; and torchvision's names."""
        if isinstance(model, nn.Module):
            return _home(model) is not None
        if not isinstance(model, str) or len(model) > 64 or not re.fullmatch(r"\w+", model):
            return False
        try:
            from torchvision.models import list_models
        except (ImportError, RuntimeError):  # RuntimeError: built for another torch
            # Claimed by its looks, so that what is missing is said: no hub has heard of it.
            return _FAMILIES.match(model) is not None
        return model in list_models()

    def default_sites(self, sites: Sequence[Site]) -> list[str]:
        """The stem and the output of every block: `maxpool`, `layer1.0`, ... for ResNets.

        Models without blocks (VGG, AlexNet) have their activation functions.
        """
        found = sites_at(block_paths(self._model), [s.name for s in sites])
        return found or super().default_sites(sites)

    # -- data ------------------------------------------------------------------------------------

    def batches(self, data: Any, options: DataOptions) -> Iterable[Batch]:
        """Batches of images, or tensors as they are.

        Args:
            data: a folder of images, "cifar10" or "cifar10:FOLDER", None for crops of the two
                photographs that scikit-learn ships, what `data.image_pictures` makes, or images of
                Pillow, paths of images, arrays of bytes and data sets of them (with labels or
                without), which all go through the transform; or tensors of floats [rows, 3, height,
                width], rows or loaders of them, which do not.
        """
        if data is None or isinstance(data, str | Path | Pictures):
            return self._images(data, options)
        clips = self._takes_clips()
        given = incoming(data, text_field=options.text_field, images=not clips)
        pictures = None if clips else pictures_of(given)
        if pictures is not None:
            return self._images(pictures, options)
        return tensor_batches(given, options)

    def example(self) -> Batch | None:
        """Two embedded crops; None for a model that does not take images."""
        if self._takes_clips():
            return None
        return next(iter(self.batches(None, DataOptions(batch_size=2, limit=2))))

    def _images(self, data: Any, options: DataOptions) -> Iterator[Batch]:
        if self._takes_clips():
            raise DataError(
                f"{type(self._model).__name__} takes video clips or pairs of frames, not images; "
                "pass tensors or a DataLoader"
            )
        transform, side, resizes = self._transform()
        pictures: dict[str, Any] = {}
        if data is None or data == "embedded":
            # Cut at the size they are used at, so that photographs keep their own statistics.
            pictures = {
                "size": side if side is None else min(side, PHOTOGRAPH),
                "seed": options.seed,
                "crops": max(_CROPS, options.limit or 0),
            }
        elif not isinstance(data, Pictures) and not resizes:
            pictures = {"size": self._size}
        for batch in image_batches(
            data,
            transform=transform,
            batch_size=options.batch_size,
            limit=options.limit,
            shard=options.shard,
            content=options.content,
            **pictures,
        ):
            yield Batch(batch.pixels, rows=batch.rows, labels=batch.labels)

    def _transform(self) -> tuple[Transform, int | None, bool]:
        """The transform, the side of the images it begins with, and whether it resizes them."""
        if self._own_transform is not None:
            return self._own_transform, self._size, False
        models = _models()
        entry = self._weights
        if entry is None and self._name is not None:
            entry = getattr(models.get_model_weights(self._name), "DEFAULT", None)
        make = (entry if entry is not None else models.ResNet18_Weights.IMAGENET1K_V1).transforms
        if "crop_size" not in inspect.signature(make).parameters:
            return make(), self._size, False
        side = self._size
        if side is None and entry is None:
            # A vision transformer reads one size only, and says which.
            side = getattr(self._model, "image_size", None)
        transform = make() if side is None else make(crop_size=side, resize_size=side)
        first = transform.resize_size
        return transform, first[0] if isinstance(first, list | tuple) else first, True

    def _takes_clips(self) -> bool:
        home = _home(self._model) or ""
        return home.startswith((f"{_HOME}.video", f"{_HOME}.optical_flow"))

    def describe(self) -> dict[str, Any]:
        """Adds name, weights, seed of a random initialisation, transform of images and version."""
        loaded = self._name is not None and self._weights is not None
        return {
            **super().describe(),
            "name": self._name,
            "weights": None if self._weights is None else str(self._weights),
            "init_seed": None if self._name is None or loaded else self._init_seed,
            "transform": None if self._takes_clips() else _shown(self._transform()[0]),
            "size": self._size,
            "torchvision": _version(),
        }


def _home(model: nn.Module) -> str | None:
    """The module of torchvision that a model's class comes from."""
    homes = (c.__module__ for c in type(model).__mro__)
    return next((home for home in homes if home.startswith(f"{_HOME}.")), None)


def _known_axes(model: nn.Module) -> dict[str, tuple[str, ...]] | None:
    names = [c.__name__ for c in type(model).__mro__ if c.__module__.startswith(f"{_HOME}.")]
    return next((_AXES[name] for name in names if name in _AXES), None)


def _models() -> Any:
    try:
        from torchvision import models
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise missing_extra("torchvision", "torchvision", "the torchvision adapter") from error
    except (ImportError, RuntimeError) as error:  # a build for another torch
        raise ModelError(
            f"torchvision does not import ({cause(error)}); install the build that belongs to the "
            "installed torch"
        ) from error
    return models


def _weights_of(name: str, weights: Any) -> Any:
    """The entry of the weights enum of the model `name` that is meant, None for none."""
    models = _models()
    known = models.list_models()
    if name not in known:
        raise ModelError(
            f"torchvision has no model {name!r}{near(name, known)}; see "
            "torchvision.models.list_models()"
        )
    if weights is None:
        return None
    enum = models.get_model_weights(name)
    if isinstance(weights, enum):
        return weights
    found = None
    if isinstance(weights, str):
        found = enum.__members__.get(weights.removeprefix(f"{enum.__name__}."))
    if found is None:
        raise ModelError(
            f"{name!r} has no weights {str(weights)!r}{near(str(weights), enum.__members__)} "
            f"(there are: {', '.join(enum.__members__) or 'none'}); None initialises at random"
        )
    return found


def _weights_named(weights: Any) -> Any:
    """The entry of a weights enum with its full name, for the transform of a live model."""
    if not isinstance(weights, str):
        return weights
    try:
        return _models().get_weight(weights)
    except (ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            f"torchvision has no weights {weights!r}; for a live model give their full name, such "
            "as 'ResNet18_Weights.IMAGENET1K_V1', or your own transform="
        ) from error


def _load(name: str, weights: Any, init_seed: int) -> nn.Module:
    models = _models()
    builder = models.get_model_builder(name)
    options: dict[str, Any] = {}
    if weights is None and "weights_backbone" in inspect.signature(builder).parameters:
        # The builders of detectors load a pretrained backbone unless told not to.
        options["weights_backbone"] = None
    if weights is None and name.removeprefix("quantized_") in ("googlenet", "inception_v3"):
        options["init_weights"] = True  # the default, which warns unless it is spelt out
    if weights is None:
        with undisturbed():
            seed_torch(init_seed)
            model: nn.Module = builder(weights=None, **options)
        return model
    try:
        loaded: nn.Module = builder(weights=weights)
    except Exception as error:  # the download, the file system and the unpickler raise their own
        raise ModelError(
            f"the weights {weights} of {name!r} do not load ({cause(error)[:300]}); check the "
            f"network and the disk, or leave weights out for a random initialisation"
        ) from error
    return loaded


def _shown(transform: Transform) -> str:
    """A transform in one line that is the same in every process."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(repr(transform).split()))


def _version() -> str | None:
    if "torchvision" not in sys.modules:
        return None
    try:
        return version("torchvision")
    except PackageNotFoundError:
        return None
