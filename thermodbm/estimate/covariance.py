"""How errors of different quantities of one run hang together: at each temperature, from common batches of its chains, and between
temperatures, by the curves that join them."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np

from thermodbm.estimate.statistics import Estimate
from thermodbm.estimate.thermodynamics import Joint

MEASURED = ("energy", "specific_heat", "susceptibility", "magnetization_z")
"""What fits are made to, as every temperature has it by itself."""
DIRECT = "specific_heat_direct"
"""Name of that specific heat beside the one of all temperatures together."""


def correlation_key(a: str, b: str) -> str:
    """Name of the diagnostic that holds the correlation of two of `MEASURED`."""
    return f"correlation_{a}_{b}"


def combined_correlations(
    combine: Callable[[str, list[Estimate]], Estimate],
    levels: Sequence[Mapping[str, Estimate]],
    correlations: Sequence[np.ndarray],
    observables: Mapping[str, Estimate],
) -> dict[str, float]:
    """Correlations of the errors of `MEASURED` after their levels are combined; what an extrapolation may have missed is independent.

    Args:
        combine: of a name and its estimates at all levels.
        levels: estimates of every level.
        correlations: of MEASURED at every level, (n, n).
        observables: what combine made of the levels.
    """
    index = {name: k for k, name in enumerate(MEASURED) if name in observables}
    moves = {name: _moves(lambda found, name=name: combine(name, found), [level[name] for level in levels]) for name in index}
    found = {}
    for a, b in combinations(index, 2):
        shared = sum(m * n * rho[index[a], index[b]] for m, n, rho in zip(moves[a], moves[b], correlations, strict=True))
        errors = [float(observables[name].error) for name in (a, b)]
        known = np.isfinite(shared) and all(0 < error < np.inf for error in errors)
        found[correlation_key(a, b)] = float(np.clip(shared / np.prod(errors), -1, 1)) if known else 0.0
    return found


def _moves(combine: Callable[[list[Estimate]], Estimate], levels: list[Estimate]) -> list[float]:
    """By how much the combined value moves for one error of every level."""
    step, here, found = 1e-3, combine(levels).mean, []
    for k, level in enumerate(levels):
        moved = [*levels[:k], level._replace(mean=level.mean + step * level.error), *levels[k + 1 :]]
        found.append(float((combine(moved).mean - here) / step) if np.isfinite(level.error) and level.error > 0 else 0.0)
    return found


def with_correlations(joint: Joint, errors: Mapping[str, np.ndarray], correlation: Callable[[str, str], np.ndarray]) -> Joint:
    """Joint estimates with their covariances with what else was measured at each temperature: they are linear in their data, energies and
    specific heats (`Joint.follows`).

    Args:
        errors: of some of MEASURED, energy and specific_heat among them, (n_T,).
        correlation: of two of them at each temperature, (n_T,).
    """
    known = {name: np.where(np.isfinite(error), error, 0.0) for name, error in errors.items()}

    def shared(a: str, b: str) -> np.ndarray:
        return known[a] * known[b] * (1.0 if a == b else correlation(*sorted((a, b), key=MEASURED.index)))

    covariance = dict(joint.covariance)
    names = {name: DIRECT if name == "specific_heat" else name for name in known}
    for name, key in names.items():
        for b, (by_energy, by_heat) in joint.follows.items():
            to_energy, to_heat = shared(name, "energy")[:, None], shared(name, "specific_heat")[:, None]
            covariance[f"{key}/{b}"] = to_energy * by_energy.T + to_heat * by_heat.T
    for a, b in combinations(names, 2):
        covariance[f"{names[a]}/{names[b]}"] = np.diag(shared(a, b))
    return joint._replace(covariance=covariance)
