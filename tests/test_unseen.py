import numpy as np

from thermodbm.estimate.unseen import least_changes
from thermodbm.models import heisenberg, make_lattice


def test_a_spin_that_turns_changes_structure_factors_by_no_more():
    """All configurations of a ring, all momenta, every spin turned; in the ordered state the bound is exact but for a sign."""
    n = 6
    ring = heisenberg(make_lattice("chain", n))
    spins = 1 - 2 * (np.arange(2**n)[:, None] >> np.arange(n) & 1)
    factor = lambda spins: np.abs(np.fft.fft(spins / 2)) ** 2 / n  # noqa: E731
    before = factor(spins)
    bound = least_changes(ring, 1.0, {"structure_factor_zz": before})["structure_factor_zz"]
    changes = np.array([np.abs(factor(spins * (1 - 2 * (np.arange(n) == i))) - before) for i in range(n)])
    assert (changes <= bound + 1e-12).all()
    neel = spins[:, 0][:, None] * (-1) ** np.arange(n)
    ordered = (spins == neel).all(1)
    assert ordered.sum() == 2
    assert (np.abs(changes[:, ordered, n // 2] - (bound[ordered, n // 2] - 2 / n)) < 1e-12).all()  # A falls: its square's part counts down
