"""Image sources yield the planted pixels in a fixed order, and name the file that is wrong."""

from __future__ import annotations

import hashlib
import pickle
import struct
import sys
import zlib

import numpy as np
import pytest
import torch

from polycode_plugins.data.images import image_batches
from polycode_plugins.data.pictures import image_pictures
from polycode_plugins.errors import DataError

pytest.importorskip("PIL")
from PIL import Image, ImageFile


def plain(colour, size=(6, 4)):
    return Image.new("RGB", size, colour)


def colours(batches):
    """The colour of each image, which are of one colour each."""
    return [tuple((pixels[:, 0, 0] * 255).int().tolist()) for b in batches for pixels in b.pixels]


@pytest.fixture
def folder(tmp_path):
    for index, name in enumerate(["b/1.png", "a/2.bmp", "a/1.PNG", ".cache/x.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        plain((index, 10, 20)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_a_folder_is_read_in_the_order_of_its_paths_with_labels(folder):
    (batch,) = image_batches(folder)
    assert colours([batch]) == [(2, 10, 20), (1, 10, 20), (0, 10, 20)]
    assert batch.pixels.shape == (3, 3, 4, 6)
    assert batch.pixels.dtype == torch.float32
    assert batch.labels.tolist() == [0, 0, 1]
    assert batch.rows.tolist() == [0, 1, 2]
    plain("red").save(folder / "top.png")  # an image outside any sub-folder: no classes
    assert next(image_batches(folder)).labels is None


@pytest.mark.parametrize(("batch_size", "world"), [(1, 1), (2, 1), (1, 2), (5, 3), (2, 4)])
def test_batches_and_shards_partition_the_images(batch_size, world):
    seen = {}
    for rank in range(world):
        for batch in image_batches(
            None, size=5, crops=99, limit=11, seed=0, batch_size=batch_size, shard=(rank, world)
        ):
            assert len(batch.rows) <= batch_size
            seen |= dict(zip(batch.rows.tolist(), batch.pixels, strict=True))
    assert sorted(seen) == list(range(11))
    whole = next(image_batches(None, size=5, crops=99, batch_size=11))
    assert all(seen[row].equal(whole.pixels[row]) for row in seen)


def test_crops_are_those_of_the_photographs_and_differ():
    from sklearn.datasets import load_sample_images

    sample = load_sample_images()
    pictures = list(image_pictures("embedded", size=32, crops=200, seed=3))
    assert len({picture.origin for picture in pictures}) == 200
    for picture in pictures[:20]:
        name, _, place = picture.origin.partition("[")
        rows, columns = (slice(*map(int, p.split(":"))) for p in place.rstrip("]").split(", "))
        which = [path.endswith(name) for path in sample.filenames].index(True)
        assert np.array_equal(np.array(picture.load()), sample.images[which][rows, columns])
    assert {picture.origin.partition("[")[0] for picture in pictures} == {"china.jpg", "flower.jpg"}
    assert next(image_batches()).pixels.shape == (32, 3, 64, 64)


def test_crops_are_drawn_without_replacement():
    pictures = list(image_pictures(size=427, crops=428))  # every crop of this size that there is
    assert len({picture.origin for picture in pictures}) == 428


def test_a_seed_is_one_set_of_crops():
    def digest(**options):
        pictures = image_pictures(None, size=16, crops=20, **options)
        with pytest.raises(DataError, match="not read yet"):
            pictures.digest()
        list(image_batches(pictures, batch_size=3, shard=(1, 2)))
        return pictures.digest()

    assert digest() == digest(seed=0)
    assert digest() != digest(seed=1)


def test_the_digest_is_that_of_the_files(folder):
    pictures = image_pictures(folder)
    list(pictures)
    first = pictures.digest()
    list(image_batches(pictures, size=None, limit=3))
    assert pictures.digest() == first
    plain((9, 9, 9)).save(folder / "b" / "1.png")
    list(pictures)
    assert pictures.digest() != first


def test_images_of_different_sizes(folder):
    plain("red", size=(5, 4)).save(folder / "a" / "3.png")
    with pytest.raises(DataError, match=r"1\.PNG is 4 x 6 and .*3\.png is 4 x 5 .*give a size"):
        list(image_batches(folder))
    assert next(image_batches(folder, size=3)).pixels.shape == (4, 3, 3, 3)

    def smaller(image):
        return torch.from_numpy(np.array(image.resize((2, 2)))).permute(2, 0, 1).float() - 300

    batch = next(image_batches(folder, transform=smaller))
    assert batch.pixels.shape == (4, 3, 2, 2)
    assert batch.pixels.max() < 0


def test_a_size_scales_and_cuts_the_centre(tmp_path):
    pixels = np.zeros((40, 80, 3), dtype=np.uint8)
    pixels[:, 20:60] = 255  # the centre square is white
    Image.fromarray(pixels).save(tmp_path / "a.png")
    batch = next(image_batches(tmp_path, size=10))
    assert batch.pixels[:, :, 1:-1, 1:-1].equal(torch.ones(1, 3, 8, 8))
    assert batch.pixels.min() > 0.8  # only the edge mixes with what was cut off


def test_grey_and_transparent_images_become_rgb(tmp_path):
    Image.new("L", (3, 2), 7).save(tmp_path / "a.png")
    Image.new("RGBA", (3, 2), (1, 2, 3, 128)).save(tmp_path / "b.png")
    assert colours(image_batches(tmp_path)) == [(7, 7, 7), (1, 2, 3)]


@pytest.mark.parametrize(
    "damage", [lambda b: b[: len(b) // 2], lambda b: b"not an image", lambda b: b""]
)
def test_a_damaged_image_is_named(folder, damage):
    path = folder / "a" / "2.bmp"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"a/2\.bmp cannot be decoded"):
        list(image_batches(folder))
    # The shard that has other rows does not decode it.
    assert [b.rows.tolist() for b in image_batches(folder, shard=(0, 2))] == [[0, 2]]


def _png_of(width, height):
    """A PNG of some bytes whose header promises so many pixels."""

    def chunk(kind, content):
        code = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", code)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [
        chunk(b"IHDR", header),
        chunk(b"IDAT", zlib.compress(b"\0" * 100)),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("shape", [(10_000, 10_000), (100_000, 100_000), (2**31 - 1, 3)])
def test_a_bomb_is_refused_by_its_header(tmp_path, shape, monkeypatch):
    (tmp_path / "a.png").write_bytes(_png_of(*shape))
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(DataError, match=r"a\.png cannot be decoded"):
        list(image_batches(tmp_path))


def test_what_a_program_would_be_run_for_is_not_read(tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("it was run"))
    (tmp_path / "a.png").write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\n%%EOF\n"
    )
    with pytest.raises(DataError, match=r"a\.png cannot be decoded"):
        list(image_batches(tmp_path))


def test_sixteen_bit_images_are_refused_since_their_conversion_would_clip(tmp_path):
    Image.fromarray(np.full((2, 2), 40000, dtype=np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png cannot be decoded as an 8-bit image .*mode I"):
        list(image_batches(tmp_path))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (np.array, "ndarray"),
        (lambda image: torch.zeros(2, 2), r"torch.float32 \[2, 2\]"),
        (lambda image: torch.zeros(3, 2, 2, dtype=torch.uint8), "torch.uint8"),
    ],
)
def test_a_transform_that_makes_no_image(folder, transform, message):
    with pytest.raises(DataError, match=message):
        list(image_batches(folder, transform=transform))


def test_sources_and_arguments_that_cannot_be(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    cases = [
        ({"source": tmp_path}, r"no images .*found: \.txt"),
        ({"source": "no/such/folder"}, "not a folder"),
        ({"source": None, "size": 0}, "size is 0"),
        ({"source": None, "size": 428}, "different crops of 428 x 428 .*have 0"),
        ({"source": None, "crops": 0}, "0 different crops"),
        ({"source": None, "size": 427, "crops": 1000}, "have 428"),
        ({"source": None, "batch_size": 0}, "batch size is 0"),
        ({"source": None, "limit": -1}, "limit is -1"),
        ({"source": None, "shard": (1, 1)}, "shard 1 of 1"),
        ({"source": image_pictures(), "size": 3, "seed": 4}, "size, seed to image_pictures"),
    ]
    for options, message in cases:
        with pytest.raises(DataError, match=message):
            list(image_batches(**options))


def test_pillow_not_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(DataError, match=r"pip install 'polycode-plugins\[torchvision\]'"):
        list(image_batches(None))


def test_cifar10_through_torchvision(tmp_path, monkeypatch):
    datasets = pytest.importorskip("torchvision.datasets")
    root = tmp_path / datasets.CIFAR10.base_folder
    root.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8)
    files = {
        "test_batch": {"data": pixels.reshape(5, -1), "labels": [3, 1, 4, 1, 5]},
        "batches.meta": {"label_names": list("abcdefghij")},
    }
    sums = {}
    for name, content in files.items():
        (root / name).write_bytes(pickle.dumps(content))
        sums[name] = hashlib.md5((root / name).read_bytes()).hexdigest()
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [])
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)

    (batch,) = image_batches(f"cifar10:{tmp_path}", limit=4)
    assert batch.pixels.mul(255).round().byte().equal(torch.from_numpy(pixels[:4]))
    assert batch.labels.tolist() == [3, 1, 4, 1]
    assert next(image_batches(f"cifar10:{tmp_path}", size=16)).pixels.shape == (5, 3, 16, 16)
    (root / "test_batch").write_bytes(b"damaged")
    with pytest.raises(DataError, match=r"damaged there; fetch it .*cifar10:FOLDER"):
        list(image_batches(f"cifar10:{tmp_path}"))
    with pytest.raises(DataError, match="no split 'validation'"):
        list(image_batches("cifar10", split="validation"))
