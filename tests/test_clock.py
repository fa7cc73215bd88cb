"""Which inverse temperature a state with a lag is at."""

import numpy as np

from thermodbm import thermal_curve
from thermodbm.evolve import clock as clocks
from thermodbm.evolve import path as paths
from thermodbm.evolve.clock import at_rest, pace
from thermodbm.exact import exact_curve
from thermodbm.models import j1j2, make_lattice


def test_beta_is_the_integral_of_what_was_followed():
    """A share that grows as t^2/4, in steps of all sizes, up to what the last step will bring."""
    times = np.cumsum(np.random.default_rng(1).uniform(0.001, 0.03, 100))
    clock, at = at_rest(times[0]), times[0]
    for t in times[1:]:
        clock, at = clock.stepped(at**2 / 4, t - at), t
    t = times[-1]
    exact = t - (t**3 - times[0] ** 3) / 12 + (t**5 - times[0] ** 5) / 80
    assert abs(clock.now - exact) < 2e-3
    assert abs(clock.stepped(t**2 / 4, 0.0).now - exact) < 1e-4


def test_no_share_lets_beta_stand_still():
    assert pace(0.0) == pace(1.0) == 1
    assert min(pace(s) for s in np.linspace(-1, 2, 50)) >= 0.75


def deviations():
    """Of e and c at beta = 1/2 and 1, and the error of e."""
    magnet, betas = j1j2(make_lattice("chain", 6), J2=0.5), np.array([0.5, 1.0])
    method = {"kind": "variational", "ansatz": "jastrow", "enumerate": True, "compose": False}
    curve, exact = thermal_curve(magnet, beta=betas, method=method, progress=False), exact_curve(magnet, betas)
    return *(abs(curve.observables[name].mean - exact[name]) for name in ("energy", "specific_heat")), curve.energy.error


def test_a_lagging_state_is_called_by_the_right_temperature(monkeypatch):
    """A two-body factor misses a tenth of its motion at beta = 1/2: e is off by a third at most of what it is at beta = 2 tau."""
    energy, heat, error = deviations()
    for module in (clocks, paths):
        monkeypatch.setattr(module, "pace", lambda slow: 1.0)
    plain_energy, plain_heat, _ = deviations()
    assert (energy < 0.35 * plain_energy).all()
    assert heat[1] < 0.35 * plain_heat[1]
    assert (energy < error).all()
