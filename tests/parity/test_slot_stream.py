# SPDX-License-Identifier: GPL-3.0-or-later
"""The slot stream in C++ against its readable version in numpy, over gaps, lost sync, bad samples and offsets."""

from __future__ import annotations

import numpy as np
import pytest
from support.slot_oracle import SlotStream as Oracle
from support.tiny_grids import gaussian, numerology, paths
from wavesfm_core.channel.slots import SlotStream
from wavesfm_core.channel.uplink import UplinkSource
from wavesfm_core.types import StreamTime

TOLERANCE = 2e-5  # of the grids' elements: the rotation by the offset is computed in another order
SPEC = numerology(4, 6, 36, 48, 5, (1, 4), step=2, offset=1, dc_null=True)


def stream_of_samples(seed: int, cfo: float) -> np.ndarray:
    """Noise, slots, a break, slots that start elsewhere, a silent antenna and samples that are no numbers."""
    rng = np.random.default_rng(seed)
    n = SPEC.slot_samples
    source = UplinkSource(SPEC, paths(SPEC, 12, seed), 12.0, seed)

    def uplink(count: int) -> np.ndarray:
        return np.concatenate([source.slot().samples for _ in range(count)], axis=1)

    def noise(count: int) -> np.ndarray:
        return 0.2 * gaussian(rng, (SPEC.antennas, count))

    x = np.concatenate([noise(77), uplink(20), noise(10 * n + 31), uplink(20)], axis=1)
    x = x * np.exp(2j * np.pi * cfo * np.arange(x.shape[1]))
    x[2, 5 * n : 6 * n] = 0
    x[:, 8 * n : 9 * n] = 0
    x[0, 3 * n], x[1, 3 * n + 7] = np.nan, 2e15
    return x.astype(np.complex64)


@pytest.mark.parametrize("sync", ["tag", "pilots"])
@pytest.mark.parametrize(("seed", "cfo", "correct_cfo"), [(0, 0.0, False), (1, 2e-3, True), (2, 8e-4, False)])
def test_slots_and_accounts_are_those_of_the_oracle(sync: str, seed: int, cfo: float, correct_cfo: bool) -> None:
    x, n = stream_of_samples(seed, cfo), SPEC.slot_samples
    streams = [made(SPEC, sync, 0.0, StreamTime(3, 0.25), 1000, correct_cfo) for made in (SlotStream, Oracle)]
    found = []
    for stream in streams:
        slots = []
        if sync == "tag":
            for k in range(48):
                stream.mark(1077 + k * n - (40 if k % 7 == 3 else 0))
        for part in np.array_split(x, 9, axis=1):
            slots += stream.push(part, 1.5)
            if stream.status()["samples_in"] == x.shape[1] // 9 * 4:
                slots += stream.retune(time=StreamTime(9, 0.5))
        found.append(slots + stream.finish())
    ours, oracle = streams[0].status(), streams[1].status()
    assert ours.keys() == oracle.keys()
    for key, value in oracle.items():
        if isinstance(value, float):
            assert ours[key] == pytest.approx(value, rel=1e-4, abs=1e-6), key
        else:
            assert ours[key] == value, key
    assert len(found[0]) == len(found[1]) > 20
    for one, other in zip(*found):
        assert (one.start_sample, one.n_samples, one.n_nonfinite, one.time, one.arrived_s) == (
            other.start_sample, other.n_samples, other.n_nonfinite, other.time, other.arrived_s
        )  # fmt: skip
        assert one.sync_metric == (None if other.sync_metric is None else pytest.approx(other.sync_metric, rel=1e-4))
        np.testing.assert_allclose(one.grid, other.grid, atol=TOLERANCE * np.abs(other.grid).max())
