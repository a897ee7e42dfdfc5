"""Trajectories drawn."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from walks import path

from polycode_plugins.metrics import trajectories


@pytest.mark.parametrize(("dimensions", "panels"), [(1, 4), (2, 4), (3, 4), (5, 4)])
def test_plots_show_every_time_step_in_its_colour(dimensions, panels):
    figure = trajectories(path(), 4, dimensions, labels=["$"] * 40).plot()
    figure.canvas.draw()
    axes = [ax for ax in figure.axes if ax.get_title().startswith("projection")]
    assert len(axes) == panels
    colours = axes[0].collections[-1].get_array()
    assert np.array_equal(np.sort(np.asarray(colours)), np.arange(40))
    plt.close(figure)
