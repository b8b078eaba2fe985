# SPDX-License-Identifier: GPL-3.0-or-later
"""Engines that change while a flowgraph runs: all is classified, `status` says it, and each stop frees them."""

from __future__ import annotations

import gc
import threading

import pytest
from gnuradio import blocks, gr, wavesfm
from gnuradio.wavesfm.pdus import slot_to_pmt
from support import tiny_grids
from support.flowgraphs import Collector, EndlessSource, accounts_close, finish, vector_source
from support.ofdm_graphs import Estimated
from support.waiting import LONG_S, until
from wavesfm_core.errors import ConfigurationError, EngineError
from wavesfm_core.types import Slot

TILE = 2048
GPU = {"device": "tensorrt", "precision": "fp16", "device_id": 1}
GPU_ENGINE = "tensorrt fp16 on GPU 1"
NO_MEMORY = EngineError("compiler", "plan", "no memory", "some")
OPTIONS = {"gate_db": -1, "batch_tiles": 2, **GPU}


def made(block):
    """The block, once its GPU's engine is made or refused."""
    block._pipeline.engine.engine._thread.join(LONG_S)
    return block


@pytest.fixture()
def live(fake_bundle, tone):
    """live(): a running flowgraph, at most 244 tiles a second, until `.endless.enough` is set."""
    graphs = []

    def run():
        source = EndlessSource(tone(-0.2, TILE))
        throttle = blocks.throttle(gr.sizeof_gr_complex, 500e3)
        graphs.append(Collector(throttle, wavesfm.classifier(str(fake_bundle), **OPTIONS)))
        graphs[-1].top.connect(source, throttle)
        graphs[-1].endless = source  # GNU Radio owns only its C++ side
        graphs[-1].top.start()
        return graphs[-1]

    yield run
    for graph in graphs:
        graph.top.stop()
        finish(graph.top)


def starts_follow(graph):
    """Whether each prediction begins where the one before ended."""
    starts = [prediction["start_sample"] for prediction in graph.predictions]
    return starts == [TILE * i for i in range(len(starts))]


def test_a_switch_while_the_stream_runs_loses_no_tile(live, standby):
    allow = threading.Event()
    opened = standby(allow=allow)
    try:
        graph = live()
        ((cpu, gpu),) = opened
        until(lambda: len(cpu.calls) > 3)
        (started,) = graph.status("started")
        assert started["engine"] == "cpu engine (the GPU's engine is being compiled)"
        assert graph.status("engine") == []
    finally:
        allow.set()
    until(lambda: len(gpu.calls) > 3)
    until(lambda: graph.status("engine"))
    (said,) = graph.status("engine")
    assert (said["from"], said["to"], graph.classifier.engine) == ("cpu engine", GPU_ENGINE, GPU_ENGINE)
    assert "golden outputs" in said["why"]
    graph.endless.enough.set()
    finish(graph.top)
    tiles = graph.endless.repeated
    (finished,) = graph.status("finished")
    assert accounts_close(finished) and (finished["inferred"], finished["engine_failures"]) == (tiles, 0)
    assert starts_follow(graph) and len(graph.predictions) == tiles
    assert sum(cpu.calls) + sum(gpu.calls[1:]) == tiles  # the first was the golden tiles


def test_one_that_fails_while_running_costs_no_tile(fake_bundle, standby, tone):
    opened = standby(failures={3})
    graph = Collector(vector_source(tone(-0.2, 20 * TILE)), made(wavesfm.classifier(str(fake_bundle), **OPTIONS))).run()
    ((cpu, gpu),) = opened
    assert len(gpu.calls) == 4 and cpu.calls
    (finished,) = graph.status("finished")
    assert (finished["inferred"], finished["failed"], finished["engine_failures"]) == (20, 0, 1)
    assert starts_follow(graph) and len(graph.predictions) == 20
    assert [(said["from"], said["to"]) for said in graph.status("engine")] == [
        ("cpu engine", GPU_ENGINE),
        (GPU_ENGINE, "cpu engine"),
    ]
    assert "scripted failure" in graph.status("engine")[1]["why"]


def test_one_that_cannot_be_made_is_said_while_the_stream_runs(live, standby):
    allow = threading.Event()
    standby(refused=NO_MEMORY, allow=allow)
    try:
        graph = live()
        until(lambda: graph.predictions)
    finally:
        allow.set()
    until(lambda: graph.status("engine"))
    (said,) = graph.status("engine")
    assert said["from"] == said["to"] == "cpu engine" and "no memory" in said["why"]
    before = len(graph.predictions)
    until(lambda: len(graph.predictions) > before)
    assert graph.classifier.status()["engine_failures"] == 1


def test_one_that_could_not_be_made_before_the_start_is_in_started(fake_bundle, standby, tone):
    standby(refused=NO_MEMORY)
    graph = Collector(vector_source(tone(-0.2, TILE)), made(wavesfm.classifier(str(fake_bundle), **OPTIONS))).run()
    (started,) = graph.status("started")
    assert "no memory" in started["engine"] and started["engine"].startswith("cpu engine (")
    assert graph.status("engine") == [] and graph.status("finished")[0]["engine_failures"] == 1


def test_the_engine_stays_open_over_restarts_and_is_closed_when_it_rests(fake_bundle, standby, tone, monkeypatch):
    monkeypatch.setattr("gnuradio.wavesfm.idle_engine.IDLE_S", 3600.0)
    opened = standby()
    classifier = wavesfm.classifier(str(fake_bundle), **OPTIONS)
    graph = Collector(vector_source(tone(-0.2, 4 * TILE)), made(classifier))
    for run in range(1, 4):
        if run == 3:
            monkeypatch.setattr("gnuradio.wavesfm.idle_engine.IDLE_S", 0.01)
        graph.source.rewind()
        graph.run()
        assert len(opened) == 1
    ((cpu, gpu),) = opened
    until(lambda: cpu.closed and gpu.closed)
    graph.source.rewind()
    graph.run()
    assert len(opened) == 2
    assert [said["inferred"] for said in graph.status("finished")] == [4, 4, 4, 4]
    assert [(p["run"], p["sequence"]) for p in graph.predictions] == [(1 + i // 4, i) for i in range(16)]


def test_a_block_that_is_gone_closes_its_engine(fake_bundle, fake_engine, tone):
    opened = fake_engine()
    classifier = wavesfm.classifier(str(fake_bundle))
    Collector(vector_source(tone(-0.2, TILE)), classifier).run()
    (engine,) = opened
    assert not engine.closed
    del classifier
    until(lambda: gc.collect() is not None and engine.closed)


def test_classifiers_of_one_bundle_share_one_engine(fake_bundle, fake_engine, tone):
    opened = fake_engine(delay_s=0.005)
    classifiers = [wavesfm.classifier(str(fake_bundle)) for _ in range(2)]
    other = wavesfm.classifier(str(fake_bundle), threads=1)
    graphs = [Collector(vector_source(tone(-0.2, 40 * TILE)), classifier) for classifier in classifiers]
    for graph in graphs:
        graph.top.start()
    for graph in graphs:
        finish(graph.top)
    assert len(opened) == 2 and not opened[1].calls and other is not None
    assert sum(opened[0].calls) == 80
    assert all(starts_follow(graph) and len(graph.predictions) == 40 for graph in graphs)


def test_the_channel_estimator_says_the_same(standby, tmp_path):
    spec = tiny_grids.SMALL
    bundle = str(tiny_grids.make_grid_bundle(tmp_path / "b"))
    grids = tiny_grids.received(spec, tiny_grids.paths(spec, 5), 15.0)
    pdus = [slot_to_pmt(Slot(grid, 1000 * i, 999), spec) for i, grid in enumerate(grids)]
    opened = standby(failures={2})
    estimator = wavesfm.channel_estimator(bundle, batch_slots=1, back_off=False, **GPU)
    graph = Estimated(pdus, made(estimator)).run()
    ((_, gpu),) = opened
    assert len(gpu.calls) == 3
    assert graph.status("started")[0]["engine"]
    assert [(said["from"], said["to"]) for said in graph.status("engine")] == [
        ("cpu engine", GPU_ENGINE),
        (GPU_ENGINE, "cpu engine"),
    ]
    (finished,) = graph.status("finished")
    assert (finished["estimated"], finished["failed"], finished["engine_failures"]) == (5, 0, 1)
    assert estimator.engine.startswith("cpu engine (the GPU's engine failed")
    assert {facts["method"] for facts, _ in graph.grids("channel")} == {"model"}


@pytest.mark.parametrize("wrong", [{"precision": "f16"}, {"device_id": -1}, {"device": "cpu", "precision": "fp16"}])
def test_wrong_parameters_of_the_engine_are_refused_at_construction(wrong, fake_bundle, tmp_path):
    grids = tiny_grids.make_grid_bundle(tmp_path / "b")
    for make, bundle in ((wavesfm.classifier, fake_bundle), (wavesfm.channel_estimator, grids)):
        with pytest.raises(ConfigurationError, match=list(wrong)[-1]):
            make(str(bundle), **wrong)
