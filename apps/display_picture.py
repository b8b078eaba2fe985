#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write pictures of the signal display that plays a recording of `scripts/demo`: a PNG of its end, and a moving GIF.

    apps/display_picture.py demo/scene.sigmf-meta --output docs/images

NAME.events.jsonl beside the recording has the events. The window is drawn without a screen.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from gnuradio.wavesfm.display.signal_model import DisplayOptions, SignalModel
from gnuradio.wavesfm.display.signal_window import SignalWindow
from PIL import Image
from PyQt5 import QtGui, QtWidgets
from wavesfm_core.errors import WavesfmError
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.recordings.recording import Recording
from wavesfm_core.recordings.sigmf_meta import META

FRAMES = 20
FRAME_MS = 160
LAST_MS = 2000
COLOURS = 40
GIF_WIDTH = 840
SIZE = (1180, 700)


def read_events(path: Path) -> list[dict[str, Any]]:
    """The lines of the sink of events, with times as messages have them."""
    events = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        time = record["time"]
        events.append({**record, "time": time and (time["full_s"], time["frac_s"])})
    return events


def play(recording: Recording, events: list[dict[str, Any]], theme: str) -> tuple[SignalWindow, list[Image.Image]]:
    """Feed a window with a recording and its events; returns it with a picture of each step."""
    length_s = recording.n_samples / recording.rate_hz
    model = SignalModel(DisplayOptions(history_s=length_s, keep_mb=0), recording.rate_hz, recording.centre_hz or 0.0)
    model.take_status({"kind": "started", "engine": "a recording", "bundle_id": ""})
    window = SignalWindow(model, theme, "Signals")
    model.health.rate_hz = recording.rate_hz
    model.health.measure = lambda *_: None  # the window is fed as fast as it draws
    window.resize(*SIZE)
    window.show()
    step, fed, pictures = recording.n_samples // FRAMES, 0, []
    waiting = list(events)
    for block in recording.blocks(step):
        model.take(block)
        fed += len(block)
        while waiting and waiting[0]["sample"] <= fed:
            model.take_event(waiting.pop(0))
        window.frames = 0  # tables as well
        window.refresh()
        loudest = max(model.snapshot().emitters, key=lambda each: each.record["snr_db"], default=None)
        if loudest is not None:
            window.select(loudest.number)
        QtWidgets.QApplication.processEvents()
        pictures.append(grab(window))
    return window, pictures


def grab(window: QtWidgets.QWidget) -> Image.Image:
    """A picture of a window."""
    image = window.grab().toImage().convertToFormat(QtGui.QImage.Format_RGB888)
    data = image.bits().asstring(image.bytesPerLine() * image.height())
    return Image.frombuffer("RGB", (image.width(), image.height()), data, "raw", "RGB", image.bytesPerLine(), 1)


def write_gif(path: Path, pictures: list[Image.Image]) -> None:
    """Write a moving picture of few colours."""
    height = round(GIF_WIDTH * pictures[0].height / pictures[0].width)
    small = [picture.resize((GIF_WIDTH, height), Image.LANCZOS) for picture in pictures]
    palette = small[-1].quantize(COLOURS)
    frames = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in small]
    durations = [FRAME_MS] * (len(frames) - 1) + [LAST_MS]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, optimize=True)


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recording", type=Path)
    parser.add_argument("--output", type=Path, default=Path("."), metavar="DIR")
    parser.add_argument("--theme", choices=("dark", "light"), default="dark")
    arguments = parser.parse_args()
    application = QtWidgets.QApplication([])
    events = arguments.recording.with_name(arguments.recording.name.removesuffix(META) + ".events.jsonl")
    try:
        with open_recording(arguments.recording) as recording:
            window, pictures = play(recording, read_events(events), arguments.theme)
    except (WavesfmError, OSError) as error:
        sys.stderr.write(f"display_picture: {error}\n")
        return 2
    pictures[-1].quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        arguments.output / "display.png", optimize=True
    )
    write_gif(arguments.output / "display.gif", pictures)
    window.close()
    application.quit()
    return 0


if __name__ == "__main__":
    sys.exit(main())
