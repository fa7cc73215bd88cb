"""Which trial state an evolution follows: its module, the basis it is in, where it starts, and what it asks of the solver."""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from thermodbm.errors import InputError
from thermodbm.evolve.options import VariationalOptions
from thermodbm.evolve.sr import check_solver
from thermodbm.evolve.start import high_temperature_couplings, pair_product_start, pair_start_params, rotated_couplings, start_params
from thermodbm.models import SpinHamiltonian
from thermodbm.models.operators import spin_flip_symmetric
from thermodbm.models.rotation import rotate, sublattice_rotation
from thermodbm.network.ansatz.composition import Product, Superposition
from thermodbm.network.ansatz.pair_product import PairProduct
from thermodbm.network.ansatz.patterns import Patterns, pattern_clusters
from thermodbm.network.ansatz.permanent import PairPermanent
from thermodbm.network.ansatz.rbm import PurifiedDBM
from thermodbm.network.ansatz.symmetry import SymmetryGroup, automorphisms, largest_subgroup, symmetry_group

MAX_PAIRED = 64
"""Sites up to which permanents, whose cost doubles with every pair of defects, are offered: many sites at high temperature alone."""
PAIRED_BY_DEFAULT, FRUSTRATED_BY_DEFAULT = range(10, 17), range(10, 37)
"""Numbers of sites for which they are the default: fewer need no better trial state."""

LAG, LAG_OF_PATTERNS = 2.0, 0.75
"""`Ansatz.lag`: the clock has put the lag right once (measured: 0 to 1.8 times of it are left, with pairs and patterns 0 to .6)."""

DENSITY = 4
"""`VariationalOptions.alpha`, where it is not given."""

MAX_PRODUCTS = 4
"""Determinants with F's of their own, each of some 2 n_sites^2 parameters, in magnets of few symmetries."""


class Ansatz(NamedTuple):
    """A trial state and all that an evolution must know of it."""

    module: nn.Module
    hamiltonian: SpinHamiltonian  # that it follows: the user's, turned by eta
    eta: np.ndarray  # (n_sites,) +-1, see models.rotation
    start: Callable[[jax.Array, float], dict]  # (key, beta) -> parameters
    origin: Literal["analytic", "infinite", "given"]  # thermal state at a small beta; at beta = 0; whatever the user says it is
    conserves_sz: bool  # all configurations have spins and ancillas of total zero
    positive: bool  # no amplitude has a sign
    sites: np.ndarray  # (n, n_sites) permutations under which it is symmetric, and reversal of all spins where H is; (0, n_sites): none
    diag_shift: float  # that serves where it is sampled
    lag: float = LAG  # the energy is off by at most so many times what the lag in beta comes to
    beta_0: float = 0.02  # where it starts by default if it is sampled, or the user's, times the largest coupling


def make_ansatz(
    hamiltonian: SpinHamiltonian, options: VariationalOptions, module: nn.Module | None = None, params: dict | None = None
) -> Ansatz:
    """The trial state that the user brings, or that `options` ask for.

    Raises:
        InputError: for a module without parameters, and as `check_ansatz`.
    """
    if (module is None) != (params is None):
        raise InputError("module", expected="a module together with the parameters it starts from", found="only one of the two")
    check_ansatz(hamiltonian, options)
    n = hamiltonian.n_sites
    if module is not None:
        shift = 1e-6 if hamiltonian.conserves_sz else 1e-7
        return Ansatz(
            module,
            hamiltonian,
            np.ones(n, int),
            lambda key, beta: params,
            "given",
            hamiltonian.conserves_sz,
            positive=False,
            sites=np.zeros((0, n), int),
            diag_shift=shift,
        )
    module = default_module(hamiltonian, options)
    product = isinstance(module, Product) and isinstance(module.factors[0], PairProduct)
    paired = not product and not isinstance(module, PurifiedDBM)
    eta = None if product else sublattice_rotation(hamiltonian)  # singlets are those of the spins as they are
    eta = np.ones(n, int) if eta is None else eta
    simple, rotated = rotate(hamiltonian, eta), options.start == "rotated"
    positive = not rotated and bool(np.all(np.asarray(simple.xy) <= 0)) and bool(np.all(np.asarray(simple.x_field) >= 0))

    def start(key: jax.Array, beta: float) -> dict:
        if product:
            return pair_product_start(key, module, simple, beta, options.noise)
        if paired:
            return pair_start_params(key, module, simple, beta, options.noise, positive=positive)
        couplings = rotated_couplings(simple) if rotated else high_temperature_couplings(simple, beta)
        return start_params(key, module, couplings, options.noise, positive=positive)

    conserves_sz = hamiltonian.conserves_sz and not rotated
    shift = (1e-3 if paired else 1e-5) if conserves_sz else 1e-7
    return Ansatz(
        module,
        simple,
        eta,
        start,
        "infinite" if rotated else "analytic",
        conserves_sz,
        positive,
        sites=_space_group(module)[:, :n],
        diag_shift=shift,
        lag=LAG_OF_PATTERNS if _has_patterns(module) else LAG,
        beta_0=0.004 if product else 0.02,
    )


def composes(ansatz: Ansatz, options: VariationalOptions, hamiltonian: SpinHamiltonian) -> bool:
    """Whether networks are joined: where asked for, and by itself for exchange that is frustrated or of few sites.

    Raises:
        InputError: where it is asked for, and the trial state is no matrix between opposite spins and ancillas.
    """
    matrix = ansatz.origin == "analytic"
    if options.compose is True and not matrix:
        found = "start = rotated" if ansatz.origin == "infinite" else "a module of a user"
        raise InputError("method.compose", expected="false, or start = trotter with a trial state of our own", found=found)
    few = hamiltonian.n_sites in PAIRED_BY_DEFAULT
    by_itself = hamiltonian.conserves_sz and (few or sublattice_rotation(hamiltonian) is None)
    return matrix and (by_itself if options.compose == "auto" else options.compose)


def default_module(hamiltonian: SpinHamiltonian, options: VariationalOptions) -> nn.Module:
    """The module that `options` ask for, with the symmetries of the couplings.

    Raises:
        InputError: as `check_ansatz`.
    """
    check_ansatz(hamiltonian, options)
    n, paired = hamiltonian.n_sites, hamiltonian.conserves_sz and options.start == "trotter"
    ansatz, frustrated = options.ansatz, paired and sublattice_rotation(hamiltonian) is None
    if ansatz == "pair_product":
        summed = largest_subgroup(hamiltonian, options.determinants, translations=options.translations)
        group = SymmetryGroup(summed.perm[summed.sign > 0], summed.sign[summed.sign > 0])
    else:
        exchange = options.exchange and options.start == "trotter"
        group = symmetry_group(hamiltonian, translations=options.translations, point_group=options.point_group, exchange=exchange)
    patterns = ()
    if frustrated and ansatz in ("auto", "pairs") and n <= MAX_PAIRED:
        patterns = _patterns(hamiltonian, group, translations=options.translations)
    if ansatz == "auto":
        ansatz = "pairs" if paired and n in (FRUSTRATED_BY_DEFAULT if patterns else PAIRED_BY_DEFAULT) else "rbm"
    n_deep = options.layers if ansatz == "dbm" else 0
    per_filter = (n_deep + 1) * len(group.perm)
    fours = 0 if ansatz == "jastrow" else -(-(options.alpha or DENSITY) * 2 * n // (4 * per_filter))
    even = spin_flip_symmetric(hamiltonian)
    network = PurifiedDBM(group, 4 * fours, n_deep + 1, n_deep, even=even)
    if ansatz == "pair_product":
        n_products = max(1, min(MAX_PRODUCTS, options.determinants // len(summed.perm)))
        singlets = even and np.array_equal(np.asarray(hamiltonian.zz), np.asarray(hamiltonian.xy))
        return Product((PairProduct(summed, n_products, singlets), network))
    if ansatz == "pairs":
        pairs = Product((PairPermanent(group), PurifiedDBM(group, 0, even=even), *patterns))
        return pairs if patterns and options.alpha is None else Superposition((pairs, network))
    return network


def _patterns(hamiltonian: SpinHamiltonian, group: SymmetryGroup, *, translations: bool) -> tuple[Patterns, ...]:
    """The factor of patterns, where they are few enough: of all symmetries there are, or those of the group where these are too many."""
    n = hamiltonian.n_sites
    everything = automorphisms(hamiltonian) if translations else np.arange(n)[None]
    sites = everything if len(everything) > 1 else group.perm[group.sign > 0][:, :n]
    clusters = pattern_clusters(hamiltonian, sites)
    return (Patterns(clusters),) if clusters.n_classes else ()


def _factors(module: nn.Module) -> tuple[nn.Module, ...]:
    """Of a product, alone or with a network added; or the module itself."""
    module = module.terms[0] if isinstance(module, Superposition) else module
    return module.factors if isinstance(module, Product) else (module,)


def _has_patterns(module: nn.Module) -> bool:
    return isinstance(_factors(module)[-1], Patterns)


def _space_group(module: nn.Module) -> np.ndarray:
    """Permutations of spins and ancillas, without exchange, under which a default module is symmetric."""
    group = next(factor.group for factor in _factors(module) if isinstance(factor, PurifiedDBM))
    return group.perm[group.sign > 0]


def check_ansatz(hamiltonian: SpinHamiltonian, options: VariationalOptions) -> None:
    """Complain of a trial state that does not fit the model, or a solver that does not fit the shift.

    Raises:
        InputError: for pairs of defects where the magnetisation of spins and ancillas is not conserved, or of too many sites; as
            `check_solver`.
    """
    check_solver(options)
    n, paired = hamiltonian.n_sites, hamiltonian.conserves_sz and options.start == "trotter" and hamiltonian.n_sites >= 2
    most = {"pairs": MAX_PAIRED, "pair_product": np.inf}.get(options.ansatz)
    if most is not None and not (paired and n <= most):
        size = f"2 to {MAX_PAIRED} sites" if most == MAX_PAIRED else "2 sites or more"
        expected = f"{size}, a model that conserves the magnetisation, and start = trotter, for ansatz = {options.ansatz}"
        found = f"{n} sites, {hamiltonian.model}, start = {options.start}"
        raise InputError("method.ansatz", expected=expected, found=found)


def largest_coupling(hamiltonian: SpinHamiltonian) -> float:
    """The largest coupling or field in the units of the model's own convention."""
    leaves = (hamiltonian.zz, hamiltonian.xy, hamiltonian.x_field, hamiltonian.z_field)
    exchange = 4.0 if hamiltonian.conserves_sz else 1.0
    largest = max(float(np.max(np.abs(x), initial=0.0)) * f for x, f in zip(leaves, (exchange, exchange, 1.0, 1.0), strict=True))
    return largest or 1.0
