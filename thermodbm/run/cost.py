"""What a run will cost, known before it starts: size of the network, memory, and, where it can be said, time."""

import os
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np

from thermodbm.comm import SERIAL
from thermodbm.errors import InputError
from thermodbm.estimate.series import series_facts, series_slices
from thermodbm.estimate.sign import expected_sign
from thermodbm.evolve.chains import TRUSTED_SIGN, chain_groups, sweeps_of_levels
from thermodbm.evolve.deterministic import SHARES
from thermodbm.evolve.options import DeterministicOptions, LearnedOptions, SamplingOptions, TypicalOptions, VariationalOptions
from thermodbm.exact.free_fermions import applicable
from thermodbm.models import SpinHamiltonian
from thermodbm.models.parameters import stacked
from thermodbm.models.rotation import sublattice_rotation
from thermodbm.network.exchange import trotter_step
from thermodbm.network.trotter_step import default_d_tau, slices
from thermodbm.run.config import RunConfig
from thermodbm.run.tables import columns

if TYPE_CHECKING:
    from thermodbm.exact.typical_cost import Size

BYTES_PER_SPIN = {"ising": 512, "exchange": 32, "series": 64}
"""Of one chain. Ising, by benchmarks/tfim_scaling.py: the spin itself, and the temporaries of an update and a measurement. Exchange: of
a cell of the ring of plaquettes, whose chains are labelled in groups, by the peak memory of 16x16 to 32x32 lattices. Series: of a slot."""
SECONDS_PER_SPIN = {"ising": 5e-8, "exchange": 1.1e-8, "exchange in a field": 2.4e-8, "series": 6e-8}
"""Of a sweep with its measurement on one core of a CPU: benchmarks/tfim_scaling.py and heisenberg_scaling.py; directed loops more than
double it, by hand."""
LEAST_SIGN = 1e-3
"""Smaller ones are not told apart: a million independent samples see nothing else than noise."""
SAMPLES_OF_A_SIGN = 5.0
"""Samples that make an independent one: 5 for rings of plaquettes, 3 for strings, by hand on the J1-J2 4x4 torus at T = 1."""
MAX_SLICES = 1e12
"""More are not counted one by one: no machine holds them."""


class Cost(NamedTuple):
    """Of the deterministic method at every temperature above zero beta, (n_T,) each, of float64, which does not overflow."""

    n_slices: np.ndarray  # of the finest network
    n_spins: np.ndarray  # of one chain, in the rings of all networks that extrapolation needs
    n_bytes: np.ndarray  # all chains
    n_updates: np.ndarray  # spins times sweeps of all chains, by n_samples


def deterministic_cost(hamiltonian: SpinHamiltonian, options: DeterministicOptions, sampling: SamplingOptions, betas: np.ndarray) -> Cost:
    """What the deterministic method will set up: a ring has 2 n_slices layers, of as many sub-layers as a Trotter step has gates; a string,
    slots, which count as spins."""
    if options.sampler == "series":
        facts = series_facts(hamiltonian)
        slots = 2.0 * hamiltonian.n_sites * np.array([float(series_slices(facts, hamiltonian, beta)) for beta in betas])
        n_chains = int(np.prod(chain_groups(hamiltonian.n_sites, sampling.n_chains, strings=True)))
        (wanted,), (thermal,) = sweeps_of_levels(sampling, n_chains)
        updates = slots * n_chains * (wanted + thermal)
        return Cost(np.full(len(slots), np.inf), slots, slots * n_chains * BYTES_PER_SPIN["series"], updates)
    with np.errstate(over="ignore", divide="ignore"):
        d_tau = options.d_tau or default_d_tau(hamiltonian, sampling.target_error)
        needed = np.asarray(betas) / (2 * d_tau)
    how = d_tau, options.extrapolate, options.n_tau or 0
    levels = [slices(beta, *how) if n < MAX_SLICES else [n] for beta, n in zip(betas, needed, strict=True)]
    per_slice = 2.0 * hamiltonian.n_sites * (len(trotter_step(hamiltonian.bonds)) if hamiltonian.conserves_sz else 1)
    n_spins = per_slice * np.array([float(sum(level)) for level in levels])
    n_chains = int(np.prod(chain_groups(hamiltonian.n_sites, sampling.n_chains)))
    work = list(zip(*sweeps_of_levels(sampling, n_chains, SHARES[options.extrapolate]), strict=True))
    n_updates = [per_slice * n_chains * sum(float(n) * sum(sweeps) for n, sweeps in zip(level, work, strict=False)) for level in levels]
    n_bytes = n_spins * n_chains * BYTES_PER_SPIN[_kind(hamiltonian)]
    return Cost(np.array([float(level[0]) for level in levels]), n_spins, n_bytes, np.array(n_updates))


def check_machine(config: RunConfig, available: float | None = None) -> None:
    """Refuse what cannot fit into this machine.

    Args:
        available: bytes; None: the physical memory, where the system tells it.

    Raises:
        InputError: naming the coldest temperature.
    """
    available = _physical_memory() if available is None else available
    if config.scan:
        for part in config.sweeps:
            check_machine(part, available)
        return
    if isinstance(config.method, TypicalOptions):
        size = _typical_size(config, config.method)
        if size.n_bytes > available:
            raise InputError(
                "lattice",
                expected=f"sectors that fit into {available:.1e} bytes of memory with method.kind = typical",
                found=f"{config.hamiltonian.n_sites} sites: a sector of {size.dimension:.3g} states, which needs {size.n_bytes:.1e} bytes",
                hint='Fewer sites, or couplings that are the same under translations; beyond, method.kind = "deterministic".',
            )
    if not isinstance(config.method, DeterministicOptions):
        return
    cost = deterministic_cost(config.hamiltonian, config.method, config.sampling, config.betas)
    coldest = int(np.argmax(cost.n_bytes))
    if cost.n_bytes[coldest] > available:
        raise InputError(
            "temperature",
            expected=f"a network and chains that fit into {available:.1e} bytes of memory",
            found=f"{cost.n_slices[coldest]:.3g} slices, which need about {cost.n_bytes[coldest]:.1e} bytes",
            hint="Fewer chains, a larger d_tau or higher temperatures need less.",
        )


def describe_cost(config: RunConfig) -> list[str]:
    """Lines of text: size of the problem, and what the method will set up."""
    if config.scan:
        head = f"{len(config.sweeps)} values of {', '.join(config.scan)}, {len(config.betas)} points in all; of the first value:"
        return [head, *describe_cost(config.sweeps[0])]
    lines = [f"{config.hamiltonian.n_sites} sites, {len(config.hamiltonian.bonds)} bonds, {len(config.betas)} temperatures"]
    if isinstance(config.method, DeterministicOptions):
        return lines + _describe_deterministic(config)
    if isinstance(config.method, VariationalOptions):
        return lines + _describe_variational(config)
    if isinstance(config.method, LearnedOptions):
        return lines + _describe_learned(config)
    if isinstance(config.method, TypicalOptions):
        return lines + _describe_typical(config)
    return lines


def _typical_size(config: RunConfig, options: TypicalOptions) -> "Size":
    from thermodbm.evolve.typical import typical_problem
    from thermodbm.exact.typical_cost import typical_size

    return typical_size(typical_problem(config.hamiltonian, options, config.betas))


def _describe_typical(config: RunConfig) -> list[str]:
    """Sectors, memory and time of the Lanczos recurrences."""
    if not np.any(config.betas):
        return ["T = inf: known, nothing to do"]
    size = _typical_size(config, config.method)
    n_curves = 1 + 2 * (len(stacked(config.response).beta) if config.response else 0)
    beside = [f"{n_curves} magnets: derivatives are differences between curves to either side"] if n_curves > 1 else []
    return [
        *beside,
        f"{size.n_sectors} sectors, the largest of about {size.dimension:.3g} states; {config.method.n_vectors} random vectors in each",
        f"at most about {size.n_bytes / 1e9:.2g} GB of memory, beside some hundred MB for the program",
        f"Together about {duration(n_curves * size.seconds)} on one core of a CPU for all temperatures, within a factor of about two.",
    ]


def _describe_deterministic(config: RunConfig) -> list[str]:
    hot = config.betas == 0
    cost = deterministic_cost(config.hamiltonian, config.method, config.sampling, config.betas[~hot])
    cores = _cores()
    per_spin = _seconds_per_spin(config.hamiltonian, config.method)
    seconds = cost.n_updates * per_spin / cores
    timed = config.sampling.target_error is None
    signs, doubts = _signs(config, config.temperatures[~hot])
    rows = [["T", "slices", "spins a chain", "memory", *(["sign"] if signs else []), *(["time"] if timed else [])]]
    for k, (T, n_slices, n_spins, n_bytes, s) in enumerate(zip(config.temperatures[~hot], *cost[:3], seconds, strict=True)):
        size = [f"{T:.6g}", f"{n_slices:.0f}", f"{n_spins:.0f}", f"{n_bytes / 1e6:.1f} MB"]
        rows.append([*size, *signs[k : k + 1], *([duration(s)] if timed else [])])
    lines = ["Estimated, memory beside some hundred MB for the program itself:", *columns(rows).splitlines()] if len(rows) > 1 else []
    if hot.any():
        lines.append("T = inf: known, not sampled")
    if len(rows) == 1:
        return lines
    if timed:
        lines.append(
            f"Together about {duration(float(seconds.sum()))} of sampling on {cores} core(s) of a CPU, within a factor of about three,"
        )
        lines.append("and up to a minute to compile each new number of slices the first time.")
    else:
        sweep = (cost.n_updates / config.sampling.n_samples * per_spin / cores).sum()
        lines.append(f"Time depends on target_error: about {duration(1e4 * float(sweep))} for every 10 000 samples at each temperature.")
    if config.hamiltonian.conserves_sz and config.method == DeterministicOptions() and not config.response:
        lines.append('method.sampler = "series" needs no Trotter step: in the same time errors are two to four times smaller.')
    return lines + doubts


def _signs(config: RunConfig, temperatures: np.ndarray) -> tuple[list[str], list[str]]:
    """The average sign that is expected at each temperature, and what follows, of a frustrated exchange magnet; nothing of others."""
    if not config.hamiltonian.conserves_sz or sublattice_rotation(config.hamiltonian) is not None:
        return [], []
    signs = expected_sign(config.hamiltonian, 1 / temperatures)
    if np.all(signs == 1):
        return [], ["Samples have signs: loops of five or more sites are frustrated, and how far that goes is not known beforehand."]
    cells = [f"{sign:.2g}" if sign > LEAST_SIGN else f"< {LEAST_SIGN:g}" for sign in signs]
    until = config.sampling.target_error is not None  # samples are drawn for as long as it takes
    fewest = config.sampling.n_samples * min(SHARES[config.method.extrapolate and config.method.sampler != "series"])  # of every ring
    needed = LEAST_SIGN if until else max(LEAST_SIGN, TRUSTED_SIGN * np.sqrt(SAMPLES_OF_A_SIGN / fewest))
    lost = temperatures[signs < needed]
    lines = ["The average sign is what triangles do to it, a guess; errors grow as 1 / sign."]
    if len(lost):
        samples = "samples of any time" if until else f"n_samples = {config.sampling.n_samples}"
        enough = f"{needed:.2g}, the least that {samples} can tell from zero"
        lines += [f"From T = {lost.max():.6g} down it is expected to be below {enough}: not to be trusted there.", _instead(config)]
    return cells, lines


def _instead(config: RunConfig) -> str:
    """The method for temperatures at which the sign is lost."""
    try:
        size = _typical_size(config, TypicalOptions())
    except InputError:  # more sites than it takes
        size = None
    if size is not None and size.n_bytes < _physical_memory():
        needs = f"{size.n_bytes / 1e9:.2g} GB, {duration(size.seconds)}"
        return f'method.kind = "typical" has no sign, and takes this magnet at all temperatures ({needs}).'
    return 'method.kind = "variational" has no sign, and an error of its own that it estimates.'


def _describe_learned(config: RunConfig) -> list[str]:
    """How networks are trained, and what sampling them takes."""
    from thermodbm.evolve.networks import classes_of  # with what its training needs
    from thermodbm.evolve.tangents import check_parameters
    from thermodbm.evolve.training import LAYERS

    classes, n = classes_of(config.hamiltonian), config.hamiltonian.n_sites
    check_parameters(config.hamiltonian, config.response, classes, config.method.polish)
    how, how_long = _training(config.hamiltonian)
    n_bonds, n_fields = len(np.unique(classes.bonds)), len(np.unique(classes.sites))
    lines = [f"{n_bonds} coupling(s) of bonds and {n_fields} of sites in every layer, trained {how} at all temperatures: {how_long}"]
    most = LAYERS[-1] if config.method.layers == "auto" else config.method.layers
    n_chains = int(np.prod(chain_groups(n, config.sampling.n_chains)))
    n_spins = 2 * most * n * n_chains
    if config.method.polish:
        lines.append(_polishing(config, most))
    size = (
        f"{'at most ' if config.method.layers == 'auto' else ''}{most} layers: {n_spins * BYTES_PER_SPIN['ising'] / 1e6:.1f} MB for chains"
    )
    if config.sampling.target_error is not None:
        return [*lines, size, "Time of sampling depends on target_error."]
    sweeps = sum(sum(w) for w in sweeps_of_levels(config.sampling, n_chains))
    seconds = n_spins * sweeps * SECONDS_PER_SPIN["ising"] / _cores() * np.count_nonzero(config.betas)
    return [*lines, f"{size}, and about {duration(seconds)} of sampling on {_cores()} core(s) of a CPU"]


def _polishing(config: RunConfig, n_layers: int) -> str:
    """What bringing networks nearer to the thermal state takes: rings of the network twice, and with two targets."""
    fine = np.array([slices(beta, default_d_tau(config.hamiltonian), True)[0] for beta in config.betas if beta > 0])
    layers = (3.3 * n_layers + 1.15 * fine).sum()  # the coarser target has three tenths of the samples
    seconds = 2 * SECONDS_PER_SPIN[_kind(config.hamiltonian)] * config.method.polish * config.hamiltonian.n_sites * layers
    return f"Polished by {config.method.polish} samples at each temperature, at most {duration(seconds)} on one core: kept, too"


def _training(hamiltonian: SpinHamiltonian) -> tuple[str, str]:
    """How a learned network is trained, and how long that takes."""
    from thermodbm.evolve.cluster import clusters
    from thermodbm.evolve.dense_layers import MAX_VECTOR_SITES

    if applicable(hamiltonian):
        return "by free fermions", "seconds to a minute"
    if hamiltonian.n_sites <= MAX_VECTOR_SITES:
        trained, where = hamiltonian, ""
    else:
        trained = clusters(hamiltonian)[0]
        where = f" on a cluster of {' x '.join(map(str, trained.lattice.extent))} cells"
    return f"by vectors of 2^{trained.n_sites} numbers{where}", "seconds to a minute" if trained.n_sites <= 12 else "minutes"


def _describe_variational(config: RunConfig) -> list[str]:
    """Parameters, what is summed or sampled, and the solver; how many steps the evolution takes is not known beforehand."""
    from thermodbm.evolve.ansatz import make_ansatz  # with Flax
    from thermodbm.evolve.enumeration import all_configurations
    from thermodbm.evolve.sr import choose_solver

    options, ansatz = config.method, make_ansatz(config.hamiltonian, config.method)
    module, hamiltonian, n = ansatz.module, ansatz.hamiltonian, config.hamiltonian.n_sites
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 2 * n), float))
    n_params = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes))
    exact_sum = all_configurations(hamiltonian, options, conserve_sz=ansatz.conserves_sz, sites=ansatz.sites)
    if exact_sum is not None:
        n_samples = len(exact_sum.visible)
        drawn = f"all {n_samples} configurations of spins and ancillas (up to symmetry) are summed: nothing is sampled, and"
        drawn += " sampling.n_samples, target_error, method.n_walkers and n_sweeps are not used"
    else:
        n_samples = options.n_walkers or max(4096, min(16 * n_params, 16384))
        drawn = f"{n_samples} walkers, {options.n_sweeps * 2 * n} attempted moves of each between steps"
    shifted = replace(options, diag_shift=1e-7 if options.diag_shift is None else options.diag_shift)
    solver = choose_solver(shifted, n_samples, n_params, SERIAL)
    matrix = 16 * n_samples * n_params / 1e6
    return [
        f"{type(module).__name__} of {n_params} parameters; {drawn}",
        f"solver {solver}; up to {matrix:.0f} MB for log-derivatives where they are written out, beside some hundred MB for the program",
        "Time: the number of steps is not known beforehand; the progress of a run tells.",
    ]


def duration(seconds: float) -> str:
    """Rounded to what an estimate is worth.

    >>> duration(0.2), duration(42.0), duration(110.0), duration(600.0), duration(9000.0), duration(1e6)
    ('< 1 s', '42 s', '110 s', '10 min', '2.5 h', '12 days')
    """
    for unit, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.2g} {name}"
    return f"{seconds:.2g} s" if 1 <= seconds < 10 else f"{seconds:.0f} s" if seconds >= 10 else "< 1 s"


def _kind(hamiltonian: SpinHamiltonian) -> str:
    return "exchange" if hamiltonian.conserves_sz else "ising"


def _seconds_per_spin(hamiltonian: SpinHamiltonian, options: DeterministicOptions) -> float:
    if options.sampler == "series":
        return SECONDS_PER_SPIN["series"]
    in_field = hamiltonian.conserves_sz and np.any(np.asarray(hamiltonian.z_field))
    return SECONDS_PER_SPIN["exchange in a field" if in_field else _kind(hamiltonian)]


def _cores() -> int:
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()) or 1


def _physical_memory() -> float:
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, OSError, ValueError):  # a system that does not tell
        return np.inf
