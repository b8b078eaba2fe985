# SPDX-License-Identifier: GPL-3.0-or-later
"""SlotStream: slots found by tags and by pilots, at any chunking; what is lost is counted and named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wavesfm_core.bench import demodulation_rate, slot_rate
from wavesfm_core.bundle.ofdm_spec import OFDMSpec
from wavesfm_core.channel.slots import SlotStream, make_demodulator
from wavesfm_core.channel.synchronisation import PilotSearch, reach_samples, threshold_over_mean
from wavesfm_core.channel.uplink import UplinkSource
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.types import Slot, StreamTime

DIGITS = "".join(map(str, np.random.default_rng(7).integers(4, size=1272).tolist()))
PAPER = OFDMSpec(16, 14, 48, 48, (6,) * 14, 30e3, (2, 11), DIGITS[:96])
ALONE = dataclasses.replace(PAPER, antennas=1)
PAIR = OFDMSpec(2, 4, 24, 32, (5, 3, 3, 3), 30e3, (0, 2), DIGITS[:48])  # a slot of 142 samples
NR = OFDMSpec(2, 14, 1272, 2048, (176,) + (144,) * 13, 30e3, (2, 11), DIGITS, pilot_step=2)
MISSES_ALLOWED = 8  # successive slots without pilots
PATHS = ((0.0, 0.6), (1.3, 0.25), (3.6, 0.15))  # delay in samples, power


def channel(spec: OFDMSpec, paths: tuple[tuple[float, float], ...] = PATHS, seed: int = 0) -> np.ndarray:
    """One slot, complex64 [1, A, S, F]: paths with phases of their own on each antenna."""
    rng = np.random.default_rng(seed)
    h = np.zeros(spec.grid_shape, np.complex128)
    for delay, power in paths:
        phases = np.exp(2j * np.pi * rng.random((spec.antennas, 1, 1)))
        h += np.sqrt(power) * phases * np.exp(-2j * np.pi * spec.frequencies * delay / spec.fft_size)
    return h.astype(np.complex64)[None]


def noise(spec: OFDMSpec, n: int, snr_db: float = 20.0, seed: int = 5) -> np.ndarray:
    parts = np.random.default_rng(seed).standard_normal((spec.antennas, n, 2)).astype(np.float32)
    return (parts * np.float32(10 ** (-snr_db / 20) / 2**0.5)).view(np.complex64)[..., 0]


def uplink(spec: OFDMSpec, slots: int, snr_db: float = 20.0, seed: int = 0) -> np.ndarray:
    source = UplinkSource(spec, channel(spec, seed=seed), snr_db, seed)
    return np.concatenate([source.slot().samples for _ in range(slots)], axis=1)


def tagged(spec: OFDMSpec, starts: list[int], x: np.ndarray, **options: object) -> tuple[SlotStream, list[Slot]]:
    stream = SlotStream(spec, **options)
    for start in starts:
        stream.mark(start)
    return stream, stream.push(x)


def closes(stream: SlotStream, slots: list[Slot]) -> bool:
    covered = len({i for slot in slots for i in range(slot.start_sample, slot.start_sample + slot.n_samples)})
    status = stream.status()
    return status["samples_in"] == covered + status["samples_skipped"] + status["samples_pending"]


# ---- tags


def test_a_slot_starts_where_a_tag_says() -> None:
    x = noise(PAIR, 600)
    stream = SlotStream(PAIR, "tag", PAIR.rate_hz, StreamTime(100, 0.5), start_sample=5000)
    stream.mark(5010)
    stream.mark(5300)
    slots = stream.push(x, arrived_s=7.5)
    assert [(s.start_sample, s.n_samples, s.rate_hz, s.arrived_s) for s in slots] == [
        (5010, 142, 960e3, 7.5),
        (5300, 142, 960e3, 7.5),
    ]
    assert [float(s.time) for s in slots] == pytest.approx([100.5 + 10 / 960e3, 100.5 + 300 / 960e3])
    assert slots[0].sync_metric is None
    for slot in slots:
        at = slot.start_sample - 5000
        np.testing.assert_array_equal(slot.grid, make_demodulator(PAIR).demodulate(x[:, at : at + 142].copy()))
    status = stream.status()
    assert (status["slots"], status["samples_skipped"], status["samples_pending"]) == (2, 600 - 284, 0)
    assert status["sync"] == "tag" and not status["searching"] and status["fault"] == ""


def test_a_cut_slot_a_late_tag_and_a_doubled_one_are_counted() -> None:
    stream, slots = tagged(PAIR, [0, 100, 100, 300], noise(PAIR, 400))
    assert [s.start_sample for s in slots] == [100]
    stream.mark(350)
    status = stream.status()
    assert (status["slots_cut"], status["marks_late"], status["samples_pending"]) == (1, 1, 100)
    assert stream.finish() == [] and stream.status()["slots_cut"] == 2
    assert closes(stream, slots)


def test_a_gap_cuts_the_open_slot_and_later_tags_stay() -> None:
    stream = SlotStream(PAIR, "tag", time=StreamTime(10, 0.0))
    for start in (0, 142, 400):
        stream.mark(start)
    slots = stream.push(noise(PAIR, 200))
    assert stream.retune(time=StreamTime(20, 0.0)) == []
    slots += stream.push(noise(PAIR, 400))
    assert [s.start_sample for s in slots] == [0, 400]
    assert float(slots[1].time) == pytest.approx(20 + 200 / 960e3)
    assert stream.status()["slots_cut"] == 1 and closes(stream, slots)


def test_marks_are_for_sync_by_tags() -> None:
    with pytest.raises(ConfigurationError, match="found sync by pilots, expected sync by tag"):
        SlotStream(PAIR, "pilots").mark(0)


# ---- bad input


def test_samples_that_are_no_numbers_are_zero_and_counted_in_their_slot() -> None:
    x = noise(PAIR, 284)
    bad = x.copy()
    bad[0, 20], bad[1, 20], bad[1, 30] = np.nan, complex(0, np.inf), 2e15
    x[0, 20] = x[1, 20] = x[1, 30] = 0
    stream, slots = tagged(PAIR, [0, 142], bad)
    assert [s.n_nonfinite for s in slots] == [3, 0] and stream.status()["n_nonfinite"] == 3
    for slot, expected in zip(slots, tagged(PAIR, [0, 142], x)[1]):
        np.testing.assert_array_equal(slot.grid, expected.grid)


@pytest.mark.parametrize("sync", ["tag", "pilots"])
def test_a_slot_whose_pilots_are_all_zero_is_no_slot(sync: str) -> None:
    x, n = uplink(PAPER, 6), PAPER.slot_samples
    x[:, 2 * n : 3 * n] = 0
    stream = SlotStream(PAPER, sync)
    if sync == "tag":
        for k in range(6):
            stream.mark(k * n)
    slots = stream.push(x[:, : 3 * n])
    status = stream.status()
    assert status["slots_zero_pilots"] == 1 and status["fault"].startswith("slots: pilots: found all zero")
    slots += stream.push(x[:, 3 * n :])
    assert [s.start_sample / n for s in slots] == [0, 1, 3, 4, 5]
    assert stream.status()["fault"] == "" and closes(stream, slots)


@pytest.mark.parametrize("sync", ["tag", "pilots"])
def test_a_slot_without_one_pilot_symbol_is_none_and_one_without_an_antenna_is_said(sync: str) -> None:
    x, n = uplink(PAPER, 6), PAPER.slot_samples
    second = int(PAPER.symbol_starts[11])
    x[:, n + second : n + second + 48] = 0
    x[3, 2 * n : 3 * n] = np.nan
    x[[4, 7], 4 * n + second : 4 * n + second + 48] = 0
    stream = SlotStream(PAPER, sync)
    if sync == "tag":
        for k in range(6):
            stream.mark(k * n)
    slots, faults = [], []
    for k in range(6):
        slots += stream.push(x[:, k * n : (k + 1) * n])
        faults.append(stream.status()["fault"])
    text = "slots: pilots: found all zero in {}, expected a signal"
    expected = ["", text.format("symbol 11"), text.format("antenna 3"), "", text.format("antenna 4, 7"), ""]
    assert faults == expected
    assert [s.start_sample / n for s in slots] == [0, 2, 3, 4, 5] and closes(stream, slots)
    status = stream.status()
    assert (status["slots_zero_pilots"], status["slots_silent_antenna"]) == (1, 2)


def test_a_stream_without_marks_is_said() -> None:
    stream, n = SlotStream(PAIR), PAIR.slot_samples
    stream.push(noise(PAIR, 20 * n - 1))
    assert stream.status()["fault"] == ""
    stream.push(noise(PAIR, 11 * n + 1))
    assert stream.status()["fault"] == (
        "slots: sync: found no mark of a slot's start in 31 slots of samples, expected some"
    )
    stream.mark(31 * n)
    assert stream.status()["fault"] == ""
    assert len(stream.push(noise(PAIR, 30 * n))) == 1
    assert stream.status()["fault"] == ""


def test_streams_of_unequal_length_are_refused_and_counted() -> None:
    stream = SlotStream(PAIR)
    x = noise(PAIR, 142)
    with pytest.raises(InputError, match=r"length of samples\[1\]: found 141, expected 142"):
        stream.push([x[0], x[1, :141]])
    for wrong, message in (
        (x[:1], "antennas: found 1, expected 2"),
        (x[0], "antennas: found 142, expected 2"),
        (x.real, r"samples\[0\]: found float32"),
        ([x[0], 3], r"samples\[1\]: found int"),
        (np.zeros((2, 3, 4), np.complex64), r"samples\[0\]: found complex64 \(3, 4\)"),
    ):
        with pytest.raises(InputError, match=message):
            stream.push(wrong)
    assert stream.status()["inputs_refused"] == 6 and stream.status()["samples_in"] == 0
    stream.mark(0)
    (slot,) = stream.push([x[0], x[1].astype(np.complex128)])
    np.testing.assert_array_equal(slot.grid, tagged(PAIR, [0], x)[1][0].grid)


def test_a_rate_that_is_not_the_numerologys_is_refused() -> None:
    with pytest.raises(InputError, match=r"rate_hz: found 1e\+06, expected 960000"):
        SlotStream(PAIR, rate_hz=1e6)
    stream = SlotStream(PAIR, rate_hz=960.1e3)
    stream.push(noise(PAIR, 100))
    for rate in (float("nan"), -960e3, 2e6):
        with pytest.raises(InputError, match="rate_hz"):
            stream.retune(rate_hz=rate)
    assert stream.status()["samples_pending"] == stream.status()["samples_in"] - 100 == 0
    with pytest.raises(ConfigurationError, match="sync: found 'luck', expected tag or pilots"):
        SlotStream(PAIR, "luck")


def test_pilots_too_few_to_be_found_are_refused() -> None:
    few = OFDMSpec(1, 2, 4, 8, (2, 2), 15e3, (0,), "0123")
    with pytest.raises(ConfigurationError, match=r"slots: sync: found .* expected more antennas"):
        SlotStream(few, "pilots")
    assert tagged(few, [0], noise(few, 20))[0].status()["slots"] == 1


# ---- pilots


@pytest.mark.parametrize(("snr_db", "spec"), [(-5.0, PAPER), (20.0, PAPER), (0.0, ALONE), (10.0, ALONE)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_slots_are_found_and_followed_by_their_pilots(snr_db: float, spec: OFDMSpec, seed: int) -> None:
    lead = 100 + 331 * seed
    x = np.concatenate([noise(spec, lead, snr_db), uplink(spec, 24, snr_db, seed)], axis=1)
    stream = SlotStream(spec, "pilots")
    slots = stream.push(x)
    n = spec.slot_samples
    assert len(slots) >= (22 if spec is PAPER else 12)  # one antenna at 0 dB takes a few slots to find
    errors = [(s.start_sample - lead + n // 2) % n - n // 2 for s in slots]
    assert min(errors) >= -2 and max(errors) <= 0  # early within the prefix of 6 less the echoes at 3.6, never late
    status = stream.status()
    assert status["syncs"] == 1 and status["lost_sync"] == 0 and status["resyncs"] == 0 and not status["searching"]
    assert status["sync_metric"] == slots[-1].sync_metric and 0 < slots[-1].sync_metric <= 1
    assert closes(stream, slots)


def test_a_clean_slot_has_a_metric_of_one() -> None:
    source = UplinkSource(PAPER, channel(PAPER, ((0.0, 1.0),)), float("inf"))
    slots = SlotStream(PAPER, "pilots").push(np.concatenate([source.slot().samples for _ in range(3)], axis=1))
    assert [s.start_sample for s in slots] == [0, 756, 1512]
    assert [s.sync_metric for s in slots] == pytest.approx([1, 1, 1], abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("spec", [PAPER, ALONE, PAIR])
def test_noise_is_no_slot(spec: OFDMSpec, seed: int) -> None:
    stream = SlotStream(spec, "pilots")
    assert stream.push(noise(spec, 60 * spec.slot_samples, seed=seed)) == []
    status = stream.status()
    assert status["searching"] and status["syncs"] == 0 and status["searches_failed"] == 59
    assert status["fault"].startswith("slots: sync: found no start in 59 slots of samples (metric 0.")


def test_other_pilots_a_carrier_and_silence_are_no_slot() -> None:
    other = dataclasses.replace(PAPER, pilot_quadrants=DIGITS[200:296])
    carrier = np.broadcast_to(np.exp(0.3j * np.arange(20 * 756)), (16, 20 * 756)).astype(np.complex64)
    for x in (uplink(other, 20), carrier, np.zeros_like(carrier)):
        stream = SlotStream(PAPER, "pilots")
        assert stream.push(x) == [] and stream.status()["searches_failed"] == 19


def test_the_threshold_holds_against_noise() -> None:
    """The share of windows of noise above it is no more than was asked for, and not far from it."""
    rng = np.random.default_rng(0)
    for terms, freedom, false_alarm in ((2, 48, 1e-2), (32, 48, 1e-2), (1, 8, 1e-1)):
        power = rng.exponential(size=(2000, terms, freedom))
        metric = (power[:, :, 0] / power.sum(axis=-1)).mean(axis=1)
        share = np.mean(metric > threshold_over_mean(terms, false_alarm) / (freedom - 1))
        assert false_alarm / 10 < share <= 1.5 * false_alarm


def test_sync_is_lost_named_and_found_again() -> None:
    x, n = uplink(PAPER, 40), PAPER.slot_samples
    x[:, 10 * n : 25 * n + 77] = noise(PAPER, 15 * n + 77)
    late = uplink(PAPER, 20, seed=0)
    x = np.concatenate([x[:, : 25 * n + 77], late], axis=1)  # comes back 77 samples later
    stream = SlotStream(PAPER, "pilots")
    slots = stream.push(x[:, : 14 * n])
    assert stream.status()["fault"] == "slots: pilots: found 4 slots in a row without, expected them in each"
    slots += stream.push(x[:, 14 * n : 24 * n])
    status = stream.status()
    assert status["lost_sync"] == 1 and status["searching"] and status["slots_missed"] == MISSES_ALLOWED
    slots += stream.push(x[:, 24 * n :])
    status = stream.status()
    assert (status["syncs"], status["resyncs"], status["searching"], status["fault"]) == (2, 1, False, "")
    found = [s for s in slots if s.start_sample >= 25 * n]
    assert [s.start_sample for s in found] == [25 * n + 77 + k * n for k in range(20)]
    missed = [s for s in slots if 10 * n <= s.start_sample < 25 * n]
    threshold = stream.status()["sync_threshold"]
    assert len(missed) == MISSES_ALLOWED and max(s.sync_metric for s in missed) < threshold
    assert closes(stream, slots)


def test_lost_samples_are_told_by_retune_and_sync_is_found_anew() -> None:
    x, n = uplink(PAPER, 20), PAPER.slot_samples
    stream = SlotStream(PAPER, "pilots", time=StreamTime(5, 0.0))
    slots = stream.push(x[:, : 6 * n + 300])
    assert stream.retune(time=StreamTime(6, 0.0)) == []
    status = stream.status()
    assert (status["slots_cut"], status["samples_skipped"], status["searching"]) == (1, 300, True)
    slots += stream.push(x[:, 6 * n + 300 + 500 :])  # 500 samples lie between
    assert len(slots) == 19 - 1 and stream.status()["resyncs"] == 1
    assert slots[6].start_sample == 6 * n + 300 + (n - 800) % n
    assert float(slots[6].time) == pytest.approx(6 + (slots[6].start_sample - 6 * n - 300) / 1.44e6)
    assert closes(stream, slots)


def test_a_gap_nobody_tells_of_is_found_out() -> None:
    x, n = uplink(PAPER, 40), PAPER.slot_samples
    cut = np.concatenate([x[:, : 10 * n], x[:, 10 * n + 333 :]], axis=1)
    stream = SlotStream(PAPER, "pilots")
    slots = stream.push(cut)
    status = stream.status()
    assert (status["lost_sync"], status["syncs"]) == (1, 2)
    assert (slots[-1].start_sample + 333) % n == 0 and slots[-1].sync_metric > status["sync_threshold"]


@pytest.mark.parametrize("ppm", [-40, 40])
def test_a_sample_clock_that_drifts_is_followed(ppm: float) -> None:
    """The user's clock is off, so that slots come 0.03 samples later or earlier each."""
    n, slots_sent = PAPER.slot_samples, 120
    source = UplinkSource(PAPER, channel(PAPER, ((0.0, 1.0),)), 10.0)
    stretch = 1 + ppm * 1e-6
    begins = [int(np.floor(k * n * stretch)) for k in range(slots_sent)]
    x = noise(PAPER, begins[-1] + n + 300, 10.0)
    for begin, k in zip(begins, range(slots_sent)):
        source._channels = channel(PAPER, ((k * n * stretch - begin, 1.0),))
        x[:, 100 + begin : 100 + begin + n] = source.slot().samples
    stream = SlotStream(PAPER, "pilots")
    slots = stream.push(x)
    assert len(slots) >= slots_sent - 2 and stream.status()["lost_sync"] == 0
    errors = [min((s.start_sample - 100 - b for b in begins), key=abs) for s in slots]
    assert max(map(abs, errors)) <= 1
    assert abs(slots[-1].start_sample - slots[0].start_sample - (len(slots) - 1) * n) >= 2


def test_5g_nr_is_found_with_its_two_prefixes_and_its_comb() -> None:
    lead, n = 12345, NR.slot_samples
    paths = ((0.0, 0.6), (20.3, 0.3), (70.0, 0.1))
    source = UplinkSource(NR, channel(NR, paths), 0.0)
    sent = [source.slot() for _ in range(3)]
    x = np.concatenate([noise(NR, lead, 0.0), *(slot.samples for slot in sent)], axis=1)
    stream = SlotStream(NR, "pilots", rate_hz=61.44e6)
    slots = stream.push(x)
    assert reach_samples(NR) == 144 and len(slots) == 3
    assert all(-40 <= s.start_sample - lead - k * n <= 0 for k, s in enumerate(slots))
    early = lead - slots[0].start_sample
    ramp = np.exp(-2j * np.pi * NR.frequencies * early / NR.fft_size)
    expected = sent[0].sent * sent[0].channel * ramp
    error = np.mean(np.abs(slots[0].grid - expected) ** 2)
    assert error == pytest.approx(1.0, rel=0.02)  # the noise of 0 dB and nothing else


@pytest.mark.parametrize("cfo_hz", [-9000.0, 0.0, 2500.0])
@pytest.mark.parametrize("sync", ["tag", "pilots"])
def test_carrier_offset_is_a_number_in_status(cfo_hz: float, sync: str) -> None:
    x = uplink(PAPER, 30, 5.0)
    x = (x * np.exp(2j * np.pi * cfo_hz * np.arange(x.shape[1]) / PAPER.rate_hz)).astype(np.complex64)
    stream = SlotStream(PAPER, sync)
    assert stream.status()["cfo_hz"] is None
    if sync == "tag":
        for k in range(30):
            stream.mark(k * PAPER.slot_samples)
    assert len(stream.push(x)) == 30
    assert stream.status()["cfo_hz"] == pytest.approx(cfo_hz, abs=200)


def turned(x: np.ndarray, cfo_hz: float) -> np.ndarray:
    return (x * np.exp(2j * np.pi * cfo_hz * np.arange(x.shape[1]) / PAPER.rate_hz)).astype(np.complex64)


@pytest.mark.parametrize("cfo_hz", [-9000.0, 2963.0])  # the latter turns the pilot symbols by a whole turn
@pytest.mark.parametrize("sync", ["tag", "pilots"])
def test_carrier_offset_is_taken_out(cfo_hz: float, sync: str) -> None:
    x, n = uplink(PAPER, 40, 30.0), PAPER.slot_samples

    def grids(samples: np.ndarray, correct_cfo: bool) -> tuple[SlotStream, list[Slot]]:
        stream = SlotStream(PAPER, sync, correct_cfo=correct_cfo)
        if sync == "tag":
            for k in range(40):
                stream.mark(k * n)
        return stream, stream.push(samples)

    def errors(found: list[Slot], true: list[Slot]) -> list[float]:
        """Of each slot's grid over its power: beyond one phase, since the slots do not begin at a whole turn."""
        for a, b in zip(found, true):
            assert a.start_sample == b.start_sample
        phases = [np.vdot(a.grid, b.grid) / abs(np.vdot(a.grid, b.grid)) for a, b in zip(found, true)]
        differences = [np.abs(p * a.grid - b.grid) ** 2 for p, a, b in zip(phases, found, true)]
        return [float(d.mean() / np.mean(np.abs(b.grid) ** 2)) for d, b in zip(differences, true)]

    _, true = grids(x, False)
    stream, left = grids(turned(x, cfo_hz), False)
    assert len(left) == 40 and min(errors(left, true)) > 0.1
    stream, corrected = grids(turned(x, cfo_hz), True)
    assert len(corrected) == 40 and max(errors(corrected, true)) < 2e-3
    assert stream.status()["cfo_hz"] == pytest.approx(cfo_hz, abs=20) and stream.status()["cfo_corrected"]


def test_a_carrier_offset_that_is_left_in_is_a_fault() -> None:
    x, n = uplink(PAPER, 100, 0.0), PAPER.slot_samples

    def fault(samples: np.ndarray, correct_cfo: bool = False) -> str:
        stream = SlotStream(PAPER, correct_cfo=correct_cfo)
        for k in range(100):
            stream.mark(k * n)
        stream.push(samples[:, : 60 * n])
        assert stream.status()["fault"] == ""  # not before it can be believed
        stream.push(samples[:, 60 * n :])
        return str(stream.status()["fault"])

    assert fault(turned(x, 250.0)) == ""
    assert fault(turned(x, -400.0), correct_cfo=True) == ""
    assert fault(noise(PAPER, 100 * n)) == ""
    found = fault(turned(x, -400.0))
    assert found.startswith("slots: carrier offset: found -")
    assert found.endswith(" Hz, expected at most 300 Hz, or its correction")


def test_a_recording_of_one_slot_is_searched_at_its_end() -> None:
    stream = SlotStream(PAPER, "pilots")
    assert stream.push(np.concatenate([noise(PAPER, 50), uplink(PAPER, 1)], axis=1)) == []
    (slot,) = stream.finish()
    assert slot.start_sample == 50 and stream.status()["samples_pending"] == 0 and closes(stream, [slot])


def test_one_alone_in_weak_noise_needs_several_slots() -> None:
    """What one stretch of a slot does not show, the mean of several does."""
    search = PilotSearch(ALONE)
    source = UplinkSource(ALONE, channel(ALONE, ((0.0, 1.0),)), -3.0, seed=4)
    x = np.concatenate([source.slot().samples for _ in range(10)], axis=1)
    block = ALONE.slot_samples - 1 + search.span_samples
    found = []
    for k in range(8):
        found.append(search.find(np.ascontiguousarray(x[:, k * 756 : k * 756 + block]))[0])
        if found[-1] is not None:
            break
    assert len(found) > 1 and found[-1] == 0


def test_rates_are_measured() -> None:
    assert demodulation_rate(PAIR, 0.01) > 0
    assert slot_rate(PAIR, 0.01) > 0 and slot_rate(PAIR, 0.01, "tag") > 0


# ---- any chunking


@given(
    sizes=st.lists(st.integers(0, 500), max_size=12),
    sync=st.sampled_from(["tag", "pilots"]),
    start=st.integers(0, 1 << 40),
)
@settings(max_examples=60)
def test_any_chunking_gives_the_same_bits(sizes: list[int], sync: str, start: int) -> None:
    x = np.concatenate([noise(PAIR, 321, 5.0), uplink(PAIR, 12, 5.0), noise(PAIR, 1500), uplink(PAIR, 4)], axis=1)
    x[0, 700] = np.nan

    def run(chunks: list[int]) -> tuple[SlotStream, list[Slot]]:
        stream, slots, at = SlotStream(PAIR, sync, start_sample=start), [], 0
        for size in [*chunks, x.shape[1]]:
            chunk = x[:, at : at + size]
            if sync == "tag":
                for k in range(12):
                    if at <= 321 + 140 * k < at + chunk.shape[1]:  # each cuts the one before, but for some
                        stream.mark(start + 321 + (140 if k % 3 else 150) * k)
            slots += stream.push(chunk)
            at += chunk.shape[1]
            assert closes(stream, slots)
        return stream, slots + stream.finish()

    stream, slots = run(sizes)
    whole, expected = run([])
    assert stream.status() == whole.status() and len(slots) == len(expected) > 3
    assert [(s.start_sample, s.n_nonfinite, s.sync_metric) for s in slots] == [
        (s.start_sample, s.n_nonfinite, s.sync_metric) for s in expected
    ]
    for one, other in zip(slots, expected):
        np.testing.assert_array_equal(one.grid, other.grid)
