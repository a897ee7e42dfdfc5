"""Trajectories against projections written out; the files, the plots, and what they follow."""

from __future__ import annotations

import json

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import polycode_plugins as pc
from polycode_plugins import theory
from polycode_plugins.activations import Activations
from polycode_plugins.data import moving_dot
from polycode_plugins.errors import DataError, StateError
from polycode_plugins.metrics import Trajectories, stimulus_correlation, trajectories
from polycode_plugins.metrics.action import first_path as first_path_module
from polycode_plugins.metrics.action.first_path import FirstPath


def path(time=40, width=12, seed=0):
    return np.random.default_rng(seed).standard_normal((time, width)).cumsum(axis=0)


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
    # Whatever is drawn at a time, projection i is the same.
    monkeypatch.setattr("polycode_plugins.metrics.action.trajectory.CHUNK_VALUES", 300)
    assert np.allclose(trajectories(values, 200, seed=3).points, every.points)
    assert not np.allclose(trajectories(values, 200, seed=4).points, every.points)


# -- what they follow ------------------------------------------------------------------------------


def test_a_code_of_the_stimulus_alone_is_followed_in_full():
    dot = moving_dot(60)
    code = dot.positions.numpy() @ np.random.default_rng(0).standard_normal((2, 30)) + 7
    found = stimulus_correlation(code, dot.positions, projections=50)
    assert found.pearson.shape == (50, 3, 2)
    assert found.r_squared == pytest.approx(1, abs=1e-9)
    assert np.all(found.correlation <= 1)
    one = trajectories(code, 50)
    expected = np.corrcoef(one.points[4, :, 1], dot.positions[:, 0])[0, 1]
    assert found.pearson[4, 1, 0] == pytest.approx(expected, abs=1e-12)


def test_noise_follows_no_more_than_chance():
    rng = np.random.default_rng(1)
    noise, stimulus = rng.standard_normal((400, 30)), moving_dot(400, size=16).positions
    found = stimulus_correlation(noise, stimulus, projections=300)
    assert found.chance == pytest.approx(3 / 399)
    assert found.mean_r_squared < 4 * found.chance
    assert found.mean < 0.12


def test_what_does_not_move_is_undefined_and_wrong_lengths_are_refused():
    values = path()
    still = np.ones((40, 1))
    found = stimulus_correlation(values, still, projections=3)
    assert np.isnan(found.pearson).all()
    assert np.isnan(found.r_squared).all()
    assert np.isnan(stimulus_correlation(np.ones((40, 5)), values[:, :2]).mean)
    with pytest.raises(DataError, match="the stimulus has 39 time steps and the path 40"):
        stimulus_correlation(values, values[1:, :1])
    with pytest.raises(DataError, match="give seed to them"):
        stimulus_correlation(trajectories(values, 3), still, seed=1)


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


@pytest.mark.parametrize(("dimensions", "panels"), [(1, 4), (2, 4), (3, 4), (5, 4)])
def test_plots_show_every_time_step_in_its_colour(dimensions, panels):
    figure = trajectories(path(), 4, dimensions, labels=["$"] * 40).plot()
    figure.canvas.draw()
    axes = [ax for ax in figure.axes if ax.get_title().startswith("projection")]
    assert len(axes) == panels
    colours = axes[0].collections[-1].get_array()
    assert np.array_equal(np.sort(np.asarray(colours)), np.arange(40))
    plt.close(figure)


# -- the one that a report keeps ---------------------------------------------------------------


def kept(values, axes, rows, mask=None):
    found = FirstPath()
    found.update(Activations(values, axes, mask=mask, rows=rows))
    return found


def test_a_report_keeps_the_first_path_whoever_saw_it(monkeypatch):
    monkeypatch.setattr(first_path_module, "MAX_POINTS", 6)
    values, rows = torch.from_numpy(path(20, 5)), torch.arange(20)
    expected = trajectories(values[:6], 8).points
    parts = [kept(values[i], ("batch", "feature"), rows[i]) for i in (rows[3::2], rows[::2])]
    parts.append(kept(values[1:2], ("batch", "feature"), rows[1:2]))
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        total = FirstPath()
        for i in order:
            total.merge(parts[i])
        found = total.points()
        assert found is not None
        assert np.allclose(found, expected, rtol=1e-12)
        assert total.n_samples == 6
    assert parts[2].points() is None
    with pytest.raises(StateError, match="cannot be merged"):
        parts[0].merge(FirstPath(seed=1))
    with pytest.raises(StateError, match="damaged"):
        FirstPath().load_state({"counts": torch.tensor([6])})


def test_rows_without_a_number_go_on_after_a_resume():
    values = torch.from_numpy(path(9, 5))
    found = FirstPath()
    for part in values.split(2):
        resumed = found.fresh()
        resumed.load_state(found.state())
        found = resumed
        found.update(Activations(part, ("batch", "feature")))
    points = found.points()
    assert points is not None
    assert np.allclose(points, trajectories(values, 8).points)


def test_a_hole_in_the_rows_ends_the_path():
    values, mask = torch.from_numpy(path(9, 5)), torch.ones(9, dtype=torch.bool)
    mask[[0, 2, 6]] = False  # rows 3 to 5 are the first two in succession
    found = kept(values, ("batch", "feature"), torch.arange(9), mask).points()
    assert found is not None
    assert np.allclose(found, trajectories(values[3:6], 8).points)


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
