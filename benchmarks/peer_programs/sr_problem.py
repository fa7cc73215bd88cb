"""The step of stochastic reconfiguration that both programs make: a ring of 16 spins with 16 ancillas, H = transverse-field Ising.

RBM with complex Gaussian weights of width 0.1, 1024 samples of 16 chains, one sweep of 32 moves between samples.
"""

import time
from collections.abc import Callable

ALPHA, N, CHAINS, SAMPLES, STEPS, WIDTH = 4, 16, 16, 1024, 3, 0.1


def seconds_per_step(step: Callable[[int], None]) -> float:
    """CPU seconds of a step, the least of `STEPS`; the first, which compiles, left out."""
    step(0)
    times = []
    for k in range(1, STEPS + 1):
        began = time.process_time()
        step(k)
        times.append(time.process_time() - began)
    return min(times)
