"""Deviations are counted in units of the combined errors, at the temperatures that two curves share."""

import numpy as np
import pytest

from thermodbm import InputError, ThermalCurve
from thermodbm.estimate.statistics import Estimate, exact
from thermodbm.run.compare import compare, same_model


def curve(T, observables, config=""):
    T = np.array(T, float)
    return ThermalCurve(T, 1 / T, observables, {}, ({},) * len(T), "fake", config)


def test_pulls_are_matched_by_temperature():
    a = curve([1.0, 2.0, 3.0], {"energy": Estimate(np.array([1.0, 2.0, 3.0]), np.array([0.3, 0.3, 0.3])), "only_a": exact(np.zeros(3))})
    b = curve([3.0 * (1 + 1e-12), 0.5, 1.0], {"energy": Estimate(np.array([3.5, 9.0, 1.0]), np.array([0.4, 0.4, 0.0]))})
    (name, result), *rest = compare(a, b).items()
    assert name == "energy" and not rest
    np.testing.assert_array_equal(result.temperature, [1.0, 3.0])
    np.testing.assert_allclose(result.pull, [0.0, -1.0])
    assert result.max_pull == pytest.approx(1) and result.chi2_per_n == pytest.approx(0.5)


def test_exact_curves_agree_up_to_rounding_and_differ_beyond():
    a = curve([1.0], {"energy": exact(np.array([1.0]))})
    assert compare(a, curve([1.0], {"energy": exact(np.array([1.0 + 3e-8]))}))["energy"].max_pull < 1
    assert compare(a, curve([1.0], {"energy": exact(np.array([1.0 + 1e-5]))}))["energy"].max_pull > 50
    zero = curve([1.0], {"energy": exact(np.array([0.0]))})
    assert compare(zero, zero)["energy"].max_pull == 0


def test_vectors_and_unfinished_temperatures():
    nan = np.nan
    a = curve([1.0, 2.0], {"energy": exact(np.array([1.0, nan])), "c": Estimate(np.array([[1.0, 2.0], [nan, nan]]), np.ones((2, 2)))})
    b = curve([1.0, 2.0], {"energy": exact(np.array([1.0, 1.0])), "c": Estimate(np.array([[1.0, 4.0], [1.0, 1.0]]), np.zeros((2, 2)))})
    result = compare(a, b)["c"]
    np.testing.assert_array_equal(result.temperature, [1.0])
    np.testing.assert_allclose(result.pull, [[0.0, -2.0]])


def test_nothing_in_common_is_an_error():
    a = curve([1.0], {"energy": exact(np.array([1.0]))})
    with pytest.raises(InputError, match=r"temperatures in common.*1 from 2 to 2"):
        compare(a, curve([2.0], {"energy": exact(np.array([1.0]))}))
    with pytest.raises(InputError, match="none"):
        compare(a, curve([1.0], {}))
    with pytest.raises(InputError, match="observables in common"):
        compare(a, curve([1.0], {"energy": exact(np.array([[1.0, 2.0]]))}))


def test_models_are_told_apart():
    a, b = (curve([1.0], {}, f"[lattice]\nextent = [{n}]\n[model]\nJ = 1.0\n[sampling]\nseed = {n}") for n in (4, 5))
    assert same_model(a, a) and not same_model(a, b)
