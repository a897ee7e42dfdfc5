"""The moving dot is where its positions say, moves smoothly, and comes as images in order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from polycode_plugins.data import moving_dot
from polycode_plugins.data.pictures import image_pictures
from polycode_plugins.errors import DataError, PolycodeError


@pytest.mark.parametrize(
    ("size", "radius", "orbit"), [(32, None, None), (33, 2.5, 11.0), (8, 1, 2)]
)
def test_the_centre_of_light_is_on_the_circle(size, radius, orbit):
    dot = moving_dot(12, size=size, radius=radius, orbit=orbit)
    assert dot.frames.shape == (12, 3, size, size)
    light = dot.frames[:, 0].double()
    at = torch.arange(size, dtype=torch.float64) - (size - 1) / 2
    total = light.sum(dim=(1, 2))
    x = (light * at).sum(dim=(1, 2)) / total
    y = -(light * at[:, None]).sum(dim=(1, 2)) / total  # rows run downwards
    found = torch.stack([x, y], dim=1) / dot.orbit
    assert (found - dot.positions).abs().max() < 0.05
    angles = 2 * np.pi * np.arange(12) / 12
    assert np.allclose(dot.positions, np.stack([np.cos(angles), np.sin(angles)], axis=1))


def test_its_area_is_that_of_a_disc_and_its_values_are_those_of_light():
    dot = moving_dot(7, size=64, radius=9)
    area = dot.frames[:, 0].sum(dim=(1, 2))
    # A ramp one pixel wide adds pi / 12 to the area of the disc.
    assert area.numpy() == pytest.approx(np.pi * (81 + 1 / 12), rel=5e-3)
    assert float(dot.frames.min()) == 0
    assert float(dot.frames.max()) == 1
    assert torch.equal(dot.frames[:, 0], dot.frames[:, 2])


def test_many_frames_halve_their_action_when_doubled():
    energies = [
        float(moving_dot(n, size=32).frames.double().diff(dim=0).square().sum())
        for n in (400, 800, 1600)  # steps well below a pixel
    ]
    assert energies[0] / energies[1] == pytest.approx(2, rel=0.03)
    assert energies[1] / energies[2] == pytest.approx(2, rel=0.03)


def test_equal_steps_and_no_frame_twice():
    dot = moving_dot(10, size=48)
    steps = dot.positions.diff(dim=0).norm(dim=1)
    closing = (dot.positions[0] - dot.positions[-1]).norm()
    assert torch.allclose(steps, closing.expand(9))
    assert len({frame.numpy().tobytes() for frame in dot.frames}) == 10


def test_it_is_an_image_source_in_the_order_of_time():
    pytest.importorskip("PIL")
    source = image_pictures("moving-dot:9:3", size=20)
    expected = moving_dot(9, size=20, radius=3.0).frames
    for _ in range(2):  # it can be read again
        read = [np.asarray(picture.load()) for picture in source]
        assert len(read) == 9
        assert np.abs(np.stack(read) / 255 - expected.permute(0, 2, 3, 1).numpy()).max() <= 0.002
    assert [picture.id for picture in source] == list(range(9))
    assert sum(1 for _ in image_pictures("moving-dot")) == 100
    digests = []
    for name in ("moving-dot:5", "moving-dot:5:4"):
        pictures = image_pictures(name)
        list(pictures)
        digests.append(pictures.digest())
    assert digests[0] != digests[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: moving_dot(1), "frames must be a whole number from 2"),
        (lambda: moving_dot(True), "frames must be"),
        (lambda: moving_dot(size=0), "size must be"),
        (lambda: moving_dot(channels=0), "channels must be"),
        (lambda: moving_dot(radius=0), "radius must be above 0"),
        (lambda: moving_dot(orbit=float("nan")), "orbit's radius must be above 0"),
        (lambda: moving_dot(size=20, radius=6, orbit=5), "their sum may be 10"),
        (lambda: image_pictures("moving-dot:many"), "is not moving-dot:FRAMES:RADIUS"),
        (lambda: image_pictures("moving-dot:9:wide"), "is not moving-dot:FRAMES:RADIUS"),
        (lambda: image_pictures("moving-dot:1"), "frames must be"),
        (lambda: image_pictures("moving-dot:9:60"), "leaves a picture"),
    ],
)
def test_what_cannot_be_is_one_clear_sentence(make, message):
    with pytest.raises(PolycodeError, match=message) as caught:
        make()
    assert isinstance(caught.value, DataError)
