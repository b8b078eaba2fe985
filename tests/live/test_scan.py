# SPDX-License-Identifier: GPL-3.0-or-later
"""Scans: plans, order of the visits, memory, occupancy, and a gigahertz of a simulated radio."""

from __future__ import annotations

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from support.live_parts import FakePipeline, ListSource, blocks_of, noise
from wavesfm_core.band.options import BandOptions
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.live.scan.occupancy import Occupancy
from wavesfm_core.live.scan.plan import ScanPlan, Tuning, load_plan, plan_faults
from wavesfm_core.live.scan.scanner import Scanner
from wavesfm_core.live.scan.schedule import Schedule
from wavesfm_core.live.session import LiveSession
from wavesfm_core.live.sources.simulated import SimulatedRadio
from wavesfm_core.live.sources.waveforms import plant
from wavesfm_core.types import StreamTime

LOW_HZ, HIGH_HZ, RATE_HZ, DWELL_S = 1e9, 2e9, 20e6, 0.02


def test_ranges_are_covered_without_holes(tmp_path: Path) -> None:
    path = tmp_path / "plan.yml"
    path.write_text(
        "ranges:\n  - {low_hz: 1e9, high_hz: 2e9, rate_hz: 20e6, dwell_s: 0.1}\n"
        "tunings:\n  - {centre_hz: 433.92e6, rate_hz: 2.4e6, priority: 5}\nbin_hz: 50e3\n"
    )
    plan = load_plan(path)
    assert plan.tunings[0] == Tuning(433.92e6, 2.4e6, priority=5)
    steps = plan.tunings[1:]
    assert len(steps) == 63 and plan.bin_hz == 50e3
    assert steps[0].low_hz <= 1e9 and steps[-1].high_hz >= 2e9
    assert all(one.high_hz == pytest.approx(other.low_hz) for one, other in itertools.pairwise(steps))


def test_every_fault_of_a_plan_is_named(tmp_path: Path) -> None:
    values = {"ranges": [{"low_hz": "x", "high_hz": 5, "rate": 1}], "tunings": [{"centre_hz": 1e6, "rate_hz": 1}]}
    faults = [str(fault) for fault in plan_faults(values, "plan.yml")]
    assert faults == [
        "plan.yml: ranges.0.rate_hz: found nothing, expected a sample rate of 1000 to 1e9 Hz",
        "plan.yml: ranges.0.rate: found an unknown field, expected rate_hz",
        "plan.yml: ranges.0.low_hz: found 'x', expected a frequency from 0 to 1e12 Hz",
        "plan.yml: tunings.0.rate_hz: found 1, expected a sample rate of 1000 to 1e9 Hz",
    ]
    backwards = {"ranges": [{"low_hz": 2e9, "high_hz": 1e9, "rate_hz": 1e6}]}
    assert "more than low_hz" in str(plan_faults(backwards, "plan.yml")[0])
    many = {"ranges": [{"low_hz": 1e9, "high_hz": 2e9, "rate_hz": 1e3}]}
    assert "10000 tunings" in str(plan_faults(many, "plan.yml")[0])
    with pytest.raises(ConfigurationError, match="YAML"):
        load_plan(tmp_path / "none.yml")


def test_visits_follow_priority_activity_and_time() -> None:
    tunings = [Tuning(1e8 * i, 1e6, priority=4 if i == 1 else 1) for i in range(10)]
    schedule = Schedule(tunings, lambda index: index == 2)
    order = [schedule.next(float(now)) for now in range(200)]
    assert order[:10] == list(range(10))
    assert schedule.visits[1] > 1.5 * schedule.visits[2] > 2 * schedule.visits[0] > 10


def test_occupancy_is_a_share_of_what_was_observed(tmp_path: Path) -> None:
    occupancy = Occupancy(100e6, 101e6, 100e3, 60.0)
    start_s = 1_699_999_980.0
    occupancy.observe(start_s, 100e6, 100.8e6, 2.0)
    occupancy.occupy(start_s, 100.15e6, 100.25e6, 0.5)
    occupancy.observe(start_s + 60, 100e6, 101e6, 2.0)
    occupancy.occupy(start_s + 60, 100e6, 101e6, 9.0)
    starts, shares = occupancy.share()
    assert list(starts) == [start_s, start_s + 60]
    assert shares[0, :4].tolist() == [0.0, 0.25, 0.25, 0.0]
    assert np.isnan(shares[0, 8:]).all() and (shares[1] == 1.0).all()
    occupancy.write_csv(tmp_path / "o.csv")
    rows = list(csv.DictReader((tmp_path / "o.csv").open()))
    assert len(rows) == 18
    assert rows[1] == {
        "utc": "2023-11-14T22:13:00Z",
        "low_hz": "100100000",
        "high_hz": "100200000",
        "occupancy": "0.2500",
    }
    occupancy.write_png(tmp_path / "o.png")
    assert (tmp_path / "o.png").read_bytes()[:4] == b"\x89PNG"


def test_nine_of_ten_emitters_of_a_gigahertz_are_found_in_two_minutes() -> None:
    """Two minutes of the simulated clock are ninety rounds of these dwells; this takes the first one."""
    count = int((HIGH_HZ - LOW_HZ) / (0.8 * RATE_HZ)) + 1
    centres = LOW_HZ + (np.arange(count) + 0.5) * 0.8 * RATE_HZ
    planted = plant(5, LOW_HZ, HIGH_HZ)
    radio = SimulatedRadio(planted, 1e9, RATE_HZ, seed=5, start=StreamTime(1_700_000_000, 0.0))
    scanner = Scanner(radio, ScanPlan(tuple(Tuning(float(hz), RATE_HZ, dwell_s=DWELL_S) for hz in centres)))
    session = LiveSession(scanner, FakePipeline, BandOptions(fft_size=2048, block_rows=64, ring_bytes=1 << 24))
    scanner.follow(session)
    visits: list[dict] = []
    session.bus.add(lambda record: visits.append(dict(record.values)) if record.kind == "visit" else None)
    session.on_rows.append(lambda row: session.stop() if scanner.visits >= count else None)
    session.run()
    scanner.finish()
    assert radio.elapsed_s < 120
    found = [any(place.low_hz < each.centre_hz < place.high_hz for place in scanner.memory.places) for each in planted]
    assert sum(found) >= 9
    assert len(scanner.memory.places) <= 15
    assert scanner.visits == len(visits) >= count
    floors = [state.floor_db for state in scanner.memory.states if state.floor_db is not None]
    assert len(floors) >= count - 1 and np.ptp(floors) < 1.0
    _, shares = scanner.occupancy.share()
    assert 10 <= np.nansum(np.nanmax(shares, axis=0) > 0.3) <= 150


def test_a_source_that_is_not_searched_yet_keeps_its_visits() -> None:
    class Tunable(ListSource):
        def tune(self, centre_hz: float, rate_hz: float | None = None) -> None:
            self.tuned = centre_hz

    blocks = blocks_of(noise(60_000), centre_hz=1e8) + blocks_of(noise(60_000), centre_hz=2e8)
    scanner = Scanner(Tunable(blocks), ScanPlan((Tuning(1e8, 1e6, dwell_s=0.04), Tuning(2e8, 1e6, dwell_s=0.04))))
    session = LiveSession(scanner, FakePipeline)
    scanner.follow(session)
    session.run()
    scanner.finish()
    assert session.accounts.samples_searched == 80_000  # a block of each tuning came after the next retune
    assert scanner.visits >= 2
