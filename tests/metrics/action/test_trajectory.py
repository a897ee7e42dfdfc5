"""Trajectories against projections written out; the files, the plots, and what they follow."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from walks import path

import polycode_plugins as pc
from polycode_plugins import theory
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics import Trajectories, trajectories


def energy(points):
    return 0.5 * np.square(np.diff(points, axis=-2)).sum(axis=(-2, -1))


# -- what they are -----------------------------------------------------------------------------


@pytest.mark.parametrize("dimensions", [1, 3])
def test_points_are_the_path_times_each_projection(dimensions):
    values = path()
    found = pc.metrics.trajectories(values, 20, dimensions)
    assert found.points.shape == (20, 40, dimensions)
    for i in (0, 7, 19):
        assert np.allclose(found.points[i], values @ found.projection(i), rtol=1e-12)
    assert np.allclose(found.actions, energy(found.points), rtol=1e-12)
    assert found.expected == pytest.approx(theory.expected_action(values, dimensions))


def test_projections_are_independent_normals_of_variance_one_over_width():
    found = trajectories(path(2, 50), 400)
    drawn = np.stack([found.projection(i) for i in range(400)])
    assert drawn.mean() == pytest.approx(0, abs=4 / drawn.size**0.5 / 50**0.5)
    assert drawn.var() * 50 == pytest.approx(1, abs=4 * (2 / drawn.size) ** 0.5)
    flat = drawn.reshape(400, -1)
    assert np.abs(np.corrcoef(flat) - np.eye(400)).max() < 6 / 150**0.5


def test_the_mean_action_is_the_exact_one():
    values = path(200, 512)
    found = trajectories(values, 1000, keep=1)
    assert found.actions.mean() == pytest.approx(found.expected, rel=0.015)


def test_the_smallest_are_those_of_all(monkeypatch):
    values = torch.from_numpy(path()).float()
    every, few = trajectories(values, 200, seed=3), trajectories(values, 200, seed=3, keep=5)
    order = np.argsort(every.actions)[:5]
    assert few.index.tolist() == order.tolist()
    assert np.allclose(few.points, every.points[order])
    assert np.array_equal(few.actions, every.actions)
    assert every.smallest(5).index.tolist() == order.tolist()
    assert np.all(np.diff(few.kept_actions) >= 0)
    assert len(few) == 5
    assert few.smallest(5).index.tolist() == order.tolist()
    assert few.smallest().index.tolist() == order[:1].tolist()
    # Whatever is drawn at a time, projection i is the same.
    monkeypatch.setattr("polycode_plugins.metrics.action.trajectory.CHUNK_VALUES", 300)
    assert np.allclose(trajectories(values, 200, seed=3).points, every.points)
    assert not np.allclose(trajectories(values, 200, seed=4).points, every.points)


# -- what they follow ------------------------------------------------------------------------------


# -- files and plots -------------------------------------------------------------------------------


def test_files_round_trip_and_numpy_reads_them(tmp_path):
    labels = [f"t{i}\n" for i in range(39)] + ["日本"]
    found = trajectories(path(), 30, 1, keep=4, labels=labels)
    target = found.save(tmp_path / "deep" / "text.npz", pdf=True)
    assert (tmp_path / "deep" / "text.pdf").read_bytes().startswith(b"%PDF")
    assert sorted(f.name for f in (tmp_path / "deep").iterdir()) == ["text.npz", "text.pdf"]
    again = Trajectories.load(target)
    for name in ("points", "index", "actions"):
        assert np.array_equal(getattr(again, name), getattr(found, name))
    assert (again.expected, again.width, again.seed) == (found.expected, 12, 0)
    assert again.labels == tuple(labels)
    assert np.array_equal(again.projection(7), found.projection(7))
    with np.load(target, allow_pickle=False) as arrays:
        assert np.array_equal(arrays["points"], found.points)
        assert json.loads(str(arrays["labels"])) == labels


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut", b"no archive", None])
def test_a_file_that_is_no_trajectories_is_refused(content, tmp_path):
    target = tmp_path / "x.npz"
    if content is not None:
        target.write_bytes(content)
    with pytest.raises(StateError, match="holds no trajectories"):
        Trajectories.load(target)
    np.savez(target, other=np.zeros(3))
    with pytest.raises(StateError, match="holds no trajectories"):
        Trajectories.load(target)
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="cannot write"):
        trajectories(path(), 2).save(tmp_path / "file" / "x.npz")


# -- the one that a report keeps ---------------------------------------------------------------


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: trajectories(path(1)), "single time step"),
        (lambda: trajectories(np.zeros((2, 3, 4))), "has 3 axes"),
        (lambda: trajectories(np.full((2, 3), np.nan)), "NaN or infinite"),
        (lambda: trajectories(path(), 0), "projections must be"),
        (lambda: trajectories(path(), dimensions=0), "dimensions must be"),
        (lambda: trajectories(path(), 5, keep=6), "keep is from 1 to 5"),
        (lambda: trajectories(path(), seed=-1), "seed must be"),
        (lambda: trajectories(path(), labels=["a"]), "1 labels do not fit 40"),
        (lambda: trajectories(path(40000, 2), 2000), "keep fewer"),
        (lambda: trajectories(path(), 5).smallest(6), "5 trajectories are kept"),
        (lambda: trajectories(path(), 5).projection(5), "0 to 4"),
        (lambda: trajectories(path(), 5).plot(0), "from 1"),
    ],
)
def test_what_cannot_be_is_one_clear_sentence(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_a_still_path_and_a_single_neuron():
    assert trajectories(np.ones((5, 3)), 4).actions == pytest.approx(0, abs=1e-25)
    found = trajectories(path(5, 1), 4)
    assert np.allclose(found.actions, energy(found.points))
