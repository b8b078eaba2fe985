# SPDX-License-Identifier: GPL-3.0-or-later
"""Pictures of every signal class for docs/signals.md.

Run `python -m wavesfm_trainer.report.signal_gallery docs/images/signals`.
"""

from __future__ import annotations

import argparse
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from PIL import Image
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_core.preprocess.tile import prepare

from ..signals import CLASSES
from ..signals.base import IQ, SignalClass, View
from ..signals.channel import Reception, receive

SNR_DB = 20.0
EDGES_DB = np.arange(-20.0, 37.5, 2.5)  # one colour for each step, coarser than the noise, so that files stay small
COLOURS = matplotlib.colormaps["viridis"].resampled(len(EDGES_DB) - 1)
N_GREYS = 16  # of the lettering
ZOOM = 8
DPI = 100
PANEL, LEFT, GAP, RIGHT, TOP, BOTTOM = 448, 62, 50, 72, 30, 46  # pixels; a panel shows each pixel of the tile as 2 x 2
# Classes of which seed 1 draws a less typical example, or one that shows little.
SEEDS = {
    "noise": 5, "cellular": 2, "bluetooth": 7, "lora": 7, "ook-ism": 2, "nfm-voice": 2, "am-voice": 4, "dmr": 7,
    "radiosonde": 6,
}  # fmt: skip


def usual_view(signal: SignalClass) -> View:
    """The view with the largest weight."""
    return max(signal.views, key=lambda view: view.weight)


def usual_rate_hz(signal: SignalClass) -> float:
    """Middle of the usual view, in octaves."""
    view = usual_view(signal)
    return float(np.sqrt(view.low_hz * view.high_hz))


def example(signal: SignalClass, spec: SpectrogramSpec) -> tuple[IQ, float]:
    """Complex64 [spec.tile_samples] of a class at its usual rate, centred, in noise alone; and the rate in Hz."""
    rng = np.random.default_rng(SEEDS.get(signal.label, 1))
    rate_hz = usual_rate_hz(signal)
    emission = signal.make(rng, spec.tile_samples / rate_hz * 1.01, rate_hz)  # the channel rounds its transforms up
    return receive(rng, emission, Reception(snr_db=SNR_DB), rate_hz, spec.tile_samples), rate_hz


def draw(signal: SignalClass, spec: SpectrogramSpec | None = None) -> Image.Image:
    """A class as the model sees it: a full tile on the left, the busiest eighth of it on the right."""
    plain = (spec or SpectrogramSpec()).unscaled()
    iq, rate_hz = example(signal, plain)
    first, n_zoom = _busiest(iq, len(iq) // ZOOM)
    width, height = LEFT + 2 * PANEL + GAP + RIGHT, TOP + PANEL + BOTTOM
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)

    def axes(x: int, n_pixels: int) -> Axes:
        return figure.add_axes((x / width, BOTTOM / height, n_pixels / width, PANEL / height))

    left, right = axes(LEFT, PANEL), axes(LEFT + PANEL + GAP, PANEL)
    _panel(left, iq, 0, rate_hz, plain)
    left.set_ylabel("time / ms", fontsize=9)
    left.set_title(f"{signal.label}: a tile at {rate_hz / 1e6:.3g} MS/s", fontsize=10, loc="left")
    picture = _panel(right, iq[first : first + n_zoom], first, rate_hz, plain)
    right.set_title("an eighth of it", fontsize=10, loc="left")
    bar = figure.colorbar(picture, cax=axes(LEFT + 2 * PANEL + GAP + 12, 14), ticks=EDGES_DB[::4])
    bar.ax.tick_params(labelsize=8)
    bar.ax.set_title("dB", fontsize=8)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return Image.open(buffer).convert("RGB").quantize(palette=_palette(), dither=Image.Dither.NONE)


def _palette() -> Image.Image:
    """The colours of the map and of the lettering."""
    colours = np.rint(COLOURS(np.arange(COLOURS.N))[:, :3] * 255)
    greys = np.repeat(np.linspace(0, 255, N_GREYS).round()[:, None], 3, axis=1)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([colours, greys]).astype(np.uint8).tobytes())
    return palette


def _busiest(iq: IQ, n: int) -> tuple[int, int]:
    """First sample and length of the window of n samples with the most power."""
    total = np.concatenate([[0.0], np.cumsum(np.abs(iq.astype(np.complex128)) ** 2)])
    return int(np.argmax(total[n:] - total[:-n])), n


def _panel(axes: Axes, iq: IQ, first: int, rate_hz: float, spec: SpectrogramSpec) -> AxesImage:
    tile_db = spec.low_db + prepare(iq, spec)[0] * (spec.high_db - spec.low_db)
    unit_hz, unit = (1e6, "MHz") if rate_hz >= 2e6 else (1e3, "kHz")
    half, start_ms = rate_hz / 2 / unit_hz, 1e3 * first / rate_hz
    extent = (-half, half, start_ms + 1e3 * len(iq) / rate_hz, start_ms)
    norm = BoundaryNorm(EDGES_DB, COLOURS.N, clip=True)
    picture = axes.imshow(tile_db, COLOURS, norm, aspect="auto", interpolation="nearest", extent=extent)
    axes.tick_params(labelsize=8)
    axes.set_xlabel(f"frequency / {unit}", fontsize=9)
    return picture


def main() -> None:
    """Write one PNG for each class, or for those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("label", nargs="*", metavar="label", help="default: all")
    chosen = parser.parse_args()
    chosen.directory.mkdir(parents=True, exist_ok=True)
    for label in chosen.label or CLASSES:
        draw(CLASSES[label]).save(chosen.directory / f"{label}.png", optimize=True)


if __name__ == "__main__":
    main()
