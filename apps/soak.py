#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Play samples through a flowgraph and print as JSON: rates, accounts, latency, memory and processor time.

    apps/soak.py models/rf20-nano --rate 20e6 --seconds 600

Exit code 0 when every sample was classified at the asked rate, 1 when not, 2 for a wrong parameter.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pmt
from gnuradio import blocks, gr, wavesfm
from wavesfm_core.errors import WavesfmError

REPEATED_SAMPLES = 1 << 22
REACHED = 0.995  # of the asked rate: the accuracy of the throttle
SETTLED_S = 1.0  # the first batches are slower
FIRST_WITHIN_S = 120.0


LATENCY = pmt.intern("latency_s")


class LatencySink(gr.basic_block):  # type: ignore[misc]
    """Keeps the latency of every prediction, or channel of a PDU, 8 bytes each."""

    def __init__(self) -> None:
        gr.basic_block.__init__(self, "latency_sink", [], [])
        self.latencies_s = np.empty(1 << 16)
        self.count = 0
        self.message_port_register_in(pmt.intern("in"))
        self.set_msg_handler(pmt.intern("in"), self.handle)

    def handle(self, message: Any) -> None:
        """Take one message in; overwrites the oldest when full."""
        if pmt.is_uniform_vector(pmt.cdr(message)):
            message = pmt.car(message)
        found = pmt.to_python(pmt.dict_ref(message, LATENCY, pmt.from_double(0.0)))
        for latency_s in found if isinstance(found, list) else (found,):  # a list of a batch
            self.latencies_s[self.count % self.latencies_s.size] = latency_s
            self.count += 1

    def await_message(self) -> bool:
        """Wait until a message has come; returns whether one did within FIRST_WITHIN_S."""
        end_s = time.monotonic() + FIRST_WITHIN_S
        while not self.count and time.monotonic() < end_s:
            time.sleep(0.01)
        return self.count > 0

    def percentiles(self) -> dict[str, float]:
        """p50, p90, p99 and max in seconds; empty when nothing came."""
        seen = self.latencies_s[: min(self.count, self.latencies_s.size)]
        if not seen.size:
            return {}
        values = np.percentile(seen, [50, 90, 99, 100])
        return {name: round(float(value), 6) for name, value in zip(("p50", "p90", "p99", "max"), values)}


def write_scene(path: Path, seed: int = 0) -> None:
    """REPEATED_SAMPLES of complex64: noise at -60 dB, and bursts of many widths and powers above it."""
    rng = np.random.default_rng(seed)
    scene = rng.normal(scale=1e-3 / 2**0.5, size=(REPEATED_SAMPLES, 2)).astype(np.float32).view(np.complex64).ravel()
    for _ in range(60):
        length = int(2 ** rng.uniform(12, 19))
        start = int(rng.integers(0, REPEATED_SAMPLES - length))
        symbol_samples = int(2 ** rng.uniform(1, 7))
        symbols = rng.choice(np.exp(0.5j * np.pi * np.arange(4)), -(-length // symbol_samples))
        carrier = np.exp(2j * np.pi * rng.uniform(-0.4, 0.4) * np.arange(length))
        burst = np.repeat(symbols, symbol_samples)[:length] * carrier * 10 ** rng.uniform(-2.5, -1)
        scene[start : start + length] += burst.astype(np.complex64)
    scene.tofile(path)


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def cpu_seconds() -> dict[str, float]:
    """Processor seconds so far by thread name; threads of one name are added up."""
    seconds: dict[str, float] = defaultdict(float)
    for task in Path("/proc/self/task").iterdir():
        try:
            name, fields = (task / "stat").read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue  # the thread has just ended
        user, system = fields.split()[11:13]
        seconds[name] += (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return dict(seconds)


def soak(arguments: argparse.Namespace, scene: Path) -> dict[str, Any]:
    """Run the flowgraph and return the report."""
    top = gr.top_block()
    classifier = wavesfm.classifier(
        str(arguments.bundle),
        device=arguments.device,
        sample_rate=arguments.rate,
        policy=arguments.policy,
        threads=arguments.threads,
        max_age_s=arguments.max_age,
    )
    sink = LatencySink()
    source = blocks.file_source(gr.sizeof_gr_complex, str(scene), True)
    if arguments.rate > 0:
        throttle = blocks.throttle(gr.sizeof_gr_complex, arguments.rate)
        top.connect(source, throttle, classifier)
    else:
        top.connect(source, classifier)
    top.msg_connect((classifier, "predictions"), (sink, "in"))
    top.start()
    sink.await_message()
    time.sleep(SETTLED_S)
    began_s, before, used = time.monotonic(), classifier.status(), cpu_seconds()
    resident = []
    while (elapsed_s := time.monotonic() - began_s) < arguments.seconds:
        resident.append([round(elapsed_s, 1), resident_bytes()])
        time.sleep(min(arguments.every, arguments.seconds - elapsed_s))
    after, elapsed_s, used_after = classifier.status(), time.monotonic() - began_s, cpu_seconds()
    resident.append([round(elapsed_s, 1), resident_bytes()])
    top.stop()
    top.wait()
    return {
        "bundle_id": classifier.bundle_id,
        "engine": classifier.engine,
        "policy": arguments.policy,
        "rate_asked_hz": arguments.rate,
        "rate_hz": round((after["samples_in"] - before["samples_in"]) / elapsed_s),
        "seconds": round(elapsed_s, 1),
        "accounts": after,
        "latency_s": sink.percentiles(),
        "resident_bytes": resident,
        "cpu_of_one_core": {
            name: round((seconds - used.get(name, 0.0)) / elapsed_s, 3)
            for name, seconds in sorted(used_after.items(), key=lambda item: -item[1])
            if seconds - used.get(name, 0.0) > 0.005 * elapsed_s
        },
        "cores": len(os.sched_getaffinity(0)),
    }


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--rate", type=float, default=20e6, help="samples per second, 0 for as fast as it goes")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=30.0, help="seconds between readings of the memory")
    parser.add_argument("--policy", default="drop_newest", help="block, drop_oldest or drop_newest")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of an engine on the CPU, 0: the runtime's choice")
    parser.add_argument("--max-age", type=float, default=0.0, help="seconds after which a tile is dropped, 0: never")
    parser.add_argument("--recording", type=Path, help="complex float samples to repeat instead of a synthetic scene")
    arguments = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as directory:
            scene = arguments.recording or Path(directory, "scene.cf32")
            if arguments.recording is None:
                write_scene(scene)
            report = soak(arguments, scene)
    except WavesfmError as error:
        sys.stderr.write(f"soak: {error}\n")
        return 2
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    accounts = report["accounts"]
    kept_up = report["rate_hz"] >= REACHED * arguments.rate
    return int(bool(accounts["dropped"] or accounts["failed"] or accounts["fault"] or not kept_up))


if __name__ == "__main__":
    sys.exit(main())
