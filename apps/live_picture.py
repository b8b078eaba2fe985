#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the picture of the page of `wavesfm live`: a scene of the signal generator, a bundle, a browser.

apps/live_picture.py models/rf20-nano --output docs/images
"""

from __future__ import annotations

import argparse
import shutil
import sys
import threading
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright
from wavesfm_core.live.config import LiveConfig, ModelConfig, SourceConfig, WebConfig
from wavesfm_core.live.service import LiveService
from wavesfm_core.live.sources.simulated import SimulatedRadio
from wavesfm_core.live.sources.waveforms import Transmitter
from wavesfm_trainer.signals import CLASSES
from wavesfm_trainer.signals.base import SilentWindow

CENTRE_HZ, RATE_HZ = 433.92e6, 2.4e6
LOOP_S = 6.0
PLACES_HZ = {
    "nfm-voice": -1.0e6,
    "dmr": -0.78e6,
    "pocsag": -0.55e6,
    "lora": -0.25e6,
    "fsk-ism": 0.12e6,
    "radiosonde": 0.38e6,
    "ax25-packet": 0.62e6,
    "wbfm": 0.9e6,
}
POWER_DB = -42.0
SIZE = {"width": 1440, "height": 860}


def transmitters(seed: int) -> list[Transmitter]:
    """One of each class of PLACES_HZ, at its place."""
    made = []
    for number, (label, offset_hz) in enumerate(PLACES_HZ.items()):
        rng = np.random.default_rng([seed, number])
        signal = CLASSES[label]
        for _ in range(100):
            try:
                emission = signal.make(rng, LOOP_S, signal.views[0].low_hz)
            except SilentWindow:
                continue
            break
        else:
            raise SilentWindow(f"{label}: found 100 silent draws, expected a signal")
        made.append(
            Transmitter(label, CENTRE_HZ + offset_hz, emission.occupied_hz, POWER_DB, emission.iq, emission.rate_hz)
        )
    return made


def take(url: str, output: Path, browser_path: str, seconds: float) -> None:
    """Open the page, wait for a full waterfall, select an emitter and save both themes."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_context(viewport=SIZE, device_scale_factor=1.0).new_page()
        page.goto(url)
        page.wait_for_timeout(1000 * seconds)
        page.locator("#emitters tr").nth(1).click()
        for theme in ("dark", "light"):
            page.evaluate(f"setTheme('{theme}')")
            page.wait_for_timeout(300)
            page.screenshot(path=output / ("live-page.png" if theme == "dark" else "live-page-light.png"))
        browser.close()


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--output", type=Path, default=Path("docs/images"))
    parser.add_argument("--seconds", type=float, default=18.0, help="until the picture is taken")
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    browser_path = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if browser_path is None:
        sys.stderr.write("found no chromium, expected chromium-headless-shell: apt install chromium-headless-shell\n")
        return 2
    radio = SimulatedRadio(transmitters(options.seed), CENTRE_HZ, RATE_HZ, options.seed, realtime=True)
    config = LiveConfig(SourceConfig("simulated"), ModelConfig(options.bundle), web=WebConfig("127.0.0.1", 0))
    with LiveService(config, radio) as service:
        assert service.server is not None
        threading.Thread(target=service.run, daemon=True).start()
        take(f"http://127.0.0.1:{service.server.port}/", options.output, browser_path, options.seconds)
        service.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
