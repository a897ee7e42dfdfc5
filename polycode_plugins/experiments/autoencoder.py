"""Training the autoencoder of figures 3 to 5: its settings, pictures, states and logged losses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

import polycode_plugins as pc
from polycode_plugins.data import image_batches, image_pictures
from polycode_plugins.errors import DataError, PluginError, near
from polycode_plugins.experiments.resnet_vae import ResNetVAE, negative_elbo
from polycode_plugins.experiments.training import check_device, seeded, train

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOGS = ("tensorboard", "wandb")
#: The embedded photographs are cut at these multiples of the size, and scaled down to it.
ZOOMS = (1, 2, 4)


@dataclass(frozen=True)
class Training:
    """How the autoencoders are trained, and on how much they are analysed.

    data: "embedded" (crops of two photographs at three scales), or what `data.image_pictures`
      reads: "cifar10:FOLDER" or a folder of pictures.
    images: how many pictures are trained on.
    size: their height and width for the network.
    channels, hidden, latent: of the network, see `ResNetVAE`.
    pretrained: begin with torchvision's ResNet-18 (downloaded once; 64 channels).
    epochs, batch, rate: of Adam.
    networks: trained from different seeds, so that intervals over networks can be given.
    log: "tensorboard" or "wandb" to log losses there, "" for nowhere.
    log_folder: of TensorBoard's files.
    device: where it trains.
    analysed: other pictures, of which spectra are taken.
    first_rank, last_rank: of the fitted power laws.
    """

    data: str = "embedded"
    images: int = 6000
    size: int = 32
    channels: int = 16
    hidden: int = 256
    latent: int = 64
    pretrained: bool = False
    epochs: int = 6
    batch: int = 50
    rate: float = 1e-3
    networks: int = 4
    log: str = ""
    log_folder: str = "out/losses"
    device: str = "cpu"
    analysed: int = 1000
    first_rank: int = 11
    last_rank: int = 500

    @property
    def ranks(self) -> tuple[int, int]:
        """First and last rank of a fit."""
        return self.first_rank, self.last_rank


#: What the paper states; the number of networks aside, of which it trained one.
PUBLISHED: dict[str, Any] = {
    "data": "cifar10:data",
    "images": 50_000,
    "size": 224,
    "channels": 64,
    "hidden": 1024,
    "latent": 256,
    "pretrained": True,
    "epochs": 200,
    "networks": 3,
    "device": "cuda",
    "analysed": 2000,
}
SMOKE: dict[str, Any] = {
    "images": 100,
    "size": 16,
    "channels": 4,
    "hidden": 24,
    "latent": 8,
    "epochs": 2,
    "batch": 20,
    "networks": 2,
    "analysed": 60,
    "first_rank": 1,
    "last_rank": 12,
}


def pictures(data: str, count: int, size: int, seed: int, split: str = "train") -> Tensor:
    """uint8 [count, 3, side, side]; `side` is the size, or less for pictures that are smaller.

    The embedded photographs give as many crops of each scale of `ZOOMS`, in random order.

    Raises:
        DataError: for a source that does not exist, or holds too few pictures.
    """
    if data != "embedded":
        side = min(size, 32) if data.startswith("cifar10") else size
        source = image_pictures(data, size=side, split=split)
        found = [b.pixels for b in image_batches(source, batch_size=256, limit=count)]
        pixels = torch.cat(found)
        if len(pixels) < count:
            raise DataError(
                f"{data!r} holds {len(pixels)} pictures, and {count} were asked for; ask for fewer"
            )
        return (pixels * 255).round().byte()

    def scaled(image: Any) -> Tensor:
        small = np.array(image.resize((size, size)))
        return rearrange(
            torch.from_numpy(small), "height width colour -> colour height width"
        ).float()

    parts = []
    for number, zoom in enumerate(ZOOMS):
        crops = len(range(number, count, len(ZOOMS)))
        if crops:
            drawn = seeded(seed, number).initial_seed()
            source = image_pictures("embedded", size=size * zoom, crops=crops, seed=drawn)
            found = [b.pixels for b in image_batches(source, transform=scaled, batch_size=256)]
            parts.append(torch.cat(found).byte())
    joined = torch.cat(parts)
    return joined[torch.randperm(len(joined), generator=seeded(seed, len(ZOOMS)))]


def as_input(pixels: Tensor, size: int, device: str = "cpu") -> Tensor:
    """uint8 pictures as the network takes them: float32 [batch, 3, size, size] in 0..1."""
    x = pixels.to(device).float() / 255
    if x.shape[-1] != size:
        x = functional.interpolate(x, (size, size), mode="bilinear", antialias=True)
    return x.clamp_(0, 1)


@dataclass(frozen=True)
class Inputs:
    """Pictures as batches for `pc.analyze`, scaled one batch at a time."""

    pixels: Tensor
    size: int
    batch: int = 50

    def __iter__(self) -> Iterator[Tensor]:
        for start in range(0, len(self.pixels), self.batch):
            yield as_input(self.pixels[start : start + self.batch], self.size)


def made(settings: Training, dropout: float, network: int, seed: int) -> ResNetVAE:
    """An untrained autoencoder; equal seeds give equal weights whatever the dropout.

    Raises:
        ModelError: for a device that is not there.
        DataError: for pretrained weights of another number of channels.
    """
    check_device(settings.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seeded(seed, network).initial_seed())
        model = ResNetVAE(
            size=settings.size,
            channels=settings.channels,
            hidden=settings.hidden,
            latent=settings.latent,
            dropout=dropout,
        )
    if settings.pretrained:
        if settings.channels != 64:
            raise DataError("torchvision's ResNet-18 has 64 channels; set channels to 64")
        known: Any = pc.load("resnet18", adapter="torchvision", weights="DEFAULT").model
        states = {k: v for k, v in known.state_dict().items() if not k.startswith("fc.")}
        model.load_state_dict(states, strict=False)
    return model.to(settings.device).eval()


def trained(
    settings: Training,
    pixels: Tensor,
    dropout: float,
    network: int,
    seed: int,
    folder: Path,
) -> tuple[ResNetVAE, NDArray[np.float64]]:
    """An autoencoder in evaluation mode, and its losses [logged, 2]: step, nats per picture.

    Its state is kept in `folder`, so that an interrupted training goes on; networks of one number
    begin alike and see the same pictures in the same order, whatever their dropout.

    Raises:
        PluginError: for a log that is unknown or not installed.
    """
    name = f"dropout-{dropout:g}-network-{network}"
    log = loss_log(settings.log, Path(settings.log_folder), name)
    model = made(settings, dropout, network, seed)
    per_epoch = max(1, len(pixels) // settings.batch)
    orders: dict[int, Tensor] = {}

    def loss_of(step: int) -> Tensor:
        epoch, place = divmod(step, per_epoch)
        if epoch not in orders:
            orders.clear()
            orders[epoch] = torch.randperm(len(pixels), generator=seeded(seed, network, epoch))
        rows = orders[epoch][place * settings.batch : (place + 1) * settings.batch]
        return negative_elbo(model, as_input(pixels[rows], settings.size, settings.device)).mean()

    losses = train(
        model,
        torch.optim.Adam(model.parameters(), lr=settings.rate),
        loss_of,
        settings.epochs * per_epoch,
        seed=seeded(seed, network).initial_seed(),
        path=folder / f"{name}.safetensors",
        log=log,
        every=max(1, per_epoch // 4),
        label=name,
    )
    return model, losses


def reconstructed(model: ResNetVAE, x: Tensor) -> Tensor:
    """float32 [batch, 3, size, size] in 0..1, on the CPU; in the modes the modules are in."""
    device = next(model.parameters()).device
    with torch.no_grad():
        seen: Tensor = model(x.to(device))[0].sigmoid().cpu()
    return seen


def explained(model: ResNetVAE, pixels: Tensor, dropout: float = 0.0, seed: int = 0) -> float:
    """Share of the variance of pictures around their mean that is reconstructed, at most 1.

    With `dropout`, at that rate after every ReLU, whatever the model was trained with; the code is
    its mean. The model is left in evaluation mode.
    """
    drops = [m for m in model.modules() if isinstance(m, nn.Dropout)]
    before = [m.p for m in drops]
    mean = torch.cat(list(Inputs(pixels, model.size))).mean(0)
    error, total = 0.0, 0.0
    model.eval()
    try:
        for drop in drops:
            drop.p = dropout
            drop.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeded(seed, 1).initial_seed())
            for x in Inputs(pixels, model.size):
                error += float((reconstructed(model, x) - x).square().sum())
                total += float((mean - x).square().sum())
    finally:
        model.eval()
        for drop, p in zip(drops, before, strict=True):
            drop.p = p
    return 1 - error / total


def loss_log(kind: str, folder: Path, name: str) -> Callable[[int, float], None] | None:
    """What writes (step, loss) to TensorBoard or Weights & Biases; None for "".

    Raises:
        PluginError: for another kind, and for a package that is not installed.
    """
    if not kind:
        return None
    if kind not in LOGS:
        raise PluginError(f"losses go to {' or '.join(LOGS)}, not {kind!r}{near(kind, LOGS)}")
    home = "torch.utils.tensorboard" if kind == "tensorboard" else "wandb"
    try:
        library = import_module(home)
    except ImportError as error:
        raise PluginError(
            f"logging to {kind} needs a package that cannot be imported ({error}); install it "
            f"with: pip install {kind}"
        ) from error
    opened: list[Any] = []  # when the first loss comes: a finished training has none

    def to_tensorboard(step: int, loss: float) -> None:
        if not opened:
            opened.append(library.SummaryWriter(str(folder / name)))
        opened[0].add_scalar("loss", loss, step)
        opened[0].flush()

    def to_wandb(step: int, loss: float) -> None:
        if not opened:
            project = "polycode-autoencoder"
            opened.append(library.init(project=project, name=name, reinit="finish_previous"))
        opened[0].log({"loss": loss}, step=step)

    return to_tensorboard if kind == "tensorboard" else to_wandb
