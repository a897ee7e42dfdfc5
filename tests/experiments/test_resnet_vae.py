"""The ResNet variational autoencoder."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from polycode_plugins.experiments.resnet_vae import HIDDEN, ResNetVAE, negative_elbo


def test_every_relu_is_followed_by_dropout():
    model = ResNetVAE(size=16, channels=4, hidden=8, latent=4, dropout=0.3)
    fired = []
    for module in model.modules():
        if isinstance(module, nn.ReLU | nn.Dropout):
            module.register_forward_hook(lambda m, *_: fired.append(type(m)))
    model(torch.rand(2, 3, 16, 16))
    assert fired == [nn.ReLU, nn.Dropout] * (1 + 16 + 2 + 2 + 2)
    assert all(m.p == 0.3 for m in model.modules() if isinstance(m, nn.Dropout))
    assert set(HIDDEN) < {name for name, _ in model.named_modules()}


def test_the_encoder_is_a_resnet18():
    torchvision = pytest.importorskip("torchvision")
    theirs = torchvision.models.resnet18().eval()
    ours = ResNetVAE(size=64, channels=64, hidden=8, latent=4).eval()
    state = {k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")}
    assert not ours.load_state_dict(state, strict=False).unexpected_keys
    seen = {}
    ours.layer4.register_forward_hook(lambda *a: seen.update(ours=a[2]))
    theirs.layer4.register_forward_hook(lambda *a: seen.update(theirs=a[2]))
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        ours(x)
        theirs(2 * x - 1)
    torch.testing.assert_close(seen["ours"], seen["theirs"])


def test_the_loss_is_that_of_a_variational_autoencoder():
    class Fixed(nn.Module):
        def forward(self, x):
            return torch.zeros_like(x), torch.full((len(x), 2), 3.0), torch.zeros(len(x), 2)

    x = torch.rand(5, 3, 4, 4)
    expected = 3 * 4 * 4 * np.log(2) + 2 * 9 / 2
    assert negative_elbo(Fixed(), x).numpy() == pytest.approx(np.full(5, expected), rel=1e-5)
