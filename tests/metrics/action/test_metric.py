"""The action against the trace, sampling, and a brute force written out; through every fault."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from action_walks import smooth

import polycode_plugins as pc
from polycode_plugins import theory
from polycode_plugins.activations import Activations
from polycode_plugins.errors import DataError
from polycode_plugins.metrics import Action, ActionResult, trajectories
from polycode_plugins.metrics.action import metric
from polycode_plugins.runs.analysis import Analysis


def wandering(time=200, width=512, seed=0):
    return np.random.default_rng(seed).standard_normal((time, width)).cumsum(axis=0)


def dot(frames=24, size=12):
    """[frames, 3, size, size]."""
    from polycode_plugins.data import moving_dot

    return moving_dot(frames, size=size).frames


# -- what is exact -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "static"])
@pytest.mark.parametrize(("time", "width"), [(200, 512), (300, 20), (2, 7), (9, 1)])
@pytest.mark.parametrize("dimensions", [1, 3])
def test_mean_and_variance_are_those_of_theory(kind, time, width, dimensions):
    path = wandering(time, width)
    found = Action(projections=2, dimensions=dimensions, kind=kind).measure(path)
    expected = theory.expected_action(path, dimensions, kind)
    assert found.expected == pytest.approx(expected, rel=1e-10)
    assert found.variance == pytest.approx(theory.action_variance(path, dimensions, kind), rel=1e-9)
    total = path.var(axis=0, ddof=1).sum()
    assert found.total_variance == pytest.approx(total, rel=1e-10)
    assert found.normalised == pytest.approx(expected / total, rel=1e-10)


def test_the_formula_written_out():
    path = wandering(30, 6)
    found = Action().measure(path)
    steps = np.diff(path, axis=0)
    assert found.expected == pytest.approx(3 / (2 * 6) * (steps**2).sum(), rel=1e-12)
    assert found.per_step == pytest.approx(found.expected / 29, rel=1e-12)
    variance = path.var(axis=0, ddof=1).sum()
    assert found.von_neumann_ratio == pytest.approx((steps**2).sum() / 29 / variance, rel=1e-12)
    assert (found.n_samples, found.n_steps, found.n_paths, found.width) == (30, 29, 1, 6)


def test_several_texts_give_the_mean_of_theirs_with_an_interval_that_covers():
    rng = np.random.default_rng(0)
    truth = 3 / (2 * 8) * 8 * 2 * 11  # independent points: ||d||^2 has mean 2 x width
    covered = 0
    for _ in range(100):
        texts = torch.from_numpy(rng.standard_normal((15, 12, 8)))
        found = Action(projections=2).measure(texts)
        each = [theory.expected_action(text) for text in texts]
        assert found.expected == pytest.approx(np.mean(each), rel=1e-10)
        assert found.interval is not None
        covered += found.interval[0] <= truth <= found.interval[1]
    assert 89 <= covered <= 99
    assert (found.n_paths, found.path) == (15, "position")


# -- what is sampled -----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_thousand_projections_come_within_one_and_a_half_percent(seed):
    found = Action(seed=seed).measure(wandering(seed=seed))
    assert found.monte_carlo == pytest.approx(found.expected, rel=0.015)
    assert found.actions.shape == (1000,)


@pytest.mark.parametrize("path", [smooth(), wandering(600, 40)])
def test_sampling_is_as_far_off_as_it_says(path):
    found = Action().measure(path)
    assert abs(found.monte_carlo - found.expected) < 3 * found.monte_carlo_se
    assert found.monte_carlo_sd == pytest.approx(found.sd, rel=0.15)
    assert found.monte_carlo_se == pytest.approx(found.monte_carlo_sd / 1000**0.5)


@pytest.mark.parametrize("kind", ["path", "static"])
@pytest.mark.parametrize("time", [10, 60])  # fewer and more points than neurons
def test_the_actions_drawn_have_the_distribution_of_a_brute_force(kind, time):
    from scipy.stats import ks_2samp

    path = smooth(time, 25) + 5
    rng = np.random.default_rng(3)
    seen = (path - path.mean(axis=0)) @ (rng.standard_normal((4000, 25, 3)) / 5)
    if kind == "path":
        brute = 0.5 * np.square(np.diff(seen, axis=1)).sum(axis=(1, 2))
    else:
        brute = 0.5 * np.square(seen).sum(axis=2).mean(axis=1)
    found = Action(projections=4000, kind=kind).measure(path)
    assert ks_2samp(found.actions, brute).pvalue > 0.01
    assert ks_2samp(found.actions * 1.1, brute).pvalue < 0.01


def test_the_seed_alone_decides_what_is_drawn():
    path = wandering(20, 6)
    state = torch.random.get_rng_state()
    one, two, other = (Action(projections=50, seed=s).measure(path) for s in (1, 1, 2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert np.array_equal(one.actions, two.actions)
    assert not np.array_equal(one.actions, other.actions)
    assert one.expected == other.expected


# -- what it means ---------------------------------------------------------------------------------


def test_scale_and_place_leave_the_ratios():
    path = smooth(100, 30)
    found, moved = Action().measure(path), Action().measure(1000 + 7 * path)
    assert moved.expected == pytest.approx(49 * found.expected, rel=1e-9)
    assert moved.normalised == pytest.approx(found.normalised, rel=1e-9)
    assert moved.von_neumann_ratio == pytest.approx(found.von_neumann_ratio, rel=1e-9)


def test_the_von_neumann_ratio_tells_smooth_from_shuffled_from_alternating():
    path = smooth(200, 30)
    order = np.random.default_rng(0).permutation(200)
    alternating = np.random.default_rng(1).standard_normal(30) * (-1.0) ** np.arange(100)[:, None]
    assert Action().measure(path).von_neumann_ratio < 0.1
    assert Action().measure(path[order]).von_neumann_ratio == pytest.approx(2, abs=0.2)
    assert Action().measure(alternating).von_neumann_ratio == pytest.approx(4, rel=0.05)


def test_rows_without_order_are_said_to_have_none():
    path = smooth(100, 30)
    assert Action().measure(path).warnings == ()
    shuffled = path[np.random.default_rng(0).permutation(100)]
    (warning,) = Action().measure(shuffled).warnings
    assert "order of the rows cannot be seen" in warning


def test_frames_are_a_path_along_rows_by_default():
    frames = dot()
    found = Action().measure(frames)
    flat = frames.flatten(1).double().numpy()
    assert (found.path, found.positions, found.width) == ("rows", "features", flat.shape[1])
    assert found.expected == pytest.approx(theory.expected_action(flat), rel=1e-10)
    assert found.trajectories is not None
    order = Activations(frames, ("batch", "channel", "height", "width")).matrix("features")
    assert np.allclose(found.trajectories, trajectories(order, 8).points, atol=1e-12)
    with pytest.raises(DataError, match="path='rows'"):
        Action(path="position").measure(frames)


# -- streams -------------------------------------------------------------------------------------


def run(values, batches, mask=None, axes=("batch", "feature")):
    """The metric over batches of row numbers, each gathered alone and merged in that order."""
    metric = Action(projections=20)
    total = metric.accumulators()
    for batch in batches:
        part = metric.accumulators()
        rows = torch.tensor(batch)
        for name, accumulator in part.items():
            kept = None if mask is None else mask[rows]
            accumulator.update(Activations(values[rows], axes, mask=kept, rows=rows))
            restored = accumulator.fresh()
            restored.load_state(accumulator.state())
            total[name].merge(restored)
    return metric.compute(total, pc.activations.Site("x"))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("texts", [True, False])
def test_any_split_and_order_gives_the_same_result(seed, texts, monkeypatch):
    monkeypatch.setattr("polycode_plugins.metrics.action.first_path.MAX_POINTS", 7)
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(23, *((6, 4) if texts else (4,)), generator=generator).double()
    mask = torch.rand(values.shape[:-1], generator=generator) < 0.7
    axes = ("batch", "position", "feature") if texts else ("batch", "feature")
    whole = run(values, [list(range(23))], mask, axes)
    order = torch.randperm(23, generator=generator)
    found = run(values, [part.tolist() for part in order.split(3)], mask, axes)
    for field in fields(ActionResult):
        one, two = getattr(whole, field.name), getattr(found, field.name)
        if field.name in ("actions", "trajectories"):
            assert one.shape == two.shape
            assert np.allclose(one, two, rtol=1e-9, atol=1e-12)
        elif isinstance(one, float | tuple):
            assert two == pytest.approx(one, rel=1e-10)
        else:
            assert one == two


def test_analyze_reads_texts_and_resumes_merged_shards(tmp_path):
    options = {"metrics": ["action"], "sites": "blocks.5.hook_resid_post", "limit": 6}
    whole = pc.analyze("tiny-gpt2", None, **options)
    parts = [pc.analyze("tiny-gpt2", None, shard=(i, 2), **options) for i in range(2)]
    joined = parts[0].merge(parts[1])
    (one,), (two,) = (
        [r for site in a.results.values() for r in site.values()] for a in (whole, joined)
    )
    assert one.path == "position"
    assert one.n_paths <= 6
    assert two.expected == pytest.approx(one.expected, rel=1e-10)
    assert np.allclose(one.trajectories, two.trajectories)
    whole.save(tmp_path / "run")
    (read,) = [r for s in Analysis.load(tmp_path / "run").results.values() for r in s.values()]
    assert read.to_dict() == one.to_dict()


def test_a_moving_dot_through_an_image_model():
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    model = models.resnet18(weights=None)
    options = {"size": 32, "metrics": [Action(projections=50)], "sites": "layer1"}
    moving = pc.analyze(model, "moving-dot:40:6", **options)["layer1"]["action"]
    crops = pc.analyze(model, None, limit=40, **options)["layer1"]["action"]
    assert (moving.path, moving.n_steps, crops.n_steps) == ("rows", 39, 39)
    assert moving.von_neumann_ratio < 0.5
    assert moving.warnings == ()
    assert "order of the rows" in crops.warnings[0]


def test_patches_are_no_path_unless_one_says_so():
    models = pytest.importorskip("torchvision.models")
    model = models.VisionTransformer(
        image_size=16, patch_size=8, num_layers=1, num_heads=1, hidden_dim=6, mlp_dim=8
    )
    options = {"size": 16, "sites": "encoder.layers.encoder_layer_0"}
    with pytest.raises(DataError, match="name the path"):
        pc.analyze(model, "moving-dot:9", metrics=["action"], **options)
    for path, steps in (("rows", 8), ("position", 9 * 4)):
        found = pc.analyze(model, "moving-dot:9", metrics=[Action(path=path)], **options)
        (result,) = [r for site in found.results.values() for r in site.values()]
        assert (result.path, result.n_steps) == (path, steps)


# -- results ---------------------------------------------------------------------------------------


# -- faults of numbers -----------------------------------------------------------------------------


def test_a_single_step():
    found = Action().measure(torch.tensor([[0.0, 1.0], [2.0, 0.0]]))
    assert found.expected == pytest.approx(3 / 4 * 5)
    assert (found.n_steps, found.interval) == (1, None)


def test_two_texts_have_an_interval_and_it_is_students():
    """By hand: energies 2 and 8 of a step in 2 dimensions, mean 5 and standard error 3."""
    texts = torch.tensor([[[0.0, 0.0], [1.0, 1.0]], [[0.0, 0.0], [2.0, 2.0]]])
    found = Action().measure(texts)
    assert found.expected == pytest.approx(3 / 4 * 5)
    reach = 12.706204736  # 97.5% of Student's t with one degree of freedom
    assert found.interval == pytest.approx((3 / 4 * (5 - reach * 3), 3 / 4 * (5 + reach * 3)))


@pytest.mark.parametrize(("relative", "constant"), [(0.0, True), (8.0, True), (24.0, False)])
def test_constant_is_what_varies_no_more_than_a_mean_is_rounded(relative, constant):
    """Planted: standard deviations of so many units in the last place of the mean."""
    eps, mean = 2.0**-52, torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert metric._is_constant((relative * eps * 5) ** 2, mean) == constant
    assert metric._is_constant(0.0, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize("value", [0.0, 1000.1])
@pytest.mark.parametrize("kind", ["path", "static"])
def test_a_constant_path_has_action_0_and_nothing_to_divide_by(value, kind):
    found = Action(kind=kind).measure(torch.full((500, 6), value))
    assert found.expected == pytest.approx(0, abs=1e-18)
    assert (found.normalised, found.von_neumann_ratio, found.total_variance) == (None, None, 0.0)
    (warning,) = found.warnings
    assert "every point is the same" in warning
    found.plot().figure.clear()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_low_precision_is_read_without_further_loss(dtype):
    path = torch.from_numpy(wandering(80, 10)).to(dtype)
    exact = theory.expected_action(path.double().numpy())
    assert Action().measure(path).expected == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("kind", ["path", "static"])
def test_a_coordinate_far_from_zero_costs_no_digits(kind):
    path = wandering(3000, 5)
    far = path + np.array([1000.0, 0, 0, 0, 0])
    one, two = (Action(kind=kind).measure(p) for p in (path, far))
    assert two.expected == pytest.approx(one.expected, rel=1e-9)
    assert two.total_variance == pytest.approx(one.total_variance, rel=1e-9)


def test_duplicate_frames_add_steps_but_no_action():
    path = wandering(20, 5)
    found, doubled = Action().measure(path), Action().measure(path.repeat(2, axis=0))
    assert doubled.expected == pytest.approx(found.expected, rel=1e-12)
    assert doubled.n_steps == 39


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Action().measure(torch.zeros(1, 4)), "no two successive points"),
        (lambda: Action().measure(torch.zeros(3, 1, 4)), "no two successive points"),
        (lambda: Action(kind="static").measure(torch.zeros(1, 4)), "sample"),
        (lambda: Action().measure(torch.tensor([[0.0], [float("nan")]])), "NaN or infinite"),
        (lambda: Action(projections=1), "projections must be"),
        (lambda: Action(dimensions=0), "dimensions must be"),
        (lambda: Action(seed=-1), "seed must be"),
        (lambda: Action(kind="energy"), "there is no kind"),
        (lambda: Action(path="time"), "there is no path"),
        (lambda: Action(kind="static", path="rows"), "no path"),
        (lambda: Action(path="position", positions="features"), "no path along them"),
    ],
)
def test_what_cannot_be_is_one_clear_sentence(make, message):
    with pytest.raises(DataError, match=message):
        make()


def test_a_text_whose_first_row_is_all_padding():
    texts = torch.from_numpy(wandering(4 * 5, 3).reshape(4, 5, 3))
    mask = torch.ones(4, 5, dtype=torch.bool)
    mask[0] = False
    mask[1, 2] = False  # two steps of two points each
    found = Action().measure(texts, mask=mask)
    assert found.trajectories is not None
    assert np.allclose(found.trajectories, trajectories(texts[1, :2], 8).points)
    alone = [theory.expected_action(texts[i].numpy()) for i in (2, 3)]
    broken = sum(theory.expected_action(part.numpy()) for part in (texts[1, :2], texts[1, 3:]))
    assert found.expected == pytest.approx((sum(alone) + broken) / 3, rel=1e-10)
    assert replace(found, trajectories=None).plot().get_ylabel().startswith("projections")


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [("projections", 2, 10**7), ("dimensions", 1, 10**4), ("seed", 0, 2**63)],
)
def test_settings_have_ends(name, least, most):
    for value in (least, most):
        assert getattr(Action(**{name: value}), name) == value
    for value in (least - 1, most + 1, True, float(least)):
        with pytest.raises(DataError, match=f"{name} must be a whole number from {least}"):
            Action(**{name: value})
