"""The report of benchmarks/peers.py: its rules on a small record, and the record that is kept."""

import json
import math
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def report(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS / "peer_programs"))
    import report

    yield report
    sys.modules.pop("report")


def found(e, error, cpu, setup=0.0, n_sites=8, **settings):
    return {"values": {"energy": [e, error]}, "cpu": cpu, "setup": setup, "n_sites": n_sites, "settings": settings}


def test_figures_of_merit(report):
    exact = {"energy": [-1.0, 0.0]}
    sampled, split, whole = found(-1.01, 2e-3, 29.0, 4.0, samples=100), found(-1.01, 2e-3, 29.0, 4.0), found(-1.0, 0.0, 29.0, 4.0)
    assert report.merit(sampled, "energy", exact) == pytest.approx(2e-3 * 5)  # chance is no deviation
    assert report.merit(split, "energy", exact) == pytest.approx(1e-2 * 5)
    assert report.merit(whole, "energy", exact) == 0 and report.merit(whole, "specific_heat", exact) is None
    assert report.seconds_to_target(sampled, exact) == pytest.approx(4 + 25 * 4)
    assert report.seconds_to_target(split, exact) == math.inf and report.seconds_to_target(whole, exact) == 29.0


def test_sizes_follow_their_law(report):
    small = found(-1, 1e-3, 2.0, n_sites=16, samples=1)
    power = {"law": "power", "least": 0.5, "found": [small, found(-1, 1e-3, 8.0, n_sites=32, samples=1)]}
    assert report.largest(power) == (pytest.approx(32 * math.sqrt(600 / 8)), True)
    doubling = {"law": "exponential", "least": 1.1, "found": [found(-1, 0.0, 2.0, n_sites=12), found(-1, 0.0, 8.0, n_sites=14)]}
    assert report.largest(doubling)[0] == pytest.approx(14 + math.log2(600 / 8))
    slow = {**power, "found": [small, found(-1, 1e-3, 2.1, n_sites=32, samples=1)], "least": 1.0}
    assert report.largest(slow)[0] == pytest.approx(32 * 600 / 2.1)  # set-up alone grows slowly, and tells nothing of large magnets
    assert report.largest({"law": "power", "least": 0.5, "found": [{"failed": "no memory"}]}) == (0.0, False)


def test_the_record_has_every_row_and_all_its_programs(report, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import peers

    record = json.loads((BENCHMARKS / "peers.json").read_text())
    assert set(record["rows"]) <= {*peers.ROWS, *peers.STEPS, *peers.SIZES} and set(peers.ROWS) <= set(record["rows"])
    table = report.tables(record)
    for name, row in peers.ROWS.items():
        assert f"**{name}**" in table
        assert [program[0] for program in row["programs"]] == list(record["rows"][name]["programs"])
        assert {name.split()[0] for name in (*record["rows"][name]["programs"], *row["not run"])} == {
            "thermodbm",
            "ALPS",
            "QuSpin",
            "TeNPy",
            "NetKet",
        }
    report.figure(record, tmp_path / "peers.png")
    assert (tmp_path / "peers.png").exists()
    sys.modules.pop("peers")
