"""The variational autoencoder of Marshall & Kirchner 2024: a ResNet-18 with dropout encodes.

Supplement 1: a ResNet-18, two dense layers, a latent code, a decoder of transposed convolutions,
and dropout of adjustable rate after every ReLU. Here at any size of image and number of channels.
"""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

#: The outputs of stem, residual blocks and dense layers, in order of depth.
HIDDEN = (
    "relu",
    *(f"layer{layer}.{block}.relu2" for layer in (1, 2, 3, 4) for block in (0, 1)),
    "dense1.relu",
    "dense2.relu",
)


class Block(nn.Module):
    """A residual block; its parameters have torchvision's names."""

    def __init__(self, before: int, channels: int, stride: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.drop1 = nn.Dropout(dropout)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()
        self.drop2 = nn.Dropout(dropout)
        self.downsample: nn.Module = nn.Identity()
        if before != channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, height / stride, width / stride]."""
        inner = self.drop1(self.relu1(self.bn1(self.conv1(x))))
        out: Tensor = self.drop2(self.relu2(self.bn2(self.conv2(inner)) + self.downsample(x)))
        return out


class Dense(nn.Module):
    """A dense layer with batch normalisation, ReLU and dropout."""

    def __init__(self, before: int, width: int, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(before, width)
        self.bn = nn.BatchNorm1d(width)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, width]."""
        out: Tensor = self.drop(self.relu(self.bn(self.linear(x))))
        return out


class ResNetVAE(nn.Module):
    """Images [batch, 3, size, size] in 0..1 to (reconstruction, mean, log variance).

    Args:
        size: height and width of the images, at least 16.
        channels: of the first layer; 64 makes a ResNet-18, whose weights fit by name.
        hidden: width of the two dense layers.
        latent: dimensions of the code.
        dropout: rate after every ReLU, of encoder and decoder.
    """

    def __init__(
        self,
        *,
        size: int = 224,
        channels: int = 64,
        hidden: int = 1024,
        latent: int = 256,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.size = size
        self.conv1 = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.drop = nn.Dropout(dropout)
        # The stem of a ResNet divides a picture by four, which leaves nothing of a small one.
        self.maxpool: nn.Module = nn.MaxPool2d(3, 2, 1) if size >= 64 else nn.Identity()
        before = channels
        for number in range(4):
            width, stride = channels * 2**number, 2 if number else 1
            layer = nn.Sequential(
                Block(before, width, stride, dropout), Block(width, width, 1, dropout)
            )
            setattr(self, f"layer{number + 1}", layer)
            before = width
        self.dense1 = Dense(before, hidden, dropout)
        self.dense2 = Dense(hidden, hidden, dropout)
        self.mean = nn.Linear(hidden, latent)
        self.log_variance = nn.Linear(hidden, latent)
        self.decode1 = Dense(latent, hidden, dropout)
        self.decode2 = Dense(hidden, channels * 4 * 4, dropout)
        self.up = nn.Sequential(
            _up(channels, channels, dropout),
            _up(channels, channels // 2, dropout),
            nn.ConvTranspose2d(channels // 2, 3, 4, 2, 1),
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance of the code, [batch, latent] each."""
        x = self.maxpool(self.drop(self.relu(self.bn1(self.conv1(2 * x - 1)))))
        for number in (1, 2, 3, 4):
            x = getattr(self, f"layer{number}")(x)
        x = self.dense2(self.dense1(x.mean((2, 3))))
        return self.mean(x), self.log_variance(x)

    def decode(self, code: Tensor) -> Tensor:
        """Pixels as logits, [batch, 3, size, size]."""
        x: Tensor = self.decode2(self.decode1(code))
        x = self.up(
            rearrange(x, "batch (channel row column) -> batch channel row column", row=4, column=4)
        )
        scaled: Tensor = functional.interpolate(x, (self.size, self.size), mode="bilinear")
        return scaled

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, mean and log variance; in evaluation the code is its mean."""
        mean, log_variance = self.encode(x)
        code = mean
        if self.training:
            code = mean + torch.randn_like(mean) * (log_variance / 2).exp()
        return self.decode(code), mean, log_variance


def _up(before: int, channels: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(before, channels, 4, 2, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(),
        nn.Dropout(dropout),
    )


def negative_elbo(model: ResNetVAE, x: Tensor) -> Tensor:
    """[batch], nats: binary cross-entropy summed over pixels, and the divergence of the code."""
    logits, mean, log_variance = model(x)
    error = functional.binary_cross_entropy_with_logits(logits, x, reduction="none")
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    total: Tensor = error.sum((1, 2, 3)) + divergence.sum(1)
    return total
