"""Rings of vanishing Trotter step: which strings a magnet has."""

import numpy as np

from thermodbm.errors import InputError
from thermodbm.estimate.cuts import cut_ensemble
from thermodbm.estimate.ensemble import Ensemble
from thermodbm.estimate.expansion import string_ensemble
from thermodbm.estimate.response import WORLDLINES
from thermodbm.estimate.series_response import string_response, vertex_response
from thermodbm.estimate.user import Functions
from thermodbm.estimate.vertices import vertex_ensemble
from thermodbm.models import SpinHamiltonian
from thermodbm.sampling.cuts import CutFacts, cut_facts, cut_slices
from thermodbm.sampling.strings import StringFacts, string_facts, string_slices, turns_freely
from thermodbm.sampling.vertices import VertexFacts, vertex_facts, vertex_slices

SeriesFacts = StringFacts | VertexFacts | CutFacts


def series_facts(hamiltonian: SpinHamiltonian, derivatives: str | None = None) -> SeriesFacts:
    """Of joins and cuts for Ising magnets; of graphs where loops of exchange magnets turn over freely, else of vertices, as for derivatives
    of worldlines.

    Raises:
        InputError: for magnets of which there are no strings.
    """
    if not hamiltonian.conserves_sz:
        return cut_facts(hamiltonian)
    if not np.any(np.asarray(hamiltonian.xy)):
        raise InputError("model", expected="exchange that is not zero with sampler = series", found="none")
    by_graphs = turns_freely(hamiltonian) and derivatives != WORLDLINES
    return string_facts(hamiltonian) if by_graphs else vertex_facts(hamiltonian)


def series_slices(facts: SeriesFacts, hamiltonian: SpinHamiltonian, beta: float) -> int:
    """Room for these strings, in units of two slots for each site."""
    of = {CutFacts: cut_slices, StringFacts: string_slices, VertexFacts: vertex_slices}
    return of[type(facts)](hamiltonian, beta)


def series_ensemble(facts: SeriesFacts, n_slices: int, functions: Functions = (), derivatives: str | None = None) -> Ensemble:
    """Strings with room for what they are made of in 2 n_slices n_sites slots, with observables of a user or the kind of derivatives."""
    if isinstance(facts, CutFacts):
        return cut_ensemble(facts, n_slices, functions)
    if derivatives is not None:
        return (string_response if isinstance(facts, StringFacts) else vertex_response)(facts, n_slices)
    return (string_ensemble if isinstance(facts, StringFacts) else vertex_ensemble)(facts, n_slices, functions)
