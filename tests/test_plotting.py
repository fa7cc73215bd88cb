"""Figures show every scalar observable with its errors, in units that are written on the axes."""

from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot

from thermodbm import InputError, ThermalCurve
from thermodbm.estimate.statistics import Estimate
from thermodbm.exact import exact_curve
from thermodbm.plotting import plot_curves
from thermodbm.run.config import parse_config

matplotlib.use("agg")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    pyplot.close("all")


def curve(J=1.0, kind="tfim", extent=6, T=(0.5, 1.0, 2.0), error=0.05, **model):
    data = {"lattice": {"kind": "chain", "extent": [extent]}, "model": {"kind": kind, "J": J, **model}, "temperature": {"T": list(T)}}
    config = parse_config(data)
    values = exact_curve(config.hamiltonian, config.betas)
    observables = {name: Estimate(v, np.full_like(v, error)) for name, v in values.items()}
    return ThermalCurve(config.temperatures, config.betas, observables, {}, ({},) * len(T), "deterministic", config.text)


def points(ax):
    return ax.containers[0].lines[0].get_xydata()


def test_panels_points_errors_and_exact_line():
    axes = plot_curves([curve()])
    panels = {ax.get_title(): ax for ax in axes}
    assert {"energy per site", "specific heat per site", "entropy per site", "transverse magnetisation"} <= set(panels)
    energy = panels["energy per site"]
    np.testing.assert_allclose(points(energy), np.column_stack([[0.5, 1, 2], curve().energy.mean]))
    (bars,) = energy.containers[0].lines[2]
    np.testing.assert_allclose(np.ptp(bars.get_segments()[0][:, 1]), 0.1)
    line = next(line for line in energy.lines if len(line.get_xdata()) == 200)
    np.testing.assert_allclose(np.interp([0.5, 2.0], *line.get_data()), curve().energy.mean[[0, 2]], rtol=1e-10)
    assert energy.get_ylabel() == r"$e\,/\,J$" and energy.get_xlabel() == r"$T\,/\,J$"


def test_axes_are_in_units_of_the_coupling():
    one, two = curve(), curve(J=2.0, gamma=2.0, T=(1.0, 2.0, 4.0))
    for first, second in zip(plot_curves([one]), plot_curves([two]), strict=True):
        np.testing.assert_allclose(points(first), points(second), atol=1e-12)
    antiferromagnet = plot_curves([curve(J=-2.0)])[0]
    assert antiferromagnet.get_xlabel() == r"$T\,/\,|J|$"
    mixed = plot_curves([curve(J=[1.0, -1.0, 0.5, 1.0, 1.0, 1.0])])[0]
    assert mixed.get_xlabel() == "$T$  ($k_B = 1$)" and mixed.get_ylabel() == "$e$"


def test_curves_overlay_with_a_legend_and_one_exact_line():
    axes = plot_curves([curve(), curve(T=(0.7, 3.0))], labels=["a", "b"])
    (legend,) = axes[0].figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["exact solution", "a", "b"]
    assert sum(len(line.get_xdata()) == 200 for line in axes[0].lines) == 1
    assert len(axes[0].containers) == 2


def test_exact_lines_of_several_models_are_named():
    axes = plot_curves([curve(), curve(J=2.0)], labels=["a", "b"])
    texts = [text.get_text() for text in axes[0].figure.legends[0].get_texts()]
    assert texts == ["exact: tfim on chain 6, J = 1, gamma = 1", "exact: tfim on chain 6, J = 2, gamma = 1", "a", "b"]
    lines = [line for line in axes[0].lines if len(line.get_xdata()) == 200]
    assert len({line.get_linestyle() for line in lines}) == 2


def test_what_is_not_trusted_is_grey_and_said_in_the_legend():
    doubtful = replace(curve(), diagnostics={"doubts": np.array([0.0, 1.0, 0.0]), "trusted": np.array([1.0, 0.0, 1.0])})
    axes = plot_curves([doubtful], labels=["a"])
    assert [text.get_text() for text in axes[0].figure.legends[0].get_texts()] == ["exact solution", "a", "a: do not trust"]
    good, bad = axes[0].containers
    assert good.lines[0].get_xdata().tolist() == [0.5, 2.0] and bad.lines[0].get_xdata().tolist() == [1.0]
    assert good.lines[0].get_color() != bad.lines[0].get_color() == "0.6"


def test_zeros_by_symmetry_get_no_panel_unless_asked_for():
    zero = curve(error=9e-13)
    assert "longitudinal magnetisation" not in [ax.get_title() for ax in plot_curves([zero])]
    assert "longitudinal magnetisation" in [ax.get_title() for ax in plot_curves([curve()])]
    assert len(plot_curves([zero], observables=["magnetization_z"])) == 1


def test_infinite_temperature_is_left_out():
    (ax,) = plot_curves([curve(T=(0.5, np.inf, 2.0))], observables=["energy"])
    assert points(ax)[:, 0].tolist() == [0.5, 2.0]
    with pytest.raises(InputError, match="finite"):
        plot_curves([curve(T=(np.inf,))])


def test_no_exact_line_where_it_is_dear_or_unwanted():
    large = replace(curve(), config=curve().config.replace("6", "64").replace("h = 0.0", "h = 0.1"))
    assert large.hamiltonian.n_sites == 64 and large.hamiltonian.z_field[0] == 0.1
    unknown = plot_curves([large])
    unwanted = plot_curves([curve()], exact=False)
    for axes in (unknown, unwanted):
        assert all(len(line.get_xdata()) != 200 for line in axes[0].lines)


def test_unfinished_curves_are_drawn_as_far_as_they_are():
    partial = curve()
    partial.energy.mean[0] = np.nan
    assert np.isnan(points(plot_curves([partial])[0])[0, 1])
    empty = ThermalCurve(partial.temperature, partial.beta, {}, {}, ({},) * 3, "deterministic", partial.config)
    with pytest.raises(InputError, match="finished temperature"):
        plot_curves([empty])


def test_limits_are_laid_under():
    axes = curve(J=2.0, gamma=2.0).plot(observables=["entropy", "energy"], limits=True)
    assert [ax.get_title() for ax in axes] == ["entropy per site", "energy per site"]
    levels = [sorted(line.get_ydata()[0] for line in ax.lines if len(line.get_xdata()) == 2) for ax in axes]
    ground = exact_curve(curve().hamiltonian, np.array([1e4]))["energy"][0]
    np.testing.assert_allclose(levels[0], [np.log(2)])
    np.testing.assert_allclose(levels[1], [ground, 0.0], atol=1e-12)


def test_an_unknown_observable_is_named():
    with pytest.raises(InputError, match="speed"):
        curve().plot(observables=["energy", "speed"])


def test_nothing_is_clipped(tmp_path):
    figure = plot_curves([curve(), curve(T=(0.1, 5.0))], labels=["a long label of a curve", "another long label"])[0].figure
    figure.savefig(tmp_path / "f.png")
    renderer = figure.canvas.get_renderer()
    frame = figure.bbox
    texts = [t for ax in figure.axes for t in (ax.title, ax.xaxis.label, ax.yaxis.label)] + [figure._suptitle, *figure.legends]
    for text in texts:
        box = text.get_window_extent(renderer)
        assert box.x0 >= frame.x0 and box.x1 <= frame.x1 and box.y0 >= frame.y0 and box.y1 <= frame.y1
    assert not figure._suptitle.get_window_extent(renderer).overlaps(figure.legends[0].get_window_extent(renderer))
