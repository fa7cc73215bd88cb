"""Method I as a thermal method: analytic networks at two or three Trotter steps, sampled in turn, extrapolated to a vanishing step."""

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from thermodbm.comm import SERIAL, Comm
from thermodbm.errors import NumericsError
from thermodbm.estimate.ensemble import Ensemble, chain_mesh, place_chains, run_chains
from thermodbm.estimate.exchange import exchange_ensemble
from thermodbm.estimate.extrapolation import TROTTER_PRIOR, extrapolate
from thermodbm.estimate.ising import ising_ensemble
from thermodbm.estimate.statistics import MAX_BLOCKS, Estimate, append_blocks, from_blocks, from_chains, with_controls
from thermodbm.estimate.thermodynamics import integrate_thermodynamics
from thermodbm.evolve.method import Info, Point, State, ThermalMethod
from thermodbm.evolve.options import DeterministicOptions, SamplingOptions
from thermodbm.models import SpinHamiltonian
from thermodbm.network.trotter import network_record
from thermodbm.network.trotter_step import LEVELS, commutator_scale, default_d_tau, kind_of_gates, slices

SHARES = {True: (0.72, 0.2, 0.08), False: (1.0,)}
"""Of the sweeps; coarse levels are cheap and have small weights."""
TRUSTED_SIGN = 5.0
"""Average signs smaller than this many of their errors leave ratios <x s>/<s> whose errors are no longer Gaussian."""
CHUNK_SECONDS = 0.5
"""Aim for the duration of one call of `advance`, at SECONDS_PER_SPIN."""
SECONDS_PER_SPIN = 1e-7
N_SLOTS = 8
"""Batches per chain into which pair functions are averaged, in turn."""
INTERMEDIATE = {"score", "worldline_energy", "energy_score", "sign", "kubo_squared", "magnetization_z_squared"}


def deterministic_method(
    hamiltonian: SpinHamiltonian, options: DeterministicOptions, sampling: SamplingOptions, comm: Comm = SERIAL
) -> ThermalMethod:
    """Sample the analytic network at each temperature; results as in the contract, with extrapolation and its error.

    Raises:
        InputError: for a sampler that does not fit the model.
    """
    d_tau = options.d_tau or default_d_tau(hamiltonian, sampling.target_error)
    sampler = options.sampler or ("loop" if hamiltonian.conserves_sz else "mixed")
    n_local = max(1, -(-sampling.n_chains // comm.size))
    mesh = chain_mesh(n_local)
    shares = SHARES[options.extrapolate]
    wanted = [max(4, int(np.ceil(sampling.n_samples * share / (n_local * comm.size)))) for share in shares]
    ensemble_at(hamiltonian, sampler, 1, d_tau)  # complains at once

    def chunk(n_slices: int) -> int:
        """Sweeps of one call, a power of two."""
        seconds = SECONDS_PER_SPIN * 2 * n_slices * hamiltonian.n_sites * n_local / mesh.size
        longest = min(CHUNK_SECONDS / seconds, 256, max(wanted[0] / 4, 2))
        return max(2, 2 ** int(np.log2(max(longest, 1))))

    def runner(n_slices: int) -> tuple[Ensemble, Any]:
        return _compiled(Same(hamiltonian), sampler, n_slices, max(LEVELS[options.extrapolate]) * d_tau, mesh, chunk(n_slices))

    def init(key: jax.Array) -> State:
        return {"beta": np.nan, "levels": {}}

    def start(key: jax.Array, state: State, beta: float) -> State:
        """Chains at the new temperature begin where those with the nearest number of slices stopped."""
        before = {int(level["n_slices"]): level["chains"] for level in state["levels"].values()}
        levels = {}
        for k, n_slices in enumerate(slices(beta, d_tau, options.extrapolate)):
            ensemble = runner(n_slices)[0]
            if before:
                nearest = min(before, key=lambda m: abs(np.log(m / n_slices)))
                chains = before[nearest] if nearest == n_slices else ensemble.resize(before[nearest])
            else:
                chains = ensemble.kernel.init(jax.random.fold_in(key, k), n_local)
            nothing = {"n_sweeps": 0, "block": 1, "series": {}, "rare": {}, "visits": np.zeros(N_SLOTS, int)}
            levels[str(k)] = {"n_slices": n_slices, "chains": chains, **nothing}
        return {"beta": beta, "levels": levels}

    def n_thermal(level: int) -> int:
        return max(30, wanted[level] // 10) if sampling.n_thermal is None else sampling.n_thermal

    def progress(levels: dict) -> list[float]:
        """Fraction done of every level; may exceed one."""
        return [level["n_sweeps"] / (n_thermal(k) + wanted[k]) for k, level in enumerate(levels.values())]

    def advance(key: jax.Array, state: State, beta: float) -> tuple[State, Info]:
        key = jax.random.fold_in(key, comm.rank)
        if state["beta"] != beta:
            state = start(key, state, beta)
        done = progress(state["levels"])
        # the first chunks compile: all levels at once, so that every core has its share
        now = range(len(done)) if max(done) == 0 else [int(np.argmin(done))]

        def sweep(k: int) -> State:
            level = state["levels"][str(k)]
            return _sweep(jax.random.fold_in(key, k), beta, level, hamiltonian, *runner(int(level["n_slices"])), mesh, n_thermal(k))

        with ThreadPoolExecutor(max_workers=len(now)) as pool:
            levels = {**state["levels"], **{str(k): level for k, level in zip(now, pool.map(sweep, now), strict=True)}}
        state = {"beta": beta, "levels": levels}
        done = progress(levels)
        fraction, message = min(done), ""
        if min(done) >= 1 or sampling.target_error:
            if all(level["series"] for level in levels.values()):
                error = float(_extrapolated(hamiltonian, levels, beta, comm, only="energy")["energy"].error)
                message = f"error {error:.1e}"
                if sampling.target_error:
                    enough = all(level["n_sweeps"] > 2 * n_thermal(k) for k, level in enumerate(levels.values()))
                    fraction = min(1.0, (sampling.target_error / error) ** 2) if error > 0 else 1.0
                    fraction = fraction if enough else min(fraction, 0.99)
            else:
                fraction = 0.0
        point = _point(hamiltonian, levels, beta, comm) if fraction >= 1 else None
        return state, Info(min(fraction, 1.0), message, point)

    def summarize(points: list[Point], betas: np.ndarray) -> list[Point]:
        return join_temperatures(hamiltonian, points, betas)

    return ThermalMethod(init, advance, summarize=summarize)


def ensemble_at(hamiltonian: SpinHamiltonian, sampler: str, n_slices: int, max_delta: float) -> Ensemble:
    """The ensemble that belongs to the model."""
    if hamiltonian.conserves_sz:
        return exchange_ensemble(hamiltonian, sampler, n_slices)
    return ising_ensemble(hamiltonian, sampler, n_slices, max_delta)


class Same:
    """A Hamiltonian that can be looked up: equal if structure and couplings are."""

    def __init__(self, hamiltonian: SpinHamiltonian):
        self.hamiltonian = hamiltonian
        leaves, structure = jax.tree.flatten(hamiltonian)
        self.key = (structure, *(np.asarray(x).tobytes() for x in leaves))

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.key == other.key


@lru_cache(maxsize=32)
def _compiled(same: Same, sampler: str, n_slices: int, max_delta: float, mesh: Mesh, n_sweeps: int) -> tuple[Ensemble, Any]:
    """An ensemble and its run function, kept so that the next curve of the same magnet need not compile again."""
    ensemble = ensemble_at(same.hamiltonian, sampler, n_slices, max_delta)
    return ensemble, run_chains(ensemble, mesh, n_sweeps, every=min(n_sweeps, 16))


def _sweep(
    key: jax.Array, beta: float, level: State, hamiltonian: SpinHamiltonian, ensemble: Ensemble, run: Any, mesh: Mesh, n_thermal: int
) -> State:
    """One chunk of sweeps of one level, its results put behind those it has unless they are still thermalising."""
    chains, values, rare = run(key, hamiltonian, jnp.asarray(beta, float), place_chains(ensemble, mesh, level["chains"]))
    n_new = len(values["energy"])
    level = {**level, "chains": chains, "n_sweeps": level["n_sweeps"] + n_new}
    if level["n_sweeps"] - n_new < n_thermal:
        return level
    values, rare = jax.tree.map(np.asarray, (values, rare))
    if not all(np.isfinite(v).all() for v in values.values()):
        raise NumericsError(f"A chain gave a value that is not finite at beta = {beta:.6g}, {level['n_slices']} slices.")
    block = level["block"]
    series = {name: append_blocks(level["series"].get(name), v, block) for name, v in values.items()}
    if len(series["energy"]) >= 2 * MAX_BLOCKS and n_new % (2 * block) == 0:
        even = len(series["energy"]) // 2 * 2
        series = {name: s[:even].reshape(-1, 2, s.shape[-1]).mean(1) for name, s in series.items()}
        block *= 2
    turn = (level["n_sweeps"] // n_new) % N_SLOTS
    slots = level["rare"] or {name: np.zeros((N_SLOTS, *v.shape)) for name, v in rare.items()}
    for name, v in rare.items():
        slots = {**slots, name: slots[name] + (np.arange(N_SLOTS) == turn).reshape(-1, *[1] * v.ndim) * v}
    return {**level, "series": series, "rare": slots, "visits": level["visits"] + (np.arange(N_SLOTS) == turn), "block": block}


def _gather(comm: Comm, values: np.ndarray, axis: int) -> np.ndarray:
    """The chains of all ranks side by side."""
    if comm.size == 1:
        return values
    parts = [np.zeros_like(values)] * comm.size
    parts[comm.rank] = values
    return np.asarray(comm.sum(jnp.asarray(np.concatenate(parts, axis))))


def _linearised(values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Series whose means are <x s>/<s> and whose scatter is that of the ratio, from series of x s and s; as they are without a sign."""
    sign = values.get("sign")
    if sign is None:
        return values
    average = sign.mean()
    if average == 0:
        return {name: np.full_like(x, np.nan) for name, x in values.items()}
    linear = {}
    for name, x in values.items():
        s = sign if x.ndim == sign.ndim else sign[..., None]
        ratio = x.mean((0, 1)) / average
        linear[name] = ratio + (x - ratio * s) / average
    return linear


def _level_estimates(level: State, beta: float, n: int, comm: Comm, only: str | None) -> dict[str, Estimate]:
    """Everything that one Trotter step yields, per site; squares enter as centred series, so that errors propagate to first order."""
    series = {name: _gather(comm, x, axis=-1) for name, x in level["series"].items()}
    x = _linearised(series)
    mean = {name: v.mean() for name, v in x.items()}
    found = {name: x[name] for name in x if name not in INTERMEDIATE}
    found["specific_heat"] = (beta**2 * n) * (
        x["energy_score"] - mean["score"] * x["energy"] - mean["energy"] * x["score"] + mean["energy"] * mean["score"]
    )
    drift = 2 * mean["magnetization_z"] * x["magnetization_z"] - mean["magnetization_z"] ** 2
    if "kubo_squared" in x:
        found["susceptibility"] = beta * n * (x["kubo_squared"] - drift)
    else:
        found["susceptibility"] = beta * (x["magnetization_z_squared"] - n * drift)
    if "worldline_energy" in x:
        found["energy"] = with_controls(x["energy"], [x[name] - x["energy"] for name in ("score", "worldline_energy")])
    if only:
        found = {only: found[only]}
    estimates = {name: from_chains(v, level["block"]) for name, v in found.items()}
    if only:
        return estimates
    seen = level["visits"] > 0
    pairs = {
        name: _gather(comm, v[seen] / level["visits"][seen].reshape(-1, *[1] * (v.ndim - 1)), axis=1) for name, v in level["rare"].items()
    }
    pairs = _linearised(pairs)
    estimates |= {name: from_blocks(np.moveaxis(v, 1, -1)) for name, v in pairs.items() if name != "sign"}
    slope, fluctuation = estimates.pop("slope"), estimates["specific_heat"]
    estimates["specific_heat"] = fluctuation._replace(
        mean=fluctuation.mean - beta**2 * slope.mean[0], error=np.hypot(fluctuation.error, beta**2 * slope.error[0])
    )
    if "sign" in series:
        estimates["sign"] = from_chains(series["sign"], level["block"])
    return estimates


def _extrapolated(hamiltonian: SpinHamiltonian, levels: dict, beta: float, comm: Comm, only: str | None = None) -> dict[str, Estimate]:
    """Estimates at a vanishing Trotter step."""
    found = [_level_estimates(level, beta, hamiltonian.n_sites, comm, only) for level in levels.values()]
    deltas = beta / (2 * np.array([float(level["n_slices"]) for level in levels.values()]))
    u = (deltas / deltas[0]) ** 2
    smallness = (deltas[0] * commutator_scale(hamiltonian)) ** 2
    prior = TROTTER_PRIOR[kind_of_gates(hamiltonian)]

    def at_zero(name: str) -> Estimate:
        if name == "sign":
            return found[0][name]
        return extrapolate([e[name] for e in found], u, **prior.scaled(name, smallness))

    return {name: at_zero(name) for name in found[0]}


def _point(hamiltonian: SpinHamiltonian, levels: dict, beta: float, comm: Comm) -> Point:
    n_slices = int(levels["0"]["n_slices"])
    observables = _extrapolated(hamiltonian, levels, beta, comm)
    sign = observables.pop("sign", None)
    n_measured = sum(x["series"]["energy"].size * x["block"] for x in levels.values()) * comm.size
    diagnostics = {"n_slices": n_slices, "d_tau": beta / (2 * n_slices), "n_samples": n_measured, "average_sign": 1.0}
    if sign is not None:
        trusted = abs(float(sign.mean)) > TRUSTED_SIGN * float(sign.error)
        diagnostics |= {"average_sign": float(sign.mean), "average_sign_error": float(sign.error), "trusted": float(trusted)}
    return Point(observables, diagnostics, network_record(hamiltonian, beta, n_slices))


def join_temperatures(hamiltonian: SpinHamiltonian, points: list[Point], betas: np.ndarray) -> list[Point]:
    """Entropy and free energy by integration from infinite temperature, and the specific heat from all energies together.

    The specific heat of each temperature alone is kept as specific_heat_direct.
    """

    def curve(name: str) -> Estimate:
        estimates = [p.observables[name] for p in points]
        return Estimate(np.array([e.mean for e in estimates]), np.array([e.error for e in estimates]))

    direct = curve("specific_heat")
    joint = integrate_thermodynamics(hamiltonian, betas, curve("energy"), direct)
    joined = []
    for k, point in enumerate(points):
        estimates = {name: Estimate(e.mean[k], e.error[k]) for name, e in joint.items()}
        joined.append(
            point._replace(observables={**point.observables, "specific_heat_direct": point.observables["specific_heat"], **estimates})
        )
    return joined
