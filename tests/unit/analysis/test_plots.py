"""Figures: what is drawn where, and that one style reaches all of it."""

import matplotlib
import numpy as np
import pytest
from scipy import stats

from optsde.analysis import Estimate, Spike, estimate, stack
from optsde.analysis.plots import (
    COLOURS,
    STYLE,
    band,
    colours,
    curves,
    heat_map,
    label,
    mark_spikes,
    name_rows,
    new_figure,
    plain_log_axis,
    plain_symlog_axis,
    points,
    save,
    shared_legend,
    spans,
)

X = np.arange(5.0)
VALUES = np.random.default_rng(0).normal(size=(4, 5))


@pytest.fixture
def ax():
    return new_figure(1)[1][0]


def test_the_style_needs_no_context_and_leaves_none(tmp_path):
    before = dict(matplotlib.rcParams)
    figure, axes = new_figure(2, rows=2)
    assert len(axes) == 4
    band(axes[0], X, estimate(VALUES), label="a", colour=COLOURS[0])
    label(axes[0], x="step", y="loss", title="one", legend="best", legend_title="of")
    shared_legend(figure, axes[0], "upper")
    assert axes[0].title.get_fontsize() == STYLE["axes.titlesize"]
    assert axes[0].xaxis.label.get_fontsize() == STYLE["axes.labelsize"]
    legend = axes[0].get_legend()
    assert legend.get_texts()[0].get_fontsize() == STYLE["legend.fontsize"]
    assert legend.get_title().get_text() == "of"
    assert not legend.get_frame_on()
    assert not axes[1].spines["top"].get_visible()
    save(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 0
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")
    assert dict(matplotlib.rcParams) == before


def test_panels_get_letters_and_greek_subscripts(tmp_path):
    figure, axes = new_figure(2)
    image = heat_map(axes[0], [1, 2], [1, 2], np.ones((2, 2)))
    figure.colorbar(image, ax=axes[0])
    label(axes[1], x="rate in η_crit")
    save(figure, tmp_path / "figure.png")
    assert [[x.get_text() for x in ax.texts] for ax in axes] == [["(a)"], ["(b)"]]
    assert axes[1].get_xlabel() == r"rate in $η_{\mathrm{crit}}$"
    figure, (ax,) = new_figure(1)
    save(figure, tmp_path / "one.png")
    assert not ax.texts


def test_bands_and_points_are_students_intervals(ax):
    half = stats.t.ppf(0.975, 3) * stats.sem(VALUES)
    band(ax, X, estimate(VALUES), colour=COLOURS[0])
    shape = ax.collections[0].get_paths()[0].vertices
    assert shape[:, 1].max() == pytest.approx((VALUES.mean(0) + half).max())
    each = stack(estimate(column) for column in VALUES.T)
    for across in (False, True):
        points(ax, X, each, colour=COLOURS[1], across=across)
        axis = 0 if across else 1
        found = np.array([s[:, axis] for s in ax.collections[-1].get_segments()])
        expected = [VALUES.mean(0) - half, VALUES.mean(0) + half]
        np.testing.assert_allclose(found.T, expected)
    points(ax, 1, Estimate(2.0, 0.1, 5), colour=COLOURS[1])


def test_two_replicas_leave_their_curve_to_be_seen(ax):
    band(ax, X, estimate(VALUES[:2]), colour=COLOURS[0])
    plain = new_figure(1)[1][0]
    plain.plot(X, VALUES[:2].T)  # the mean ± s.e. of two replicas are the two
    np.testing.assert_allclose(
        [*ax.get_xlim(), *ax.get_ylim()], [*plain.get_xlim(), *plain.get_ylim()]
    )


def test_curves_of_all_replicas_and_their_centre(ax):
    curves(ax, X, VALUES, label="all", colour=COLOURS[2])
    assert len(ax.lines) == 5
    np.testing.assert_array_equal(ax.lines[-1].get_ydata(), np.median(VALUES, 0))
    assert ax.get_legend_handles_labels()[1] == ["all"]


def test_spans_and_spikes(ax):
    spans(ax, [(-1, 1)], along="y")
    mark_spikes(ax, [Spike(2, 3, 9.0, 4), Spike(6, 7, 9.0)], last=10)
    flat, one, two = ax.patches
    assert (flat.get_y(), flat.get_height()) == (-1, 2)
    assert [(p.get_x(), p.get_width()) for p in (one, two)] == [(2, 2), (6, 4)]


def test_a_heat_map_has_its_cells_around_their_values(ax):
    image = heat_map(ax, [1, 10, 100], [1, 4], np.array([[1, 2, 3], [4, np.nan, 6]]))
    assert image.get_array().mask.sum() == 1
    edges = np.asarray(image.get_coordinates())
    np.testing.assert_allclose(edges[0, :, 0], 10 ** np.array([-0.5, 0.5, 1.5, 2.5]))
    np.testing.assert_allclose(edges[:, 0, 1], [0.5, 2, 8])


def test_axes_with_plain_numbers_and_with_names(ax):
    plain_log_axis(ax, "x")
    assert ax.xaxis.get_major_formatter()(0.3) == "0.3"
    name_rows(ax, ["a", "b"])
    assert ax.get_ylim() == (1.5, -0.5)
    assert colours(range(9))[7] == COLOURS[0]


def test_an_axis_that_is_linear_about_zero_has_plain_marks(ax):
    plain_symlog_axis(ax, linear=3.0)
    ax.set_ylim(-4, 12)
    ticks = [tick for tick in ax.get_yticks() if -4 <= tick <= 12]
    assert sorted(ticks) == [-2, -1, 0, 1, 2, 5, 10]
    assert ax.yaxis.get_major_formatter()(5.0) == "5"
