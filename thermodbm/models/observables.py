"""The registry of observables: what a curve can hold, under which name, symbol and unit, and for which models."""

from typing import NamedTuple

ISING = ("tfim",)
EXCHANGE = ("xxz", "heisenberg", "j1j2")


class Observable(NamedTuple):
    """One observable, per site, as tables, figures, files and exports name it."""

    name: str  # in the file, and as an attribute of a curve
    words: str  # title of a panel
    symbol: str  # in matplotlib's TeX
    unit: int  # power of the coupling J
    doc: str  # one line
    dims: tuple[str, ...] = ()  # beyond temperature: tau, site, wavevector
    models: tuple[str, ...] = ISING + EXCHANGE
    panel: bool = True  # drawn where nothing is asked for


_ALL = (
    Observable("energy", "energy per site", "e", 1, "Energy <H>/N."),
    Observable("specific_heat", "specific heat per site", "c", 0, "Specific heat beta^2 (<H^2> - <H>^2)/N."),
    Observable(
        "specific_heat_direct",
        "specific heat per site, by fluctuations",
        "c",
        0,
        "Specific heat from the fluctuations at each temperature alone, without the slope of the energies at the others.",
        panel=False,
    ),
    Observable("entropy", "entropy per site", "s", 0, "Entropy per site, ln 2 at infinite temperature."),
    Observable("free_energy", "free energy per site", "f", 1, "Free energy -ln Z/(beta N)."),
    Observable(
        "susceptibility", "susceptibility per site", r"\chi", -1, "Response of the magnetisation along z to a field along z, per site."
    ),
    Observable(
        "susceptibility_x",
        "transverse susceptibility per site",
        r"\chi_{xx}",
        -1,
        "Kubo response of the magnetisation along x to a field along x, int_0^beta <M_x(tau) M_x> dtau / N with M_x = sum_i Sx_i.",
        models=EXCHANGE,
        panel=False,
    ),
    Observable(
        "staggered_structure_factor",
        "staggered structure factor",
        r"S(\mathrm{staggered})",
        0,
        "Static zz structure factor at opposite signs on the two sublattices: <(sum_i +-S_i)^2>/N (bipartite lattices).",
    ),
    Observable(
        "order_parameter_squared", "squared magnetisation", r"\langle m_z^2 \rangle", 0, "<m_z^2>, m_z = sum_i sz_i / N.", models=ISING
    ),
    Observable(
        "binder_ratio",
        "Binder ratio",
        r"\langle m_z^4 \rangle / \langle m_z^2 \rangle^2",
        0,
        "Binder ratio <m_z^4>/<m_z^2>^2, m_z = sum_i sz_i / N: 1 in an ordered state, 3 where the magnetisation is Gaussian.",
        models=ISING,
        panel=False,
    ),
    Observable("magnetization_x", "transverse magnetisation", "m_x", 0, "Magnetisation along x per site."),
    Observable("magnetization_z", "longitudinal magnetisation", "m_z", 0, "Magnetisation along z per site."),
    Observable(
        "correlation_zz",
        "zz correlation",
        "C_{zz}",
        0,
        "zz correlation with site 0, averaged over translations, (n_T, n_sites).",
        ("site",),
    ),
    Observable(
        "structure_factor_zz",
        "zz structure factor",
        "S_{zz}",
        0,
        "Static zz structure factor at the wavevectors of a periodic lattice, (n_T, n_cells).",
        ("wavevector",),
    ),
    Observable(
        "imaginary_time_correlation_zz",
        "zz correlation in imaginary time",
        r"C_{zz}(\tau)",
        0,
        "<s_i(tau) s_j(0)> with site 0, averaged over translations, at tau = k beta/n_tau up to beta/2, (n_T, n_tau/2 + 1, n_sites).",
        ("tau", "site"),
    ),
    Observable(
        "imaginary_time_structure_factor_zz",
        "zz structure factor in imaginary time",
        r"S_{zz}(\tau)",
        0,
        "<s_q(tau) s_-q(0)>/N at the wavevectors of a periodic lattice and tau = k beta/n_tau up to beta/2, (n_T, n_tau/2 + 1, n_cells).",
        ("tau", "wavevector"),
    ),
    Observable(
        "static_susceptibility_zz",
        "static zz susceptibility",
        r"\chi_{zz}(q)",
        -1,
        "Kubo response int_0^beta <s_q(tau) s_-q(0)> dtau / N at wavevectors of a periodic lattice (n_T, n_cells), nothing subtracted.",
        ("wavevector",),
    ),
)
OBSERVABLES = {observable.name: observable for observable in _ALL}
"""By name, in the order of tables and panels."""
LOG_PARTITION, SECOND = "log_partition", "second"
"""Under which d^2 ln Z / d lambda_a d lambda_b / N, (n_T, K, K), stands among the derivatives."""
