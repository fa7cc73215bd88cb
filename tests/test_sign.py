import numpy as np
import pytest

from thermodbm.estimate.sign import expected_sign, without_sign
from thermodbm.exact import exact_curve
from thermodbm.models import graph, heisenberg, j1j2, make_lattice, xxz
from thermodbm.run.config import parse_config
from thermodbm.run.cost import describe_cost

RNG = np.random.default_rng(4)
TRIANGLES = graph(6, [(0, 1), (1, 2), (0, 2), (2, 3), (1, 3), (3, 4), (2, 4), (4, 5), (3, 5)])
RANDOM = xxz(TRIANGLES, RNG.normal(size=9), RNG.normal(size=9), RNG.normal(size=6))


def log_sign(hamiltonian, betas):
    signed, positive = (np.asarray(exact_curve(h, betas)["free_energy"]) for h in (hamiltonian, without_sign(hamiltonian)))
    return -hamiltonian.n_sites * betas * (signed - positive)


def test_the_leading_order_is_exact():
    """ln Z - ln Z' by diagonalisation, over its leading order, is 1 + O(beta)."""
    betas = np.array([0.01, 0.02])
    ratio = log_sign(RANDOM, betas) / np.log(expected_sign(RANDOM, betas))
    assert abs(2 * ratio[0] - ratio[1] - 1) < 1e-3
    assert abs(ratio[1] - 1) < 0.05


@pytest.mark.parametrize(
    "magnet",
    [
        heisenberg(make_lattice("triangular", (3, 3))),
        heisenberg(make_lattice("kagome", (1, 2))),
        j1j2(make_lattice("chain", 8), 1.0, 0.5),
        j1j2(make_lattice("square", (2, 4), periodic=False), 1.0, 0.5),
        xxz(make_lattice("triangular", (3, 3)), 1.0, 0.3),
    ],
    ids=["triangular", "kagome", "chain", "square", "easy plane"],
)
def test_it_foretells_the_sign_where_there_is_one(magnet):
    betas = np.linspace(0.1, 1.5, 8)
    expected = expected_sign(magnet, betas)
    known = expected > 0.02
    assert known.sum() >= 5
    off = np.log(expected) - log_sign(magnet, betas)
    assert (np.abs(off) < 0.02 + 0.35 * np.abs(np.log(expected)))[known].all()


def test_without_frustration_there_is_none():
    assert (expected_sign(heisenberg(make_lattice("square", (4, 4))), np.array([0.1, 10.0])) == 1).all()


def config(model, lattice, method=None, **sampling):
    return parse_config(
        {
            "lattice": lattice,
            "model": model,
            "method": {"kind": "deterministic", **(method or {})},
            "temperature": {"T": [0.3, 1.0, 4.0]},
            "sampling": {"n_samples": 20000, **sampling},
            "output": {"file": "x.h5"},
        }
    )


SQUARE = {"kind": "square", "extent": [4, 4], "periodic": True}


def test_validate_tells_signs_and_what_else_would_do():
    said = "\n".join(describe_cost(config({"kind": "j1j2", "J1": 1.0, "J2": 0.5}, SQUARE)))
    assert "sign" in said.splitlines()[2]
    assert "< 0.001" in said
    assert "From T = 1 down" in said  # the coarsest of three rings has 1600 samples
    strings = "\n".join(describe_cost(config({"kind": "j1j2", "J1": 1.0, "J2": 0.5}, SQUARE, method={"sampler": "series"})))
    assert "From T = 0.3 down" in strings
    assert 'method.kind = "typical"' in said
    large = "\n".join(describe_cost(config({"kind": "j1j2", "J1": 1.0, "J2": 0.5}, {**SQUARE, "extent": [8, 8]})))
    assert 'method.kind = "variational"' in large
    assert "From T = 1 down" in large
    until = "\n".join(describe_cost(config({"kind": "j1j2", "J1": 1.0, "J2": 0.5}, SQUARE, target_error=1e-3)))
    assert "samples of any time" in until and "n_samples = " not in until
    free = "\n".join(describe_cost(config({"kind": "heisenberg", "J": 1.0}, SQUARE)))
    assert "sign" not in free
    odd = "\n".join(describe_cost(config({"kind": "heisenberg", "J": 1.0}, {"kind": "chain", "extent": [7], "periodic": True})))
    assert "loops of five or more sites" in odd
