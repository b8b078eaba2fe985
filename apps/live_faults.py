#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a live classifier makes of bad tags, an engine that is too slow and a reader that is too slow, as tables.

    apps/live_faults.py tags models/rf20-nano
    apps/live_faults.py overload models/rf20-nano
    apps/live_faults.py reader models/rf20-nano --seconds 600

Engines are fakes that take a set time, so that the tables depend on the block and not on the processor.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pmt
from gnuradio import blocks, gr, wavesfm
from gnuradio.wavesfm.session import Session, SessionOptions
from soak import LatencySink, resident_bytes
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.engines.fake import FakeEngine
from wavesfm_core.errors import WavesfmError
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.types import Prediction, StreamTime

RATE_HZ = 2e6
PACKET = 8192  # samples between two time tags
START = StreamTime(1_700_000_000, 0.0)
Packets = Iterator[tuple[dict[str, Any], int]]  # what a tag says, and the samples that follow


def noise(n_samples: int) -> np.ndarray:
    """Complex64 noise at -60 dB."""
    parts = np.random.default_rng(0).standard_normal((n_samples, 2), dtype=np.float32)
    return parts.view(np.complex64).ravel() * np.float32(1e-3)


def time_tags(packets: int, jitter_s: float = 0.0, drift: float = 0.0, lost_every: int = 0) -> Packets:
    """A tag at each packet, with jitter (rms), a drift between the clocks, and a lost packet now and then."""
    rng, lost = np.random.default_rng(1), 0
    for k in range(packets):
        lost += bool(lost_every and k and k % lost_every == 0)
        time_s = (k + lost) * PACKET / RATE_HZ * (1 + drift) + rng.normal() * jitter_s
        yield {"time": START.advanced(max(0.0, time_s))}, PACKET


def hops(count: int, dwell_samples: int) -> Packets:
    """A new frequency after each dwell."""
    for k in range(count):
        yield {"centre_hz": 100e6 + k * 1e6}, dwell_samples


def tags_row(name: str, bundle: Path, packets: Packets) -> str:
    """One row of the table of tags."""
    predictions: list[Prediction] = []
    warnings: list[str] = []
    pipeline = Pipeline.open(bundle, gate_db=None)
    pipeline.engine = FakeEngine(pipeline.bundle)
    options = SessionOptions(RATE_HZ)
    session = Session(
        pipeline, options, "block", 0, predictions.extend, lambda error, n: warnings.append(str(error)), warnings.append
    )
    samples, due = noise(1 << 20), 0
    for change, count in packets:
        session.retune(**change)
        for first in range(0, count, len(samples)):
            session.push(samples[: min(len(samples), count - first)])
        due += count
    session.finish()
    session.close()
    status, full = session.status(), sum(not p.partial for p in predictions)
    looked_at = sum(p.n_samples for p in predictions) / due
    cells = [name, due // pipeline.stream_spec.tile_samples, full, status["partial"], f"{looked_at:.1%}"]
    cells += [status["gaps"], status["samples_lost"], status["retunes"], warnings[0] if warnings else ""]
    return "| " + " | ".join(map(str, cells)) + " |"


def tags(arguments: argparse.Namespace) -> None:
    """Print the table of tags."""
    tile = Bundle.open(arguments.bundle).spec.preprocess.tile_samples
    rows: list[tuple[str, Packets]] = [
        ("exact tags", time_tags(600)),
        ("jitter of 2 us", time_tags(600, jitter_s=2e-6)),
        ("jitter of 10 us", time_tags(600, jitter_s=10e-6)),
        ("drift of 5 ppm", time_tags(600, drift=5e-6)),
        ("jitter of 2 us, drift of 5 ppm", time_tags(600, 2e-6, 5e-6)),
        ("a packet of 200 lost", time_tags(600, lost_every=200)),
        ("the same, jitter of 2 us", time_tags(600, 2e-6, lost_every=200)),
        ("a packet of 20 lost", time_tags(600, lost_every=20)),
        ("hops of 4 tiles", hops(8, 4 * tile)),
        ("hops of 1.5 tiles", hops(12, 3 * tile // 2)),
        ("hops of 0.1 tile", hops(50, tile // 10)),
        ("hops of 4,000 samples", hops(500, 4000)),
    ]
    sys.stdout.write(
        "| stream | full tiles due | full | partial | samples in tiles | gaps | samples lost | retunes | warnings |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
    )
    for name, packets in rows:
        sys.stdout.write(tags_row(name, arguments.bundle, packets) + "\n")


def live(bundle: Path, rate_hz: float, delay: Callable[[int], float], **options: Any) -> tuple[Any, Any]:
    """A flowgraph of noise at a rate into a classifier whose engine takes `delay(tiles)` seconds; not yet started."""

    class Engine(FakeEngine):
        def run(self, inputs: Any) -> Any:
            time.sleep(delay(len(next(iter(inputs.values())))))
            return super().run(inputs)

    top = gr.top_block()
    classifier = wavesfm.classifier(str(bundle), sample_rate=rate_hz, gate_db=-1, **options)
    classifier._pipeline.engine = Engine(classifier._pipeline.bundle)
    top.connect(
        blocks.vector_source_c(noise(1 << 22), True), blocks.throttle(gr.sizeof_gr_complex, rate_hz), classifier
    )
    return top, classifier


def overload(arguments: argparse.Namespace) -> None:
    """Print the lag of the predictions where the engine makes half of the tiles."""
    tile = Bundle.open(arguments.bundle).spec.preprocess.tile_samples
    sys.stdout.write(
        "| stream, MS/s | max_age_s | tiles in | inferred | dropped | of these too old | lag p50 / p99, s |\n"
        "|---|---|---|---|---|---|---|\n"
    )
    for rate_hz in (2e6, 20e6):
        for max_age_s in (0.0, 0.5):
            tile_s = 2 * tile / rate_hz  # an engine of half the rate
            options = {"policy": "drop_oldest", "max_age_s": max_age_s}
            top, classifier = live(arguments.bundle, rate_hz, lambda n, tile_s=tile_s: n * tile_s, **options)
            sink = LatencySink()
            top.msg_connect((classifier, "predictions"), (sink, "in"))
            top.start()
            time.sleep(arguments.seconds / 2)
            sink.count = 0  # the queue has filled
            time.sleep(arguments.seconds / 2)
            lag, status = sink.percentiles(), classifier.status()
            top.stop()
            top.wait()
            cells = [
                rate_hz / 1e6,
                max_age_s,
                status["tiles_in"],
                status["inferred"],
                status["dropped"],
                status["too_old"],
            ]
            cells.append(f"{lag['p50']:.2f} / {lag['p99']:.2f}" if lag else "none came")
            sys.stdout.write("| " + " | ".join(map(str, cells)) + " |\n")
            sys.stdout.flush()


class SlowReader(gr.basic_block):  # type: ignore[misc]
    """Takes a set time for each message."""

    def __init__(self, delay_s: float) -> None:
        gr.basic_block.__init__(self, "slow_reader", [], [])
        self.delay_s, self.count = delay_s, 0
        self.message_port_register_in(pmt.intern("in"))
        self.set_msg_handler(pmt.intern("in"), self.handle)

    def handle(self, message: Any) -> None:
        """Take one message."""
        self.count += 1
        time.sleep(self.delay_s)


def reader(arguments: argparse.Namespace) -> None:
    """Print memory and messages over time where 44 predictions come in a second and the reader takes 10."""
    top, classifier = live(arguments.bundle, 20e6, lambda n: 0.0, policy="drop_oldest")
    slow = SlowReader(0.1)
    top.msg_connect((classifier, "predictions"), (slow, "in"))
    top.start()
    sys.stdout.write("| s | predictions | taken by the reader | dropped | memory, MB |\n|---|---|---|---|---|\n")
    began_s, every_s = time.monotonic(), arguments.seconds / 6
    for row in range(7):
        time.sleep(max(0.0, began_s + max(2.0, row * every_s) - time.monotonic()))
        status = classifier.status()
        cells = [f"{time.monotonic() - began_s:.0f}", status["inferred"], slow.count, status["messages_dropped"]]
        sys.stdout.write("| " + " | ".join(map(str, [*cells, round(resident_bytes() / 1e6)])) + " |\n")
        sys.stdout.flush()
    stopped_s = time.monotonic()
    top.stop()
    top.wait()
    sys.stdout.write(f"\nstop took {time.monotonic() - stopped_s:.2f} s\n")


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=("tags", "overload", "reader"))
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each flowgraph runs")
    arguments = parser.parse_args()
    try:
        {"tags": tags, "overload": overload, "reader": reader}[arguments.table](arguments)
    except WavesfmError as error:
        sys.stderr.write(f"live_faults: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
