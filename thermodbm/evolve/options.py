"""Every key of [method] and [sampling], with its default and what it means: the one place where defaults stand."""

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

# Types carry the range of what makes sense; `run.config` checks them, whether the options come from a file or from Python.
Sampler = Literal["mixed", "cluster", "column", "loop", "gibbs"]
TrotterSampler = Literal["mixed", "cluster", "column", "loop", "gibbs", "series"]

TauParts = Literal[4, 8, 16, 32, 64]


@dataclass(frozen=True)
class SamplingOptions:
    """[sampling]: how many samples are drawn, and from which seed."""

    n_chains: Annotated[int, Field(ge=1, le=10**6)] = 64
    """Independent Markov chains, over all ranks and devices; the variational method has method.n_walkers in their place."""
    n_samples: Annotated[int, Field(ge=1, le=10**12)] = 20_000
    """Samples per temperature, summed over chains (a sample is one sweep of one chain)."""
    target_error: PositiveFloat | None = None
    """If given, sampling goes on until the error of the energy per site is at most this, instead of stopping at n_samples."""
    n_thermal: Annotated[int, Field(ge=0, le=10**12)] | None = None
    """Sweeps per chain that are discarded at each temperature before measuring; None: a tenth of those measured, at least 30. The
    variational method carries its walkers from step to step and discards none."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Seed of all random numbers: the same seed on the same number of ranks gives the same results, bit for bit."""


@dataclass(frozen=True)
class DeterministicOptions:
    """[method] with kind = "deterministic": the network is written down gate by gate from a Trotter product."""

    d_tau: PositiveFloat | None = None
    """Largest Trotter step in tau = beta/2; None: chosen from the couplings so that extrapolation is safe."""
    extrapolate: bool = True
    """Run at two or three Trotter steps and extrapolate to zero, with the extrapolation error in the error bars."""
    sampler: TrotterSampler | None = None
    """How (v, d) are sampled; None: "mixed" for tfim, "loop" for models that conserve the magnetisation. "series": at a vanishing Trotter
    step, with the layers themselves drawn, as strings of gates; nothing is extrapolated, and no network is stored. For all magnets but
    Ising ones in a field along z, without d_tau and n_tau, and for Ising magnets without [response]; 128 chains or more fill its
    vectors."""
    n_tau: TauParts | None = None
    """Measure correlations of sz in imaginary time too, from the deep layers, at tau = 0, beta/n_tau, 2 beta/n_tau, ... beta/2, and
    static susceptibilities at all wavevectors. Rings then have at least n_tau layers at every Trotter step."""


@dataclass(frozen=True)
class VariationalOptions:
    """[method] with kind = "variational": the network's weights follow imaginary time by stochastic reconfiguration."""

    ansatz: Literal["auto", "jastrow", "rbm", "dbm", "pairs", "pair_product"] = "auto"
    """jastrow: a two-body factor alone. rbm: times a restricted Boltzmann machine. dbm: times blocks with deep units. pairs: a two-body
    factor times a sum over all pairings of the spins that were exchanged, plus an rbm, or, where exchange is frustrated, times a factor for
    each pattern of spins and ancillas on three or four sites that are joined by bonds; for models that conserve the magnetisation, of at
    most 64 sites: it follows much better, above all at high temperature, and costs twice as much with every pair of exchanged spins.
    pair_product: an rbm times a sum of determinants of pair amplitudes of all spins and ancillas, for models that conserve the
    magnetisation. auto: pairs from 10 to 16 sites, and with patterns to 36, else rbm."""
    alpha: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Hidden units per visible unit (spins and ancillas), at least; filters are summed over the symmetries and come in fours. None: 4; of
    pairs with patterns none. If given, an rbm is added to these. Magnets of so little symmetry that their patterns are too many (400) have
    it in place of them."""
    layers: Annotated[int, Field(ge=0, le=6)] = 2
    """Deep units in each block of ansatz = "dbm", summed over exactly; a block has as many hidden units plus one."""
    determinants: Annotated[int, Field(ge=1, le=1000)] = 32
    """Determinants that an amplitude of ansatz = "pair_product" is at most a sum of: images of one under translations, as far as they fit,
    then rotations and reflections, then the exchange of spins and ancillas; and up to four of their own where that leaves room. The
    network is summed over the same permutations of sites. Twice as many cost twice as much and leave a residual several times smaller."""
    translations: bool = True
    """Sum filters over the translations that leave the couplings unchanged."""
    point_group: bool = False
    """Sum filters over rotations and reflections that leave the couplings unchanged: fewer parameters for as many hidden units, which
    follow less well."""
    exchange: bool = False
    """Sum filters over the exchange of spins and ancillas, under which the exact state is symmetric; as point_group."""
    start: Literal["trotter", "rotated"] = "trotter"
    """The analytic state at beta_0, or the infinite-temperature state with ancillas turned so that no amplitude vanishes."""
    beta_0: PositiveFloat | None = None
    """Inverse temperature at which the evolution starts, times the largest coupling; lower where a lower beta is asked for. None: 0.004
    for pair products and where configurations are enumerated, else, and for a module of your own, 0.02: samples of earlier states add
    noise. The distance of the start from the exact state grows as beta_0^2, and what it is off by in cold states counts more and more."""
    noise: PositiveFloat = 0.03
    """Width of the Gaussian weights of the filters at the start, where groups of four cancel up to its eighth power."""
    integrator: Literal["bs3", "heun", "rk4"] = "bs3"
    """Bogacki-Shampine 3(2) or Heun with adaptive steps, or fourth-order Runge-Kutta with steps of max_distance."""
    tolerance: PositiveFloat | None = None
    """Error of one step, as the distance of normalised states (the S norm); None: 3e-5 when configurations are enumerated, 1e-4 when
    sampled."""
    max_distance: PositiveFloat = 0.2
    """Largest distance of normalised states that one step covers: the step in tau times the spread of the energy; bounds every
    integrator's steps, which are also at most 0.35 tau."""
    solver: Literal["auto", "cholesky", "pinv", "cg", "minsr"] = "auto"
    """How S^-1 F is solved. cholesky: S + diag_shift. pinv: without the eigenvalues of S below cutoff. cg: as cholesky, without building
    S. minsr: by a matrix as large as the number of samples; the shift is in units of the mean diagonal element of S. auto: minsr when
    samples are fewer than parameters, cg for more than 8192 parameters, else cholesky, or pinv if diag_shift = 0."""
    diag_shift: Annotated[float, Field(ge=0)] | None = None
    """Added to the diagonal of S in units in which that is one; None: 1e-8 where configurations are enumerated; 1e-3 for sampled pairs of
    defects, 1e-5 for other sampled models that conserve the magnetisation, whose rare configurations make S noisy at high temperature, else
    1e-7. More costs accuracy: the Ising ring of 16 spins with 4096 walkers ends at r^2 = .004, .005 and .2
    for 1e-7, 1e-5 and 1e-3. Less costs stability: with 1e-4 one of three runs of the frustrated 4x4 torus let an amplitude grow that no
    sample had seen (r^2 at T = 1 .2 in place of .03); with 1e-3 none of three did, and r^2 is .025; with 1e-2 e is off by three times as
    much."""
    cutoff: PositiveFloat = 1e-10
    """Eigenvalues of S below this times the largest are left out by pinv."""
    compose: Literal["auto"] | bool = "auto"
    """Measure at each temperature also two networks of twice that temperature joined by a layer of deep units, or four of four times it
    where there is no frustration and configurations are summed, and take of each observable the estimate of the smaller error; both stand
    in the diagnostics. auto: for frustrated exchange, and magnets of 10 to 16 sites that conserve the magnetisation, where the network
    itself misses more than r^2 = .05 of its motion; true: at all temperatures that are low enough; false: never. With frustration the
    joined state has a sign, which is mild up to some 20 sites; 4 to 16 times sampling.n_samples configurations of its ring are drawn."""
    enumerate: bool | None = None
    """Sum over all configurations instead of sampling them; None: where there are at most 2^13 up to symmetry."""
    n_walkers: Annotated[int, Field(ge=1, le=10**7)] | None = None
    """Configurations carried along, one sample of each per integration step, over all ranks; None: 4096, or 16 per parameter if
    that is more, but not above 16384."""
    n_sweeps: Annotated[int, Field(ge=1, le=10**6)] = 4
    """Attempted moves per visible unit between two samples."""


@dataclass(frozen=True)
class LearnedOptions:
    """[method] with kind = "learned": the deterministic method's network with few layers, whose couplings are trained without sampling,
    for magnets without field along z, frustrated exchange and easy axes: those of at most 16 sites, and uniform periodic lattices of any
    size but cubic ones, whose networks are trained on clusters of at most 16 sites (exchange rings: 12; transverse-field Ising rings: on
    themselves)."""

    layers: Literal["auto"] | Annotated[int, Field(ge=1, le=64)] = "auto"
    """Layers of deep units between ancillas and spins; auto: the fewest, the same at all temperatures, that leave an expected error of the
    order parameter of at most 1e-3, or sampling.target_error if that is less. Where networks are composed, those of the lowest temperature
    have so many, and the others at most as many."""
    polish: Annotated[int, Field(ge=0, le=10**10)] = 0
    """Samples, at each temperature, of the rings by which networks trained on a cluster are brought nearer to the thermal state of the
    magnet itself; 0: none. What is then left is measured, too, to the accuracy of half as many samples of the deterministic method: it
    pays where the network is kept and sampled more than once."""
    sampler: Sampler | None = None
    """How (v, d) are sampled; None: "mixed" for tfim, "loop" for models that conserve the magnetisation."""
    cache: bool = True
    """Keep trained couplings in the user's cache folder (thermodbm/learned), so that the same temperatures are trained once."""


@dataclass(frozen=True)
class ExactOptions:
    """[method] with kind = "exact": free fermions for the periodic Ising chain, full diagonalisation otherwise."""

    n_tau: TauParts | None = None
    """Correlations of sz in imaginary time too, as the deterministic method has them: of magnets of at most 12 sites (tfim: 10)."""


@dataclass(frozen=True)
class TypicalOptions:
    """[method] with kind = "typical": Lanczos from random vectors in every symmetry sector, for any magnet of up to about 24 sites, more
    where there are translations. Errors are those of the random vectors."""

    n_vectors: Annotated[int, Field(ge=2, le=10**4)] = 4
    """Random vectors in every sector; errors fall as its root. Small sectors, and the lowest states of all others, are exact."""
    n_lanczos: Annotated[int, Field(ge=10, le=10**4)] = 200
    """Most Lanczos steps from each vector; fewer are made where the coldest temperature is converged before."""


MethodOptions = DeterministicOptions | LearnedOptions | VariationalOptions | ExactOptions | TypicalOptions
