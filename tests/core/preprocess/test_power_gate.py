# SPDX-License-Identifier: GPL-3.0-or-later
"""The power gate: what it holds back, what it never holds back, and what it forgets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from wavesfm_core.bundle.spec import HeadSpec
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.heads import ClassificationHead
from wavesfm_core.preprocess import power_gate
from wavesfm_core.preprocess.power_gate import ANSWERS, ANSWERS_AFTER_SIGNAL, MEMORY_S, PowerGate
from wavesfm_core.preprocess.tile_stream import TileStream
from wavesfm_core.types import Tile

SPEC = SpectrogramSpec(fft_size=64, hop_samples=64, rows_per_tile=256, height=128, width=64)  # 32,768 samples
HEAD = ClassificationHead(HeadSpec("classification", labels=("noise", "wifi", "gsm"), threshold=0.4), "m")
ANSWER = {"noise": (3.0, 0.0, 0.0), "wifi": (0.0, 3.0, 0.0), "gsm": (0.0, 0.0, 3.0), "unsure": (0.2, 0.1, 0.0)}
SECONDS = SPEC.tile_samples / 1e6


class Stream:
    """Tiles of noise and signals through a gate, with scripted answers; `inferred` has what came of each tile."""

    def __init__(self, gate: PowerGate | None = None, spec: SpectrogramSpec = SPEC) -> None:
        self.gate = gate or PowerGate(spec=spec)
        self.spec, self.start, self.rng = spec, 0, np.random.default_rng(1)
        self.inferred: list[bool] = []

    def tile(self, power_db: float = 0.0, band: float = 0.0, snr_db: float = 0.0, n: int = 0, **place: object) -> Tile:
        """White noise of some power, and in part of the band a noise-like signal of snr_db."""
        n = n or self.spec.tile_samples
        samples = self.rng.standard_normal((n, 2), dtype=np.float32).view(np.complex64).ravel()
        if band:
            spectrum = np.fft.fft(self.rng.standard_normal((n, 2), dtype=np.float32).view(np.complex64).ravel())
            spectrum[np.abs(np.fft.fftfreq(n)) > band / 2] = 0
            samples = samples + np.fft.ifft(spectrum) * 10 ** (snr_db / 20)
        stream = TileStream(self.spec, 1e6, 1e8)
        (made,) = stream.push((samples * 10 ** (power_db / 20) * 1e-3).astype(np.complex64)) + stream.finish()
        made = dataclasses.replace(made, start_sample=self.start, **place)  # type: ignore[arg-type]
        self.start += n
        return made

    def play(self, tiles: Iterable[Tile], answer: str) -> list[bool]:
        """Pass tiles, for which the model has one answer; returns whether each was inferred."""
        results = []
        for tile in tiles:
            held = self.gate.judge(tile).held
            if not held:
                self.gate.learn(HEAD.predict(np.array([ANSWER[answer]], np.float32), [tile]))
            results.append(not held)
        return results

    def noise(self, count: int, answer: str = "noise", **options: object) -> list[bool]:
        return self.play((self.tile(**options) for _ in range(count)), answer)  # type: ignore[arg-type]


@pytest.fixture
def few_answers(monkeypatch: pytest.MonkeyPatch) -> int:
    """Answers after which noise that was named a signal is trusted again: fewer than the gate wants, for speed."""
    assert ANSWERS_AFTER_SIGNAL > 24
    monkeypatch.setattr(power_gate, "ANSWERS_AFTER_SIGNAL", 24)
    return 24


def test_noise_is_held_back_after_a_few_answers_but_for_every_kth_tile() -> None:
    inferred = Stream().noise(100)
    assert all(inferred[:ANSWERS])
    assert sum(inferred) <= 10
    assert sum(Stream(PowerGate(spec=SPEC, ask_every=4)).noise(100)) == pytest.approx(25 + ANSWERS, abs=4)
    assert all(Stream(PowerGate(spec=SPEC, ask_every=1)).noise(20))


def test_nothing_is_held_back_without_a_label_noise_or_with_the_gate_off() -> None:
    assert all(Stream(PowerGate(spec=SPEC, labels=("wifi", "gsm"))).noise(20))
    stream = Stream(PowerGate(None, SPEC))
    assert all(stream.noise(20))
    stream.gate.gate_db = 8.5
    assert not all(stream.noise(20))


@pytest.mark.parametrize("answer", ["wifi", "unsure"])
def test_only_answers_of_noise_above_the_threshold_teach(answer: str) -> None:
    assert all(Stream().noise(50, answer))


@pytest.mark.parametrize("snr_db", [3.0, 30.0])
@pytest.mark.parametrize("band", [0.05, 0.5, 1.0])
def test_a_signal_that_begins_after_noise_is_asked_about_and_never_held_back(band: float, snr_db: float) -> None:
    stream = Stream()
    stream.noise(20)
    assert all(stream.noise(30, "wifi", band=band, snr_db=snr_db))
    assert not all(stream.noise(20))  # the noise after it is known still


def test_a_signal_that_was_called_noise_at_first_is_never_held_back_once_named(few_answers: int) -> None:
    stream = Stream()
    early = stream.noise(20, "noise", band=1.0, snr_db=3.0)
    assert not all(early)
    named = stream.noise(30, "gsm", band=1.0, snr_db=3.0)
    first = named.index(True)
    assert first < 16 and all(named[first:])
    mixed = [
        stream.noise(1, "gsm" if i % 10 == 0 else "noise", band=1.0, snr_db=3.0)[0] for i in range(3 * few_answers)
    ]
    assert all(mixed)


def test_a_false_name_for_noise_is_forgiven_after_many_answers(few_answers: int) -> None:
    stream = Stream()
    stream.noise(10)
    stream.noise(30, "wifi")  # until one of them is asked about
    assert all(stream.noise(few_answers - 1))
    assert not all(stream.noise(power_gate.UNLEARNT + 20))  # so many answers may wait to be learnt


@pytest.mark.parametrize("step_db", [-3.0, 2.0])
def test_a_step_of_gain_is_asked_about_and_learnt(step_db: float) -> None:
    stream = Stream()
    stream.noise(40)
    after = stream.noise(40, power_db=step_db)
    assert all(after[:ANSWERS]) and sum(after) < 12
    assert sum(stream.noise(20)) <= 4  # the gain before is known still


def test_slow_drift_of_noise_is_followed() -> None:
    stream = Stream()
    tiles = (stream.tile(power_db=0.03 * i) for i in range(150))
    assert np.mean(stream.play(tiles, "noise")) < 0.25


def test_no_tile_with_a_peak_over_the_limit_is_held_back() -> None:
    assert all(Stream().noise(30, band=0.05, snr_db=20.0))
    assert not all(Stream(PowerGate(40.0, SPEC)).noise(30, band=0.05, snr_db=20.0))
    assert all(Stream(PowerGate(0.0, SPEC)).noise(30, band=0.05, snr_db=20.0))


def test_every_tuning_has_its_own_memory() -> None:
    stream = Stream()
    stream.noise(20)
    assert all(stream.noise(ANSWERS, centre_hz=2e8))
    assert all(stream.noise(ANSWERS, rate_hz=2e6))
    assert sum(stream.noise(20)) <= 3  # a scanner that comes back does not begin anew
    assert sum(stream.noise(20, centre_hz=1e8 + 10.0)) <= 3  # the same for all that a tile shows


def test_memory_ends_with_its_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream()
    stream.noise(20)
    stream.start += int((MEMORY_S - 5) * 1e6)
    assert sum(stream.noise(10)) <= 2
    stream.start += int((MEMORY_S + 5) * 1e6)
    assert all(stream.noise(ANSWERS))
    monkeypatch.setattr(power_gate, "TUNINGS", 2)
    for centre_hz in (2e8, 3e8):
        stream.noise(1, centre_hz=centre_hz)
    assert all(stream.noise(ANSWERS))


def test_reset_forgets() -> None:
    stream = Stream()
    stream.noise(20)
    stream.gate.reset()
    assert all(stream.noise(ANSWERS))


def test_short_tiles_are_compared_with_short_ones_only() -> None:
    stream = Stream()
    stream.noise(40)
    half = stream.noise(40, n=SPEC.tile_samples // 2, partial=True)
    assert all(half[:ANSWERS]) and np.mean(half) < 0.4
    assert all(stream.noise(40, n=SPEC.min_samples, partial=True))  # too short to tell noise from a signal


def test_the_margin_is_over_the_noise_of_the_tuning() -> None:
    stream = Stream()
    first = stream.tile(band=1.0, snr_db=20.0)
    assert stream.gate.judge(first).margin_db == pytest.approx(first.peak_db - first.floor_db)
    stream.gate.reset()
    stream.noise(20)
    assert stream.gate.judge(stream.tile()).margin_db == pytest.approx(first.peak_db - first.floor_db, abs=0.5)
    loud = stream.tile(band=1.0, snr_db=20.0)
    assert stream.gate.judge(loud).margin_db == pytest.approx(loud.peak_db - loud.floor_db + 20.04, abs=0.5)


@pytest.mark.parametrize("value", [-1, float("nan"), float("inf")])
def test_wrong_value(value: float) -> None:
    with pytest.raises(ConfigurationError, match=r"gate_db"):
        PowerGate(value)
    with pytest.raises(ConfigurationError, match=r"ask_every"):
        PowerGate(ask_every=0)


def test_answers_that_never_come_are_forgotten() -> None:
    stream = Stream()
    for _ in range(20):
        assert not stream.gate.judge(stream.tile()).held
        stream.gate.forget_unanswered()
    assert sum(stream.noise(30)) <= 8


GEOMETRIES = [
    {"fft_size": 512, "hop_samples": 512, "rows_per_tile": 112},
    {"fft_size": 64, "hop_samples": 64, "frames_averaged": 1, "rows_per_tile": 32},
    {"fft_size": 256, "hop_samples": 128, "frames_averaged": 4, "rows_per_tile": 224},
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_noise_is_held_back_in_any_geometry(geometry: dict, tone: Callable[..., np.ndarray]) -> None:
    spec = dataclasses.replace(SpectrogramSpec(), **geometry)
    stream = TileStream(spec, 1e6)
    tiles = [made for seed in range(20) for made in stream.push(tone(0.1, spec.stride_samples, seed, snr_db=-200))]
    assert np.mean(Stream(PowerGate(spec=spec)).play(tiles, "noise")) < 0.6


def test_a_weak_carrier_is_asked_about(tone: Callable[..., np.ndarray]) -> None:
    stream, cut = Stream(), TileStream(SPEC, 1e6)
    snrs_db = [-200.0] * 20 + [-12.0] * 5
    tiles = [
        made for seed, snr_db in enumerate(snrs_db) for made in cut.push(tone(0.1, SPEC.tile_samples, seed, snr_db))
    ]
    inferred = stream.play(tiles[:20], "noise") + stream.play(tiles[20:], "wifi")
    assert not all(inferred[:20]) and all(inferred[20:])
