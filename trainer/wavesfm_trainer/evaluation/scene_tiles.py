# SPDX-License-Identifier: GPL-3.0-or-later
"""Training tiles cut by the band's own detector and zoom: what `wavesfm classify --detect` hands to the model.

Scenes of several signals side by side are searched with `wavesfm_core.band.analyser`. Each of its looks gets the label
of the truth that it lies in. A look at a place where no signal is gets "noise". Scenes are generated, and may hold
pieces of real recordings (`real_sources`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import scipy.fft as fft
from numpy.typing import NDArray
from wavesfm_core.band.analyser import BandAnalyser
from wavesfm_core.band.looks import Look
from wavesfm_core.band.options import BandOptions
from wavesfm_core.band.types import Emitter
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec

from ..data.tile_dataset import SHARD_TILES, Tiles, begin_directory, write_shard
from ..signals import CLASSES
from ..signals.artefacts import apply_artefacts, draw_artefacts
from ..signals.base import IQ, Emission, SignalClass, SilentWindow
from ..signals.dataset import make_example
from ..signals.outliers import TRAINING, UNKNOWN, WEIGHTS
from ..signals.views import ALL_LABELS
from .band_scenes import OUTSIDE, OUTSIDE_OF_CARRIER, QUIET, Truth, edges, lay, place
from .real_sources import RealSource, draw_source, extent, part_of_band, tiles_of, whole_band_tiles

RATES_HZ = (1e6, 2e6, 2.4e6, 3.2e6, 5e6, 8e6, 10e6, 16e6, 20e6)
SAMPLES = 5_000_000  # of a scene
LONGEST_S = 1.0
SIGNALS = (2, 9)  # drawn for a scene, fewer than the second
UNKNOWN_SHARE = 0.12  # of the generated signals
RECORDED_SHARE = 0.5  # of the signals: pieces of recordings, which bring the noise of a receiver of their own
REAL_SHARE = 0.35  # of the recordings, where there are real sources; the others are generated
EMPTY_SHARE = 0.08  # of the generated recordings
LEAST_RATE_HZ = 0.1e6  # of a recording
WIDEST = 0.5  # of the band, of one signal
INSIDE = 0.6  # share of a look's band that must lie in a truth
IOU = 0.3  # or this overlap of the two bands
MUCH = 0.2  # of a signal beside the one that a look is of
SEEN_WHOLE = 0.7  # of the band; wider looks show more than one signal
LOOKS = 4  # at one emitter
CHUNK = 1 << 18
DRAWS = 6
SCENES_PER_SHARD = 100_000

Row = tuple[NDArray[np.uint8], int, float, float, int]
"""Picture, label index, log10 of the rate in Hz, SNR in dB, spectrogram rows."""


@dataclass(frozen=True)
class Scene:
    """One band with several signals.

    Attributes
    ----------
    iq : complex64 [n]
        Full scale 1.
    truths : list of Truth
        The signals.
    taken : list of Truth
        Places that are not free; those without a label are whole real recordings, whose own noise is neither a signal
        nor an empty band.
    """

    iq: IQ
    truths: list[Truth]
    taken: list[Truth]


@dataclass(frozen=True)
class SceneTiles:
    """Endless tiles from scenes, deterministic from the seed and the sources.

    Attributes
    ----------
    seed : int
        Of the scenes.
    spec : SpectrogramSpec
        Of the tiles.
    sources : sequence of RealSource
        Real recordings of which pieces stand among the generated signals; none by default.
    labels : tuple of str
        All labels.
    """

    seed: int
    spec: SpectrogramSpec
    sources: Sequence[RealSource] = ()
    labels: tuple[str, ...] = field(default=ALL_LABELS, init=False)

    def tiles(self, number: int) -> list[Row]:
        """The looks at scene `number` whose truth is beyond doubt."""
        rng = np.random.default_rng([self.seed, number, 23])
        rate_hz = float(rng.choice(RATES_HZ)) * float(rng.choice([1.0, rng.uniform(0.8, 1.25)]))
        scene = make_scene(rng, rate_hz, self.sources)
        looks, emitters = _looks(rng, scene.iq, rate_hz, self.spec.unscaled(), self.labels)
        rows: list[Row] = []
        for look in looks:
            emitter = emitters.get(look.track.number)
            if emitter is None or emitter.kind == "whole" or emitter.width_hz > SEEN_WHOLE * rate_hz:
                continue
            truth = true_label(look, emitter, rate_hz, scene)
            if truth is not None:
                rows.append(self._row(look, rate_hz, *truth))
        return rows

    def _row(self, look: Look, rate_hz: float, label: str, snr_db: float) -> Row:
        tile, spec = look.tile, self.spec
        picture = np.rint(tile.data[0] * 255).astype(np.uint8)
        frames = (tile.n_samples * tile.rate_hz / rate_hz - spec.fft_size) // spec.hop_samples + 1
        rows = int(np.clip(-(-frames // spec.frames_averaged), 1, spec.rows_per_tile))
        return picture, self.labels.index(label), float(np.log10(tile.rate_hz)), snr_db, rows


def make_scene(rng: np.random.Generator, rate_hz: float, sources: Sequence[RealSource]) -> Scene:
    """Signals at places that are free, in noise of power 1 a sample, through a receiver that rolls off."""
    n = fft.next_fast_len(int(min(SAMPLES, LONGEST_S * rate_hz)))
    spectrum = np.zeros(n, np.complex64)
    truths: list[Truth] = []
    taken: list[Truth] = []
    for _ in range(int(rng.integers(*SIGNALS))):
        snr_db = float(rng.uniform(6, 35) if rng.random() < 0.85 else rng.uniform(0, 8))
        if rng.random() < RECORDED_SHARE:
            real = sources and rng.random() < REAL_SHARE
            source = draw_source(rng, sources) if real else _generated_source(rng, n / rate_hz, rate_hz)
            if source is not None:
                _add_recorded(rng, spectrum, rate_hz, snr_db, source, truths, taken)
        else:
            _add_generated(rng, spectrum, rate_hz, snr_db, truths, taken)
    spectrum.view(np.float32)[:] += np.float32(np.sqrt(n / 2)) * rng.standard_normal(2 * n, dtype=np.float32)
    if rng.random() < 0.7:
        frequency = np.abs(fft.fftfreq(n))
        edge_db = rng.uniform(0, 9)
        spectrum *= (10 ** (-edge_db / 20 * np.clip((frequency - 0.4) / 0.1, 0, 1) ** 2)).astype(np.float32)
    iq = fft.ifft(spectrum, overwrite_x=True)
    if rng.random() < 0.3:
        iq = apply_artefacts(rng, iq, draw_artefacts(rng, 1.0), 1.0).astype(np.complex64)
    iq *= np.float32(0.25 / np.abs(iq).max())
    steps = np.float32(2 ** int(rng.choice([7, 11, 15])))
    return Scene((np.round(iq.view(np.float32) * steps) / steps).view(np.complex64), truths, taken)


def _looks(
    rng: np.random.Generator, iq: IQ, rate_hz: float, spec: SpectrogramSpec, labels: Sequence[str]
) -> tuple[list[Look], dict[int, Emitter]]:
    """All looks of the analyser, its view's width drawn, and its emitters by number."""
    options = BandOptions(
        looks_per_s=1e6,
        relook_s=0.3,
        looks_per_emitter=LOOKS,
        view_width=float(np.exp(rng.uniform(np.log(1.45), np.log(3.5)))),
        least_rate_hz=float(np.exp(rng.uniform(np.log(8e3), np.log(40e3)))),
    )
    analyser = BandAnalyser(spec, labels, rate_hz, options=options)
    even = np.full(len(labels), 1 / len(labels))
    looks: list[Look] = []
    for at in range(0, len(iq), CHUNK):
        for look in analyser.push(iq[at : at + CHUNK]).looks:
            analyser.named(look, even)  # so that it looks no more often than it would
            looks.append(look)
    looks += analyser.finish().looks
    return looks, {emitter.number: emitter for emitter in analyser.emitters()}


def true_label(look: Look, emitter: Emitter, rate_hz: float, scene: Scene) -> tuple[str, float] | None:
    """Label and SNR in dB of what the look shows: of the one truth there, "noise" far from all, None in doubt."""
    low_hz, high_hz = emitter.low_hz, emitter.high_hz
    start_s = look.tile.start_sample / rate_hz
    stop_s = start_s + look.tile.n_samples / rate_hz
    on_air = [t for t in scene.truths if min(stop_s, t.stop_s) > max(start_s, t.start_s)]
    both = {id(t): min(high_hz, t.high_hz) - max(low_hz, t.low_hz) for t in on_air}
    shown = [t for t in on_air if both[id(t)] > MUCH * min(t.high_hz - t.low_hz, high_hz - low_hz)]
    if len(shown) > 1:
        return None
    blocks = [t for t in scene.taken if not t.label and high_hz > t.low_hz and low_hz < t.high_hz]
    for truth in shown:
        inside = both[id(truth)] >= INSIDE * (high_hz - low_hz)
        either = max(high_hz, truth.high_hz) - min(low_hz, truth.low_hz)
        recorded = any(t.low_hz <= truth.low_hz and truth.high_hz <= t.high_hz for t in blocks)  # with that noise
        return (truth.label, truth.snr_db) if inside or recorded or both[id(truth)] / either >= IOU else None
    near = any(both[id(t)] > -max(2 * (t.high_hz - t.low_hz), high_hz - low_hz) for t in on_air)
    return None if near or blocks else ("noise", 0.0)


def _add_recorded(
    rng: np.random.Generator,
    spectrum: NDArray[np.complex64],
    rate_hz: float,
    snr_db: float,
    source: RealSource,
    truths: list[Truth],
    taken: list[Truth],
) -> None:
    """A piece of a recording with its own noise, at a place that is free; a part of its band if it is wide."""
    n = len(spectrum)
    iq, own_hz, low, high = source.iq, source.rate_hz, source.low_hz, source.high_hz
    if own_hz > WIDEST * rate_hz:
        new_hz = min(WIDEST * rate_hz, own_hz) * float(rng.uniform(0.3, 1.0))
        inside = high - low > new_hz
        middle = float(rng.uniform(low + new_hz / 3, high - new_hz / 3)) if inside else (low + high) / 2
        kept = int(len(iq) * new_hz / own_hz) // 2 * 2
        at_bin = round(middle * len(iq) / own_hz)
        iq = part_of_band(rng, iq, kept, at_bin, max(1, int(kept * rng.uniform(0.01, 0.08))))
        low, high = max(low - middle, -new_hz / 2), min(high - middle, new_hz / 2)
        own_hz *= kept / len(source.iq)
    native = fft.next_fast_len(round(n * own_hz / rate_hz))  # off by 0.1 % at most
    length = min(int(rng.uniform(0.3, 1.0) * native), len(iq))
    begin = int(rng.integers(0, len(iq) - length + 1))
    first, last = (int(edge * len(iq) / len(source.iq)) - begin for edge in (source.first, source.last))
    centre = place(rng, -own_hz / 2, own_hz / 2, rate_hz, taken)
    if last <= 0 or first >= length or centre is None:
        return
    piece = iq[begin : begin + length]
    if rng.random() < 0.5:
        piece, low, high = piece.conj(), -high, -low
    at = int(rng.integers(0, native - length + 1))
    full = np.zeros(native, np.complex64)
    full[at : at + length] = piece
    gain = np.sqrt(10 ** (snr_db / 10) * (high - low) / rate_hz / np.mean(np.abs(piece) ** 2))
    lay(spectrum, fft.fft(full) * np.float32(n / native * gain), round(centre * n / rate_hz))
    span = (at + max(first, 0)) / own_hz, (at + min(last, length)) / own_hz
    truths.append(Truth(source.label, *span, centre + low, centre + high, snr_db))
    taken.append(Truth("", at / own_hz, (at + length) / own_hz, centre - own_hz / 2, centre + own_hz / 2, snr_db))


def _generated_source(rng: np.random.Generator, length_s: float, scene_hz: float) -> RealSource | None:
    """A recording of a generated signal, or of nothing, by a receiver of WIDEST of the scene's rate at most.

    Real recordings alone would teach that the noise of a receiver around a signal is a mark of their classes.
    """
    for _ in range(DRAWS):
        label, signal = ("noise", CLASSES["noise"]) if rng.random() < EMPTY_SHARE else _draw_signal(rng)
        rate_hz = signal.draw_rate(rng)
        n_samples = int(rng.uniform(0.3, 1.0) * length_s * rate_hz)
        if not LEAST_RATE_HZ <= rate_hz <= WIDEST * scene_hz or n_samples < signal.shortest_s * rate_hz:
            continue
        try:
            example = make_example(rng, signal, n_samples, float(rng.uniform(8, 40)), rate_hz, n_samples, visible=True)
        except (SilentWindow, ValueError):
            continue
        iq = example.iq - example.iq.mean()
        iq = (iq / np.sqrt(np.mean(np.abs(iq) ** 2))).astype(np.complex64)
        return RealSource(iq, rate_hz, label, *extent(iq, rate_hz))
    return None


def _add_generated(
    rng: np.random.Generator,
    spectrum: NDArray[np.complex64],
    rate_hz: float,
    snr_db: float,
    truths: list[Truth],
    taken: list[Truth],
) -> None:
    """A generated signal of a class or of an outlier family that training knows, at a place that is free."""
    n = len(spectrum)
    length_s = n / rate_hz
    drawn = _draw_emission(rng, length_s, rate_hz)
    if drawn is None:
        return
    label, emission, on_s = drawn
    start_s = float(rng.uniform(0, length_s - on_s)) if rng.random() < 0.6 else 0.0
    native = fft.next_fast_len(round(n * emission.rate_hz / rate_hz))
    at = min(round(start_s * emission.rate_hz), native - 1)
    iq = np.zeros(native, np.complex64)
    piece = emission.iq[: min(round(on_s * emission.rate_hz), native - at)]
    iq[at : at + len(piece)] = piece
    power = iq.real**2 + iq.imag**2
    active = np.flatnonzero(power > QUIET * power[power > 0].mean()) if power.any() else np.zeros(0, int)
    if active.size == 0:
        return
    bins = fft.fft(iq) * np.float32(n / native)
    low, high = edges(bins, emission.rate_hz, OUTSIDE if label != "am-voice" else OUTSIDE_OF_CARRIER)
    centre = place(rng, low, high, rate_hz, taken)
    if centre is None:
        return
    gain = np.sqrt(10 ** (snr_db / 10) * (high - low) / rate_hz / float(power[active].mean()))
    lay(spectrum, bins * np.float32(gain), round(centre * n / rate_hz))
    times = active[0] / emission.rate_hz, (active[-1] + 1) / emission.rate_hz
    truths.append(Truth(label, float(times[0]), float(times[1]), centre + low, centre + high, snr_db))
    taken.append(truths[-1])


def _draw_emission(rng: np.random.Generator, length_s: float, rate_hz: float) -> tuple[str, Emission, float] | None:
    """Label, emission and seconds on the air of a signal that fits into WIDEST of the band and does not hop over it."""
    for _ in range(DRAWS):
        label, signal = _draw_signal(rng)
        on_s = float(min(length_s, max(signal.shortest_s, rng.uniform(0.2, 1.0) * length_s)))
        view_hz = min(signal.draw_rate(rng), rate_hz)
        try:
            emission = signal.make(rng, on_s * 1.01 + 1e-5, view_hz)
        except (SilentWindow, ValueError):
            continue
        if not emission.placed and emission.occupied_hz <= min(WIDEST * rate_hz, 0.95 * view_hz):
            return label, emission, on_s
    return None


def _draw_signal(rng: np.random.Generator) -> tuple[str, SignalClass]:
    if rng.random() < UNKNOWN_SHARE:
        names = list(TRAINING)
        odds = np.array([WEIGHTS[name] for name in names])
        return UNKNOWN, TRAINING[names[int(rng.choice(len(names), p=odds / odds.sum()))]]
    label = str(rng.choice([name for name in CLASSES if name != "noise"]))
    return label, CLASSES[label]


def make_scene_tiles(scenes: SceneTiles, number: int, count: int) -> Tiles:
    """The first `count` tiles of the scenes from SCENES_PER_SHARD * number on."""
    rows: list[Row] = []
    scene = number * SCENES_PER_SHARD
    while len(rows) < count:
        rows += scenes.tiles(scene)
        scene += 1
    return tiles_of(rows[:count])


def write_scene_shards(directory: Path, scenes: SceneTiles, count: int) -> None:
    """Write shards of SHARD_TILES tiles; complete shards are kept, so that a stopped command is resumed.

    Raises
    ------
    InputError : the directory has tiles of another spec, seed or list of labels.
    """
    begin_directory(directory, scenes.spec, scenes.labels, scenes.labels, scenes.seed)
    for number in range(-(-count // SHARD_TILES)):
        size = min(SHARD_TILES, count - number * SHARD_TILES)
        write_shard(directory, number, size, partial(make_scene_tiles, scenes, number, size))


def write_whole_shards(
    directory: Path, seed: int, spec: SpectrogramSpec, sources: Sequence[RealSource], count: int
) -> None:
    """As `write_scene_shards`, but of whole bands of the sources alone (`whole_band_tiles`).

    Raises
    ------
    InputError : the directory has tiles of another spec, seed or list of labels.
    ConfigurationError : no source, or sources too short for tiles.
    """
    begin_directory(directory, spec, ALL_LABELS, ALL_LABELS, seed)
    for number in range(-(-count // SHARD_TILES)):
        size = min(SHARD_TILES, count - number * SHARD_TILES)
        write_shard(directory, number, size, partial(whole_band_tiles, [seed, number], spec, sources, size))
