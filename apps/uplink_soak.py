#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Play a simulated OFDM uplink through samples, grids and channels, and print rates, latency and EVM as JSON.

    apps/uplink_soak.py models/chanest-nano --channels examples/uplink_umi_3mps.npz --rate 500 --seconds 60

The numbers: slots per second that got a channel, the model's engine alone in the same run, the processor time of a slot
with and without the engine's, the time from a slot's last sample to its channel, and (unless --no-evm) the error vector
magnitude of its symbols after combining all antennas with the method's channel, with least squares and with the true
one. Exit code 0 when every slot got its channel at the asked rate, 1 when not, 2 for a wrong parameter.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pmt
from gnuradio import blocks, gr, wavesfm
from soak import REACHED, SETTLED_S, LatencySink, cpu_seconds, resident_bytes
from wavesfm_core.bundle.bundle import bundle_inputs
from wavesfm_core.channel.combining import combine, error_vector_magnitude
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.channel.slots import make_demodulator
from wavesfm_core.channel.uplink import UplinkSource, load_channels
from wavesfm_core.errors import WavesfmError
from wavesfm_core.types import Slot

REPEATED_SLOTS = 44  # forward and back through the files of examples/
EVM_SLOTS = 440
EVM_SNR_DB = (-10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0)
BATCH = 8
ENGINE_S = 3.0


def render(uplink: UplinkSource) -> np.ndarray:
    """Samples complex64 [A, n] of REPEATED_SLOTS slots."""
    return np.concatenate([uplink.slot().samples for _ in range(REPEATED_SLOTS)], axis=1)


def slot_tags(slot_samples: int) -> list[Any]:
    """A tag `slot_start` at each slot."""
    tags = []
    for i in range(REPEATED_SLOTS):
        tag = gr.tag_t()
        tag.offset, tag.key, tag.value = i * slot_samples, pmt.intern("slot_start"), pmt.PMT_T
        tags.append(tag)
    return tags


def engine_alone(arguments: argparse.Namespace) -> dict[str, float]:
    """Slots/s and processor seconds a slot of the model's engine in batches of the estimator; nothing without one."""
    if arguments.method != "model":
        return {}
    pipeline = ChannelPipeline.open(arguments.bundle, "model", arguments.device, threads=arguments.threads)
    spec, engine = pipeline.bundle.spec, pipeline.engine
    tiles = np.random.default_rng(0).normal(size=(arguments.batch, *spec.preprocess.tile_shape)).astype(np.float32)
    inputs = bundle_inputs(spec, tiles, np.zeros(len(tiles)), np.zeros(len(tiles)))
    for _ in range(3):
        engine.run(inputs)
    began_s, used_s, runs = time.monotonic(), time.process_time(), 0
    while time.monotonic() - began_s < ENGINE_S:
        engine.run(inputs)
        runs += 1
    slots, elapsed_s = runs * len(tiles), time.monotonic() - began_s
    pipeline.close()
    return {
        "slots_per_s": round(slots / elapsed_s, 1),
        "processor_us_a_slot": round((time.process_time() - used_s) / slots * 1e6, 1),
    }


def soak(arguments: argparse.Namespace, uplink: UplinkSource) -> dict[str, Any]:
    """Run the flowgraph and return the report."""
    spec, bundle = uplink.spec, str(arguments.bundle)
    top, sink = gr.top_block(), LatencySink()
    alone = engine_alone(arguments)
    grid = wavesfm.ofdm_pilot_grid(bundle, sync=arguments.sync, batch_pdus=arguments.batch_pdus)
    estimator = wavesfm.channel_estimator(
        bundle,
        method=arguments.method,
        device=arguments.device,
        policy=arguments.policy,
        queue_slots=256,
        batch_slots=arguments.batch,
        threads=arguments.threads,
        batch_pdus=arguments.batch_pdus,
    )
    for antenna, samples in enumerate(render(uplink)):
        tags = slot_tags(spec.slot_samples) if antenna == 0 else []
        source = blocks.vector_source_c(samples, True, 1, tags)
        if antenna == 0:  # the grid takes as many samples of each stream, so that one throttle holds all
            throttle = blocks.throttle(gr.sizeof_gr_complex, arguments.rate * spec.slot_samples)
            top.connect(source, throttle, (grid, 0))
        else:
            top.connect(source, (grid, antenna))
    top.msg_connect((grid, "grids"), (estimator, "grids"))
    top.msg_connect((estimator, "channel"), (sink, "in"))
    top.start()
    sink.await_message()
    time.sleep(SETTLED_S)
    sink.count = 0
    began_s, before, used = time.monotonic(), estimator.status(), cpu_seconds()
    time.sleep(arguments.seconds)
    sink.await_message()  # also on a machine on which no slot was done in that time
    after, elapsed_s, used_after = estimator.status(), time.monotonic() - began_s, cpu_seconds()
    grids = grid.status()
    top.stop()
    top.wait()
    estimated = max(1, after["estimated"] - before["estimated"])
    rate = estimated / elapsed_s
    slot_us = 1e6 * (sum(used_after.values()) - sum(used.values())) / estimated
    return {
        "engine_alone": alone,
        "share_of_engine_alone": round(rate / alone["slots_per_s"], 3) if alone else None,
        "processor_us_a_slot": round(slot_us, 1),
        "processor_us_a_slot_outside_engine": round(slot_us - alone.get("processor_us_a_slot", 0.0), 1),
        "bundle_id": estimator.bundle_id,
        "method": after["method"],
        "sync": arguments.sync,
        "slots_per_s_asked": arguments.rate,
        "slots_per_s": round(rate, 1),
        "share_of_real_time": round(rate * spec.slot_samples / spec.rate_hz, 3),
        "seconds": round(elapsed_s, 1),
        "grids": grids,
        "accounts": after,
        "latency_s": sink.percentiles(),
        "resident_bytes": resident_bytes(),
        "cpu_of_one_core": {
            name: round((seconds - used.get(name, 0.0)) / elapsed_s, 3)
            for name, seconds in sorted(used_after.items(), key=lambda item: -item[1])
            if seconds - used.get(name, 0.0) > 0.005 * elapsed_s
        },
        "cores": len(os.sched_getaffinity(0)),
    }


def error_vectors(arguments: argparse.Namespace, uplink: UplinkSource) -> dict[str, dict[str, float]]:
    """Return the EVM by SNR and by the channel used for combining, over the symbols without pilots."""
    spec = uplink.spec
    bundle = str(arguments.bundle)
    pipelines = {
        name: ChannelPipeline.open(bundle, name, arguments.device) for name in dict.fromkeys((arguments.method, "ls"))
    }
    data = np.setdiff1d(np.arange(spec.symbols), spec.pilot_symbols)
    demodulator = make_demodulator(spec)
    table = {}
    for snr_db in EVM_SNR_DB:
        uplink.snr_db = snr_db
        equalised: dict[str, list[np.ndarray]] = {name: [] for name in (*pipelines, "true channel")}
        sent = []
        for _ in range(EVM_SLOTS // BATCH):
            slots = [uplink.slot() for _ in range(BATCH)]
            grids = [demodulator.demodulate(slot.samples) for slot in slots]
            channels = {"true channel": [slot.channel for slot in slots]}
            for name, pipeline in pipelines.items():
                answers = pipeline.predict([Slot(grid, 0, spec.slot_samples) for grid in grids])
                channels[name] = [answer.channel for answer in answers if not isinstance(answer, WavesfmError)]
            for name, found in channels.items():
                for grid, channel in zip(grids, found, strict=True):
                    symbols, gain = combine(grid, channel)
                    equalised[name].append((symbols / gain)[data])
            sent += [slot.sent[data] for slot in slots]
        table[f"{snr_db:g}"] = {
            name: round(error_vector_magnitude(np.stack(values), np.stack(sent)), 4)
            for name, values in equalised.items()
        }
    return table


def main() -> int:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--channels", type=Path, required=True, help="a file of examples/ or of save_channels")
    parser.add_argument("--rate", type=float, default=500.0, help="slots per second")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--method", default="model", help="model, lmmse, lmmse-tf, ls or ls-nearest")
    parser.add_argument("--sync", default="tag", help="tag or pilots")
    parser.add_argument("--snr", type=float, default=10.0, help="in dB, of the live part")
    parser.add_argument("--policy", default="drop_newest", help="block, drop_oldest or drop_newest")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of the engine, 0: the runtime's choice")
    parser.add_argument("--batch", type=int, default=32, help="slots of a batch")
    parser.add_argument("--batch-pdus", action="store_true", help="one message for several slots")
    parser.add_argument("--evm", action=argparse.BooleanOptionalAction, default=True, help="measure it, offline")
    arguments = parser.parse_args()
    try:
        spec = ChannelPipeline.open(arguments.bundle, "ls").spec
        uplink = UplinkSource(spec, load_channels(arguments.channels, spec)[0], arguments.snr)
        report = soak(arguments, uplink)
        if arguments.evm:
            report["evm"] = error_vectors(arguments, uplink)
    except WavesfmError as error:
        sys.stderr.write(f"uplink_soak: {error}\n")
        return 2
    sys.stdout.write(json.dumps(report, indent=1) + "\n")
    accounts = report["accounts"]
    return int(bool(accounts["dropped"] or accounts["failed"] or report["slots_per_s"] < REACHED * arguments.rate))


if __name__ == "__main__":
    sys.exit(main())
