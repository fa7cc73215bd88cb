"""The deterministic method on exchange magnets against full diagonalisation, through `thermal_curve`."""

import numpy as np
import pytest

from thermodbm import graph, heisenberg, make_lattice, thermal_curve, xxz
from thermodbm.exact import exact_curve

RING, LADDER = make_lattice("chain", 6), make_lattice("square", (5, 2), (True, False))
TRIANGLES = graph(5, [(0, 1), (1, 2), (0, 2), (2, 3), (3, 4), (2, 4)])
MAGNETS = {
    "Heisenberg": (heisenberg(RING), [0.3, 1.0]),
    "Heisenberg, ferromagnetic, in a field": (heisenberg(RING, -1.0, 0.4), [0.5]),
    "easy plane": (xxz(RING, 1.0, 0.3), [0.3, 1.0]),
    "easy axis, ferromagnetic": (xxz(RING, -1.0, 2.0), [0.4]),
    "random bonds and fields": (
        xxz(TRIANGLES, [1.0, -0.5, 0.8, 1.2, -0.7, 0.4], [0.5, 1.5, -0.8, 0.3, 1, 2], [0.3, 0, -0.5, 0.2, 0]),
        [0.6],
    ),
    "frustrated ladder": (heisenberg(LADDER), [0.2, 0.5]),
    "frustrated triangles, easy axis": (xxz(TRIANGLES, 1.0, 1.5), [0.5]),
    "frustrated ring in a field": (heisenberg(make_lattice("chain", 5), 1.0, 0.5), [0.25]),
}


@pytest.mark.parametrize("name", MAGNETS)
def test_every_observable_agrees_with_diagonalisation(name):
    """Within four error bars, arrays entry by entry; the mean square pull of all is below 1 + 5 sigma of as many degrees of freedom as
    there are scalars; magnets without a sign are trusted."""
    magnet, temperatures = MAGNETS[name]
    curve = thermal_curve(magnet, T=temperatures, sampling={"n_samples": 16_000, "n_chains": 8, "seed": 5}, progress=False)
    exact = exact_curve(magnet, curve.beta)
    exact["specific_heat_direct"] = exact["specific_heat"]
    compared = set(exact) & set(curve.observables)
    assert {"energy", "specific_heat", "entropy", "free_energy", "susceptibility", "correlation_zz"} <= compared
    squares = []
    for observable in sorted(compared):
        found = curve.observables[observable]
        pulls = np.abs(found.mean - exact[observable]) / np.maximum(found.error, 1e-9)
        np.testing.assert_array_less(pulls, 4.0, err_msg=observable)
        squares.append(np.mean(pulls**2))
    assert np.mean(squares) < 1 + 5 * np.sqrt(2 / len(squares) / len(temperatures))
    if "frustrated" not in name:  # a sign needs more samples before r_hat says that chains agree
        assert (curve.diagnostics["trusted"] == 1).all()
    assert (curve.energy.error < 0.02).all()
    sign = curve.diagnostics["average_sign"]
    assert (sign < 1).all() and (sign > 0).all() if "frustrated" in name else (sign == 1).all()
