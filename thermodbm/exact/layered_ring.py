"""A uniform ring of few layers, as a learned network of the transverse-field Ising chain is one, by free fermions in both parity sectors.

The network turns ancillas into spins by layers of bonds and of fields, from the ancillas (K_0) to the spins (K_L),

    A = D(K_0) X(g_1) D(K_1) ... X(g_L) D(K_L),    D(K) = exp(K sum sz sz),    X(g) = exp(g sum sx),

and its averages are <O> = Tr(A^T A O)/Tr(A^T A). With fermions of momenta k (sx = 1 - 2n) a pair (k, -k) is empty, full or half full. In
the first two states D(K) = exp(2 K (-cos k tz + sin k tx)) and X(g) = exp(2 g tz) with Pauli matrices tx, tz; the two half full states have
weight 1. So (A^T A)^(1/2) is exp(lambda n.t), n a unit vector, and a momentum that is its own negative, 0 or pi, has weights exp(+-a), a =
sum g - cos k sum K. The even (odd) sector has odd (even) multiples of pi/N and an even (odd) number of fermions:

    Z = Z_+ + Z_-,   Z_p = 1/2 prod_pairs (2 cosh lambda)^2 prod_own 2 cosh 2a [1 + p prod_pairs (tanh lambda)^2 prod_own tanh 2a].

Large numbers are kept as logarithms, small differences are formed without cancellation, and all but the order parameter can be
differentiated. Source of the modes: Katsura, Phys. Rev. 127, 1508 (1962); Pfeuty, Ann. Phys. 57, 79 (1970).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import toeplitz


class Momenta(NamedTuple):
    """Momenta of one parity sector: cosines and sines of those between 0 and pi, and cosines of those that are their own negatives."""

    parity: int
    cos: np.ndarray  # (n_pairs,)
    sin: np.ndarray  # (n_pairs,)
    own: np.ndarray  # (n_own,), 1 for 0 and -1 for pi


class Modes(NamedTuple):
    """A positive Gaussian operator in one sector: exp(length direction.t) for every pair, exp(+-own) for momenta 0 and pi."""

    length: jax.Array  # (n_pairs,) >= 0
    direction: jax.Array  # (2, n_pairs): unit vectors along (tz, tx)
    own: jax.Array  # (n_own,)


class RingAverages(NamedTuple):
    """Averages of a layered ring, per site; of a sharp state that is no exact thermal state."""

    log_z: jax.Array  # ln Tr(A^T A), of the whole ring
    energy: jax.Array
    specific_heat: jax.Array  # beta^2 (<H^2> - <H>^2)/N
    magnetization_x: jax.Array
    entropy: jax.Array  # of the normalised A^T A
    free_energy: jax.Array  # energy - entropy/beta, an upper bound of the exact one


def momenta(n_sites: int) -> tuple[Momenta, Momenta]:
    """Momenta of the even and of the odd sector."""

    def sector(parity: int) -> Momenta:
        multiple = np.arange(1 if parity > 0 else 0, n_sites + 1, 2)  # of pi / n_sites
        k = np.pi * multiple[(multiple > 0) & (multiple < n_sites)] / n_sites
        own = [cos for m, cos in ((0, 1.0), (n_sites, -1.0)) if m in multiple]
        return Momenta(parity, np.cos(k), np.sin(k), np.array(own))

    return sector(1), sector(-1)


def network_modes(n_sites: int, K: jax.Array, g: jax.Array) -> tuple[Modes, Modes]:
    """(A^T A)^(1/2) of the layers K (L + 1,) and g (L,), in both sectors."""
    return tuple(_modes_of_product(sector, K, g) for sector in momenta(n_sites))


def thermal_modes(n_sites: int, J: jax.Array, gamma: jax.Array, beta: jax.Array) -> tuple[Modes, Modes]:
    """exp(-beta H/2) of H = -J sum sz sz - gamma sum sx, in both sectors."""

    def modes(sector: Momenta) -> Modes:
        z, x = beta * (gamma - J * sector.cos), beta * J * sector.sin
        length = _norm(z, x)
        return Modes(length, jnp.stack([z, x]) / length, beta / 2 * (gamma - J * sector.own))

    return tuple(modes(sector) for sector in momenta(n_sites))


def log_trace(n_sites: int, modes: tuple[Modes, Modes]) -> jax.Array:
    """ln Tr of the square of the operator, in both sectors (2,), even first."""
    return jnp.stack([_log_trace(s, m) for s, m in zip(momenta(n_sites), modes, strict=True)])


def infidelity(n_sites: int, K: jax.Array, g: jax.Array, J: jax.Array, gamma: jax.Array, beta: jax.Array) -> jax.Array:
    """1 - Tr(|A| R)^2/(Tr(A^T A) Tr R^2) with |A| = (A^T A)^(1/2), R = exp(-beta H/2): of the whole ring, small numbers accurate to 1e-15.

    For a palindromic network |A| = A; otherwise |A| differs from A by a rotation of the ancillas, which changes no average.
    """
    network, thermal = network_modes(n_sites, K, g), thermal_modes(n_sites, J, gamma, beta)
    log_u, log_v = log_trace(n_sites, network), log_trace(n_sites, thermal)
    log_overlap = jnp.stack([_log_overlap(*parts) for parts in zip(momenta(n_sites), network, thermal, strict=True)])
    # (sum U)(sum V) - (sum (U V)^(1/2) r)^2 over the two sectors: a square of Lagrange's identity, and a mean of 1 - r
    u, v = jax.nn.softmax(log_u), jax.nn.softmax(log_v)
    mean = jnp.sqrt(u * v + 1e-300)
    between = (jnp.sqrt(u[0] * v[1] + 1e-300) - jnp.sqrt(u[1] * v[0] + 1e-300)) ** 2
    lost = -jnp.sum(mean * jnp.expm1(log_overlap))
    return between + lost * (2 * jnp.sum(mean) - lost)


def ring_averages(n_sites: int, K: jax.Array, g: jax.Array, J: jax.Array, gamma: jax.Array, beta: jax.Array) -> RingAverages:
    """Averages of H = -J sum sz sz - gamma sum sx in the state of the layers K (L + 1,) and g (L,); n_sites >= 3, even or odd."""
    network = network_modes(n_sites, K, g)

    def log_z(x: jax.Array) -> jax.Array:
        """ln Tr(A^T A exp(-x_0 H + x_1 sum sx)), to second order in x."""
        inserted = [_insert(s, m, x[0] * J, x[0] * gamma + x[1]) for s, m in zip(momenta(n_sites), network, strict=True)]
        return jax.nn.logsumexp(log_trace(n_sites, tuple(inserted)))

    def log_power(power: jax.Array) -> jax.Array:
        scaled = tuple(Modes(power * m.length, m.direction, power * m.own) for m in network)
        return jax.nn.logsumexp(log_trace(n_sites, scaled))

    (value, slope), curvature = jax.value_and_grad(log_z)(jnp.zeros(2)), jax.hessian(log_z)(jnp.zeros(2))
    energy, entropy = -slope[0] / n_sites, (value - jax.grad(log_power)(1.0)) / n_sites
    return RingAverages(value, energy, beta**2 * curvature[0, 0] / n_sites, slope[1] / n_sites, entropy, energy - entropy / beta)


def order_parameter_squared(n_sites: int, modes: tuple[Modes, Modes]) -> float:
    """<m_z^2>, m_z = sum sz/N, of `network_modes` or `thermal_modes`; in NumPy, not to be differentiated.

    <sz_0 sz_r> is, for each of the four products of Z, the determinant of the Toeplitz matrix C(i - j + 1), C(1) = <sz_0 sz_1> and C(0) =
    -<sx> being averages in that product alone. A momentum 0 or pi whose weight vanishes enters linearly, and so without a division.
    """
    log_z = float(jax.nn.logsumexp(log_trace(n_sites, modes)))
    distances = np.arange(1, n_sites // 2 + 1)
    correlations = np.zeros(len(distances))
    for sector, m in zip(momenta(n_sites), modes, strict=True):
        numeric = Modes(*(np.asarray(x, float) for x in m))
        for sign in (1, -1):
            correlations += (1 if sign > 0 else sector.parity) * _correlations(n_sites, sector, numeric, sign, log_z)
    count = np.where(2 * distances == n_sites, 1, 2)
    return float((1 + correlations @ count) / n_sites)


def _norm(z: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sqrt(z**2 + x**2 + 1e-300)


def _modes_of_product(sector: Momenta, K: jax.Array, g: jax.Array) -> Modes:
    """Multiply the layers up, transposed (B = A^T, so that later layers come from the left), scales taken out as logarithms."""
    K, g = jnp.asarray(K, float), jnp.asarray(g, float)

    def gate(product: jax.Array, exponent: jax.Array, z: jax.Array | float, x: jax.Array | float) -> tuple[jax.Array, jax.Array]:
        """exp(2 exponent (z tz + x tx)) times the product (2, 2, n_pairs), and the logarithm of what was taken out."""
        size = jax.lax.stop_gradient(jnp.abs(2 * exponent))
        grow, decay = jnp.exp(2 * exponent - size), jnp.exp(-2 * exponent - size)
        even, odd = (grow + decay) / 2, (grow - decay) / 2
        top, bottom = product
        product = jnp.stack([even * top + odd * (z * top + x * bottom), even * bottom + odd * (x * top - z * bottom)])
        largest = jax.lax.stop_gradient(jnp.max(jnp.abs(product), (0, 1)))
        return product / largest, size + jnp.log(largest)

    def layer(carry: tuple[jax.Array, jax.Array], couplings: tuple[jax.Array, jax.Array]) -> tuple[tuple[jax.Array, jax.Array], None]:
        product, log_scale = carry
        product, first = gate(product, couplings[1], 1.0, 0.0)
        product, second = gate(product, couplings[0], -sector.cos, sector.sin)
        return (product, log_scale + first + second), None

    unit = jnp.broadcast_to(jnp.eye(2)[..., None], (2, 2, len(sector.cos)))
    start = gate(unit, K[0], -sector.cos, sector.sin)
    (product, log_scale), _ = jax.lax.scan(layer, start, (K[1:], g))
    top, bottom = product
    z, x = jnp.sum(top**2 - bottom**2, 0), 2 * jnp.sum(top * bottom, 0)
    norm = _norm(z, x)
    length = _asinh_exp(jnp.log(norm / 2) + 2 * log_scale) / 2  # B B^T = cosh(2 length) + sinh(2 length) direction.t
    return Modes(length, jnp.stack([z, x]) / norm, jnp.sum(g) - sector.own * jnp.sum(K))


def _insert(sector: Momenta, modes: Modes, bonds: jax.Array, fields: jax.Array) -> Modes:
    """The root of R Q^2 R with Q the operator and R = exp(bonds/2 sum sz sz + fields/2 sum sx), to second order in the two numbers."""
    z, x = fields - bonds * sector.cos, bonds * sector.sin  # R = 1 + v.t + v^2/2
    dot = modes.direction[0] * z + modes.direction[1] * x
    # R (cosh + sinh n.t) R = ... + [sinh n + 2 cosh v + 2 sinh v (n.v)] . t + O(v^3), divided by sinh
    coth = 1 / jnp.tanh(2 * modes.length)
    factor = 2 * (coth + dot)
    new_z, new_x = modes.direction[0] + factor * z, modes.direction[1] + factor * x
    norm = _norm(new_z, new_x)
    length = _asinh_exp(_log_sinh(2 * modes.length) + jnp.log(norm)) / 2
    return Modes(length, jnp.stack([new_z, new_x]) / norm, modes.own + (fields - bonds * sector.own) / 2)


def _log_trace(sector: Momenta, modes: Modes) -> jax.Array:
    """ln Z_p."""
    log_products = 2 * jnp.sum(_log_2cosh(modes.length)) + jnp.sum(_log_2cosh(2 * modes.own))
    return log_products + _log_bracket(sector.parity, 2 * jnp.sum(_log_tanh(modes.length)), 2 * modes.own) - jnp.log(2)


def _log_overlap(sector: Momenta, a: Modes, b: Modes) -> jax.Array:
    """ln of Tr(Q_a Q_b)/(Tr Q_a^2 Tr Q_b^2)^(1/2) in a sector.

    With d half the difference of the lengths and phi the angle between the directions, the factors of a pair in the product of cosh (sinh)
    are 1 - sinh^2 d/(cosh cosh) - tanh tanh sin^2(phi/2) and 1 + sinh^2 d/(sinh sinh) - sin^2(phi/2).
    """
    apart = jnp.sinh((a.length - b.length) / 2) ** 2
    turn = jnp.sum((a.direction - b.direction) ** 2, 0) / 4  # sin^2(phi/2)
    log_cosh, log_sinh = _log_2cosh(a.length) + _log_2cosh(b.length), _log_sinh(a.length) + _log_sinh(b.length)
    tanh_a, tanh_b = _log_tanh(a.length), _log_tanh(b.length)
    kept = jnp.log1p(-4 * apart * jnp.exp(-log_cosh) - turn * jnp.exp(tanh_a + tanh_b))
    odd = jnp.log(jnp.maximum(1 + apart * jnp.exp(-log_sinh) - turn, 1e-300))
    own = jnp.log1p(-(jnp.sinh(a.own - b.own) ** 2) * jnp.exp(jnp.log(4) - _log_2cosh(2 * a.own) - _log_2cosh(2 * b.own))) / 2
    mixed = _log_bracket(sector.parity, jnp.sum(tanh_a + tanh_b + odd - kept), a.own + b.own)
    brackets = [_log_bracket(sector.parity, 2 * jnp.sum(tanh), 2 * m.own) for tanh, m in ((tanh_a, a), (tanh_b, b))]
    return jnp.sum(kept) + jnp.sum(own) + mixed - (brackets[0] + brackets[1]) / 2


def _log_bracket(parity: int, log_pairs: jax.Array, own: jax.Array) -> jax.Array:
    """ln(1 + p exp(log_pairs) prod tanh own); where it nearly vanishes, from the logarithm of the product."""
    direct = parity * jnp.exp(log_pairs)
    for tanh in jnp.tanh(own):
        direct = direct * tanh
    cancels = direct < -0.5
    size = jnp.where(cancels, jnp.abs(own), 1.0)
    log_product = jnp.where(cancels, log_pairs + jnp.sum(_log_tanh(size)), -1.0)
    vanishing = jnp.log(jnp.maximum(-jnp.expm1(log_product), 1e-300))
    return jnp.where(cancels, vanishing, jnp.log1p(jnp.where(cancels, 0.0, direct)))


def _correlations(n: int, sector: Momenta, modes: Modes, sign: int, log_z: float) -> np.ndarray:
    """(product) x <sz_0 sz_r> / Z for r = 1 .. n/2 in the product of cosh (sign = 1) or of sinh (-1)."""
    r = np.arange(-(n // 2) + 2, n // 2 + 1)[:, None]
    angle = np.arctan2(sector.sin, sector.cos)
    tanh = np.tanh(modes.length) ** sign
    pairs = 2 / n * (np.sin(r * angle) * modes.direction[1] - np.cos(r * angle) * modes.direction[0]) @ tanh
    own = [-np.where(r[:, 0] % 2, cos, 1.0) / n for cos in sector.own]  # cos(k r), k = 0 or pi
    log_weight = np.sum(2 * np.asarray(_log_2cosh(modes.length)) + (1 - sign) * np.asarray(_log_tanh(modes.length))) - np.log(2) - log_z
    total = np.zeros(n // 2)
    cosh, sinh = np.cosh(2 * modes.own) * 2, np.sinh(2 * modes.own) * 2
    even, odd = (cosh, sinh) if sign > 0 else (sinh, cosh)
    # prod (even + odd * [mode joined]) is linear in each mode: sum over which of them are joined, by inclusion and exclusion
    for joined in np.ndindex(*(2,) * len(own)):
        row = pairs + sum((w for w, j in zip(own, joined, strict=True) if j), np.zeros(len(pairs)))
        weight = np.prod([odd[i] if j else even[i] - odd[i] for i, j in enumerate(joined)])
        total += weight * np.exp(log_weight) * _determinants(row, n // 2)
    return total


def _determinants(row: np.ndarray, n: int) -> np.ndarray:
    """det C(i - j + 1) of every size up to n, C(r) standing at row[r + n - 2]."""
    at_zero = n - 2
    full = toeplitz(row[at_zero + 1 :], row[at_zero + 1 :: -1][:n])
    return np.array([np.linalg.det(full[:size, :size]) for size in range(1, n + 1)])


def _log_2cosh(x: jax.Array) -> jax.Array:
    return jnp.logaddexp(x, -x)


def _log_tanh(x: jax.Array) -> jax.Array:
    """ln tanh x for x > 0, accurate at both ends."""
    small = x < 0.3
    return jnp.where(small, jnp.log(jnp.tanh(jnp.where(small, x, 0.3))), jnp.log1p(-2 / (jnp.exp(2 * jnp.where(small, 0.3, x)) + 1)))


def _log_sinh(x: jax.Array) -> jax.Array:
    return _log_tanh(x) + _log_2cosh(x) - jnp.log(2)


def _asinh_exp(y: jax.Array) -> jax.Array:
    """asinh(exp y)."""
    large = y > 0
    beyond, below = jnp.where(large, y, 0.0), jnp.where(large, 0.0, y)
    return jnp.where(large, beyond + jnp.log1p(jnp.sqrt(1 + jnp.exp(-2 * beyond))), jnp.arcsinh(jnp.exp(below)))
