"""The infinite XXZ chain in the thermodynamic limit: exact curves of 0 < delta <= 1 by nonlinear integral equations.

With delta = cos(gamma), p = pi/gamma, and functions b and bb on lines at a distance s from each other's poles,

    ln b(x)  = -A beta / cosh(x - is) + beta h p/(2(p-1)) + kappa * [ln(1 + b)] - kappa(. + i(pi - 2s)) * [ln(1 + bb)]
    ln bb(x) = the same with b and bb exchanged, and -i, -h in place of i, h
    f = e_0 - T/(2 pi) int [ln(1 + b)/cosh(x - is) + ln(1 + bb)/cosh(x + is)] dx,        A = (pi/2) sin(gamma)/gamma

and kappa(k) = sinh((p-2) pi k/2) / (2 cosh(pi k/2) sinh((p-1) pi k/2)) in Fourier space, exp(-pi|k|/2) / (2 cosh(pi k/2)) at delta = 1.
A ring is as good as infinite where the correlation length, about J/(2T) sites, is far below its length. Values are good to 1e-6, chi at
delta = 1, where corrections are logarithms, to 1e-4.
Source: Kluemper, Eur. Phys. J. B 5, 677 (1998); Kluemper and Johnston, Phys. Rev. Lett. 84, 4701 (2000).

    python benchmarks/infinite_chain.py
"""

import numpy as np
from scipy.integrate import quad

POINTS, WIDTH, DISTANCE = 2**13, 200.0, 0.6


def free_energy(T: float, delta: float = 1.0, h: float = 0.0) -> float:
    """Per site, of J = 1."""
    x = (np.arange(POINTS) - POINTS // 2) * 2 * WIDTH / POINTS
    k = 2 * np.pi * np.fft.fftfreq(POINTS, 2 * WIDTH / POINTS)
    kappa, amplitude, charge, e_0 = _constants(delta, np.abs(k) * np.pi / 2)
    shift = np.exp(np.clip((np.pi - 2 * DISTANCE) * k, -300, 300))
    with np.errstate(over="ignore"):
        sech = 1 / np.cosh(x - 1j * DISTANCE)
    fixed = np.stack([-amplitude / T * sech + charge * h / T, -amplitude / T * np.conj(sech) - charge * h / T])
    b = fixed
    for _ in range(1000):
        own = np.fft.fft(np.fft.ifftshift(np.log1p(np.exp(b)), axes=1))
        new = fixed + np.fft.fftshift(np.fft.ifft(kappa * (own - np.stack([1 / shift, shift]) * own[::-1])), axes=1)
        done, b = np.abs(new - b).max() < 1e-13, new
        if done:
            break
    spinons = np.sum(np.log1p(np.exp(b)) * np.stack([sech, np.conj(sech)])).real
    return float(e_0 - T / (2 * np.pi) * 2 * WIDTH / POINTS * spinons)


def _constants(delta: float, k: np.ndarray) -> tuple[np.ndarray, float, float, float]:
    """kappa at 2 |k| / pi, the amplitude A, the factor of beta h and the ground state energy."""
    if delta == 1:
        return np.exp(-2 * k) / (1 + np.exp(-2 * k)), np.pi / 2, 0.5, 0.25 - np.log(2)
    gamma = np.arccos(delta)
    p, k = np.pi / gamma, np.maximum(k, 1e-9)
    ratio = np.sign(p - 2) * np.exp(-(p - 1 - abs(p - 2)) * k) * np.expm1(-2 * abs(p - 2) * k) / np.expm1(-2 * (p - 1) * k)
    kappa = ratio * np.exp(-k) / (1 + np.exp(-2 * k))
    ends = lambda t: np.expm1(-2 * (np.pi - gamma) * t) / np.expm1(-2 * np.pi * t)  # noqa: E731
    bonds = quad(lambda t: np.exp(-gamma * t) * ends(t) / np.cosh(gamma * t), 1e-12, 100)[0]
    return kappa, np.pi / 2 * np.sin(gamma) / gamma, p / (2 * (p - 1)), delta / 4 - np.sin(gamma) * bonds


def infinite_chain(temperatures: np.ndarray, delta: float = 1.0) -> dict[str, np.ndarray]:
    """energy, specific_heat and susceptibility of J = 1, by differences of the free energy."""
    rows = []
    for T in temperatures:
        steps = T * (1 + 0.02 * np.arange(-2, 3))
        f = np.array([free_energy(t, delta) for t in steps])
        slope = f @ [1, -8, 0, 8, -1] / (12 * 0.02 * T)
        curvature = f @ [-1, 16, -30, 16, -1] / (12 * (0.02 * T) ** 2)
        one, two = (2 * (f[2] - free_energy(T, delta, h)) / h**2 for h in (0.1 * T, 0.2 * T))
        rows.append((f[2] - T * slope, -T * curvature, (4 * one - two) / 3))
    return dict(zip(("energy", "specific_heat", "susceptibility"), np.array(rows).T, strict=True))


def main() -> None:
    """Against diagonalisation at temperatures where a ring of 14 sites is as good as infinite."""
    import thermodbm as tb

    T = np.array([1.0, 1.5, 3.0])
    for delta in (1.0, 0.6):
        ring = tb.thermal_curve(tb.xxz(tb.make_lattice("chain", 14), delta=delta), T=T, method="exact", progress=False)
        found = infinite_chain(T, delta)
        print(delta, {n: np.abs(x / ring.observables[n].mean - 1).max() for n, x in found.items()})


if __name__ == "__main__":
    main()
