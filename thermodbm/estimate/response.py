"""Derivatives of sampled averages: covariances with the derivative of the log-weight, and the explicit derivative of each estimator.

With weights W(lambda) and D = d ln|W|/d lambda, at a fixed number of layers,

    d<x>/dlambda = <x; D> + <dx/dlambda>                              (<a; b> = <a b> - <a><b>; ratios to the sign where there is one)
    df/dlambda   = <dH/dlambda>/N          ds/dlambda = beta (de/dlambda - df/dlambda)
    dc/dlambda   = beta^2 [ N <e; s; D> + N <de/dlambda; s> + N <e; ds/dlambda> - <e_beta; D> - <de_beta/dlambda> ]

with the score s = -d ln W/d beta / N and e_beta the explicit derivative of the energy in beta, as c = beta^2 (N <e; s> - <e_beta>). All
of them are functions of the means of a few series, kept in contiguous blocks; errors are those of a jackknife over long batches of blocks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from thermodbm.errors import InputError
from thermodbm.estimate.ensemble import Ensemble, Measure
from thermodbm.estimate.statistics import MIN_BATCHES, Blocks, Estimate
from thermodbm.models import SpinHamiltonian
from thermodbm.models.observables import LOG_PARTITION
from thermodbm.models.parameters import BETA, Directions, Parameter, parameter, stacked
from thermodbm.sampling.kernel import SamplerKernel

Values = dict[str, jax.Array]
LATE = "late:"
"""Marks series that are measured after each stretch of sweeps alone."""
RING, GRAPHS, WORLDLINES = "ring", "graphs", "worldlines"
"""What derivatives are taken of: the weights of the Ising ring; those of graphs of exchange magnets, whose loops are averaged over; or
those of their worldlines, which is always right."""


Point = tuple[Any, ...]
"""What weights are made of: a Hamiltonian and beta, or a Hamiltonian, its network and how that moves with beta."""


class Probe(NamedTuple):
    """Weights that know of what they were made, and in which directions they are differentiated."""

    magnet: Any
    point: Point
    directions: Directions  # of the Hamiltonian, K of them
    moved: Point  # of the rest of the point; K in front
    beta: jax.Array
    mixed: Directions | None = None  # second derivatives of the couplings, where those of ln Z are wanted

    @property
    def hamiltonian(self) -> SpinHamiltonian:
        """Whose couplings these are."""
        return self.point[0]

    def tangents(self) -> Point:
        """Derivatives of the point in all directions, the first axis of everything."""
        zz, xy, x, z = self.directions.leaves
        return replace(self.hamiltonian, zz=zz, xy=xy, x_field=x, z_field=z), *self.moved


def along(f: Callable[..., Any], probe: Probe) -> Any:
    """Derivatives of f(*point) -> (n_chains,) in all directions, (n_chains, K)."""
    return jax.tree.map(lambda x: x.T, jax.vmap(lambda tangent: jax.jvp(f, probe.point, tangent)[1])(probe.tangents()))


def in_beta(f: Callable[[SpinHamiltonian, jax.Array], Any]) -> Callable[[SpinHamiltonian, jax.Array], Any]:
    """df/dbeta as a function of the same arguments."""
    return lambda hamiltonian, beta: jax.jvp(lambda b: f(hamiltonian, b), (beta,), (jnp.ones_like(beta),))[1]


def second_series(log_w: Callable[..., jax.Array], probe: Probe, D: jax.Array) -> Values:
    """Of second derivatives of ln Z, (n_chains, K K) each, if they are wanted: D_a D_b, and dD_a/dlambda_b."""
    if probe.mixed is None:
        return {}
    twice = along(lambda *point: along(log_w, probe._replace(point=point)), probe)
    bent = along(log_w, probe._replace(directions=probe.mixed, moved=(probe.mixed.beta,)))
    n_chains = len(D)  # `along` puts the chains of a matrix in its middle
    return {"D*D": (D[:, :, None] * D[:, None]).reshape(n_chains, -1), "D_moved": jnp.moveaxis(twice, 1, 0).reshape(n_chains, -1) + bent}


def sweep_series(averages: Values, score: jax.Array, D: jax.Array, explicit: jax.Array, free: jax.Array, score_moved: jax.Array) -> Values:
    """The series of a sweep, (n_chains, 1 or K) each.

    Args:
        averages: per site, (n_chains,), energy among them.
        score: (n_chains,).
        D, explicit, free, score_moved: of all directions, (n_chains, K): derivative of ln|W|, explicit ones of the energy and of the score,
            and an estimator of dH/dlambda / N.
    """
    series = {"D": D, "free": free, "energy_moved": explicit, "score_moved": score_moved}
    for name, x in {**averages, "score": score, "energy_score": averages["energy"] * score}.items():
        series |= {name: x[:, None], f"{name}*D": x[:, None] * D}
    series["energy_moved*score"] = explicit * score[:, None]
    series["energy*score_moved"] = averages["energy"][:, None] * score_moved
    return series


def late_series(moved: Values, score: jax.Array, D: jax.Array, slope: jax.Array, slope_moved: jax.Array) -> Values:
    """The series after a stretch: explicit derivatives (n_chains, K) of averages beyond those of every sweep, and those of the energy's
    explicit derivative in beta, slope (n_chains,), with the D and the score at the same time."""
    series = {"D": D, "score": score[:, None], "slope": slope[:, None], "slope*D": slope[:, None] * D, "slope_moved": slope_moved}
    series |= {f"{name}_moved": x for name, x in moved.items()}
    series["energy_moved*score"] = moved["energy"] * score[:, None]
    return {LATE + name: x for name, x in series.items()}


def respond_with(ensemble: Ensemble, respond: Callable, respond_late: Measure | None) -> Ensemble:
    """The ensemble with weights that are a `Probe`."""
    kernel = ensemble.kernel

    def weights(point: Point, directions: Directions, moved: Point, beta: jax.Array, mixed: Directions | None = None) -> Probe:
        return Probe(ensemble.weights(*point), point, directions, moved, beta, mixed)

    return ensemble._replace(
        kernel=SamplerKernel(kernel.init, lambda key, probe, state: kernel.step(key, probe.magnet, state)),
        weights=weights,
        measure_rarely=lambda probe, state, info: ensemble.measure_rarely(probe.magnet, state, info),
        respond=respond,
        respond_late=respond_late,
    )


def batches_of(response: Mapping[str, Blocks]) -> dict[str, np.ndarray]:
    """Averages of all series over at least `MIN_BATCHES` contiguous batches of all chains, (n_batches, k): whole chains, where there are
    enough."""
    found = {}
    for name, blocks in response.items():
        n_blocks, n_chains = blocks.means.shape[:2]
        per_chain = min(n_blocks, -(-MIN_BATCHES // n_chains))
        whole = n_blocks // per_chain * per_chain if per_chain else 0
        means = blocks.means[:whole].reshape(max(per_chain, 1), -1, *blocks.means.shape[1:]).mean(1) if whole else blocks.means
        found[name] = means.reshape(-1, blocks.means.shape[-1])
    return found


def response_estimates(
    response: Mapping[str, Blocks], hamiltonian: SpinHamiltonian, of_beta: np.ndarray, beta: float
) -> dict[str, Estimate]:
    """Derivatives (K,) of every scalar at one Trotter step, per site; of free_energy and entropy those in couplings alone; and those of
    ln Z twice, (K K,), where there are."""
    batches = batches_of(response)
    n = len(next(iter(batches.values())))
    if n < 2:
        shapes = _from_means({k: np.full(b.shape[1:], np.nan) for k, b in batches.items()}, hamiltonian, of_beta, beta)
        return {name: Estimate(np.full(x.shape, np.nan), np.full(x.shape, np.inf)) for name, x in shapes.items()}
    total = {name: x.mean(0) for name, x in batches.items()}
    without = {name: (n * total[name] - x) / (n - 1) for name, x in batches.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        whole = _from_means(total, hamiltonian, of_beta, beta)
        replicas = _from_means(without, hamiltonian, of_beta, beta)
    error = {name: np.sqrt((n - 1) * x.var(0)) for name, x in replicas.items()}
    return {name: Estimate(n * x - (n - 1) * replicas[name].mean(0), error[name]) for name, x in whole.items()}


def _from_means(means: Mapping[str, np.ndarray], hamiltonian: SpinHamiltonian, of_beta: np.ndarray, beta: float) -> dict[str, np.ndarray]:
    """Derivatives (..., K) from the means of all series, (..., 1 or K)."""
    n = hamiltonian.n_sites
    x = {name: v / means.get("sign", 1.0) for name, v in means.items()}
    late = {name.removeprefix(LATE): v for name, v in x.items() if name.startswith(LATE)}

    def moved(name: str) -> np.ndarray:
        """<x; D> and the explicit derivatives that there are."""
        return x[f"{name}*D"] - x[name] * x["D"] + x.get(f"{name}_moved", 0.0) + late.get(f"{name}_moved", 0.0)

    energy = moved("energy")
    e, s, D = x["energy"], x["score"], x["D"]
    third = x["energy_score*D"] - x["energy_score"] * D - s * (x["energy*D"] - e * D) - e * (x["score*D"] - s * D)
    third = third + x["energy_moved*score"] - x["energy_moved"] * s + x["energy*score_moved"] - e * x["score_moved"]
    third = third + late["energy_moved*score"] - late["energy_moved"] * late["score"]
    heat = beta**2 * (n * third - (late["slope*D"] - late["slope"] * late["D"]) - late["slope_moved"])
    c = beta**2 * (n * (x["energy_score"] - e * s) - late["slope"])
    found = {"energy": energy, "specific_heat": heat + of_beta * 2 * c / beta}
    found |= {"free_energy": x["free"], "entropy": beta * (energy - x["free"])}
    plain = ("magnetization_x", "magnetization_z", "order_parameter_squared", "staggered_structure_factor")
    found |= {name: moved(name) for name in plain if name in x}
    if "D*D" in x:
        products = (D[..., :, None] * D[..., None, :]).reshape(x["D*D"].shape)
        found[LOG_PARTITION] = (x["D*D"] - products + x["D_moved"]) / n
    m = x["magnetization_z"]
    for square, factor in (("kubo_squared", beta * n), ("magnetization_z_squared", beta)):
        if square in x:
            spread = 1.0 if square == "kubo_squared" else n
            chi = factor * (x[square] - spread * m**2)
            found["susceptibility"] = factor * (moved(square) - 2 * spread * m * found["magnetization_z"]) + of_beta * chi / beta
    return found


def known_response(
    hamiltonian: SpinHamiltonian,
    parameters: Sequence[Parameter],
    response: Mapping[str, Mapping[str, Estimate]],
    observables: Mapping[str, Estimate],
) -> dict[str, dict[str, Estimate]]:
    """With what symmetry fixes where there is no field along z: a field alone moves m_z, by the susceptibility, and moves nothing else."""
    if np.any(np.asarray(hamiltonian.z_field)):
        return {name: dict(of) for name, of in response.items()}
    found: dict[str, dict[str, Estimate]] = {name: {} for name in response}
    for p in parameters:
        along_field, zero = p.directions.z_field.any(), np.zeros(p.shape)
        for name, of in response.items():
            odd = name == "magnetization_z"
            found[name][p.name] = of[p.name] if odd == bool(along_field) else Estimate(zero, zero)
            if odd and along_field and not p.shape and "susceptibility" in observables:
                chi = observables["susceptibility"]
                found[name][p.name] = Estimate(np.asarray(chi.mean), np.asarray(chi.error))
    return found


def derivatives_of(hamiltonian: SpinHamiltonian, parameters: Sequence[Parameter], by_loops: bool, second: bool = False) -> str:
    """Of what derivatives are to be taken: RING for the Ising model, else GRAPHS where no weight of a graph rises from zero, or WORLDLINES.

    Raises:
        InputError: where a coupling vanishes and configurations that it would allow are never seen.
    """
    directions = stacked(parameters)
    zz, xy, x = (np.asarray(leaf, float) for leaf in (hamiltonian.zz, hamiltonian.xy, hamiltonian.x_field))
    leaf, moved, name = (xy, directions.xy, "J") if hamiltonian.conserves_sz else (x, directions.x_field, "gamma")
    if np.any(moved[:, leaf == 0]):
        hint = "What it would allow never occurs in the samples. Give it a small value."
        raise InputError("response.parameters", expected=f"a {name} that is nowhere zero", found="one that is", hint=hint)
    if not hamiltonian.conserves_sz:
        return RING
    isotropic = np.abs(np.abs(zz) - np.abs(xy)) <= 1e-12 * np.abs(xy)
    turned = np.abs(directions.zz * xy - directions.xy * zz)[:, isotropic] > 1e-12
    of_sites = any((p.shape or second) and p.directions.z_field.any() for p in parameters)
    return GRAPHS if by_loops and not (turned.any() or of_sites) else WORLDLINES


def response_by_scaling(
    hamiltonian: SpinHamiltonian, response: Mapping[str, Mapping[str, Estimate]], observables: Mapping[str, Estimate], beta: float
) -> dict[str, dict[str, Estimate]]:
    """With derivatives that follow from averages, and so have their errors, which all temperatures together make small.

    de/dbeta = -c/beta^2, ds/dbeta = -c/beta, df/dbeta = s/beta^2; and along dH/dlambda = r H, where beta H alone matters,
    de/dlambda = r (e - c/beta), ds/dlambda = -r c, df/dlambda = r e.
    """
    found = {name: dict(of) for name, of in response.items()}
    e, c, s = (observables[name] for name in ("energy", "specific_heat", "entropy"))

    def linear(*terms: tuple[float, Estimate]) -> Estimate:
        mean = sum(factor * np.asarray(of.mean) for factor, of in terms)
        return Estimate(mean, np.sqrt(sum((factor * np.asarray(of.error)) ** 2 for factor, of in terms)))

    for name in found.get("energy", {}):
        if name == BETA:
            known = {"energy": linear((-(beta**-2), c)), "entropy": linear((-1 / beta, c)), "free_energy": linear((beta**-2, s))}
        elif (r := _along_all(hamiltonian, parameter(hamiltonian, name))) is not None:
            known = {"energy": linear((r, e), (-r / beta, c)), "entropy": linear((-r, c)), "free_energy": linear((r, e))}
        else:
            continue
        for observable, estimate in known.items():
            found[observable][name] = estimate
    return found


def _along_all(hamiltonian: SpinHamiltonian, p: Parameter) -> float | None:
    """r, where the parameter moves H by r H; None where it does not."""
    if p.shape:
        return None
    moved = np.concatenate([leaf[0] for leaf in p.directions.leaves])
    here = np.concatenate([np.asarray(getattr(hamiltonian, n), float) for n in ("zz", "xy", "x_field", "z_field")])
    r = float(moved @ here / max(here @ here, 1e-300))
    return r if r and np.allclose(moved, r * here, rtol=1e-9, atol=0) else None
