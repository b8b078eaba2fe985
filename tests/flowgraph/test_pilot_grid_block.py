# SPDX-License-Identifier: GPL-3.0-or-later
"""The pilot grid in real flowgraphs: grids as SlotStream cuts them, tags, lost sync, bad antennas, the end."""

from __future__ import annotations

import numpy as np
import pmt
import pytest
from gnuradio import blocks, gr, wavesfm
from gnuradio.wavesfm.pdus import slots_from_pmt
from support.flowgraphs import ChunkSource, finish, run, rx_time, vector_source
from support.ofdm_graphs import Ports, channels, numerology, write_numerology
from wavesfm_core.channel.slots import SlotStream
from wavesfm_core.channel.uplink import UplinkSource
from wavesfm_core.errors import ConfigurationError, InputError

SPEC = numerology()
N = SPEC.slot_samples


@pytest.fixture()
def spec_file(tmp_path):
    return write_numerology(SPEC, tmp_path / "numerology.json")


def uplink(count, snr_db=20.0, seed=0):
    """So many slots, complex64 [A, count * N]."""
    source = UplinkSource(SPEC, channels(SPEC, 20), snr_db, seed)
    return np.concatenate([source.slot().samples for _ in range(count)], axis=1)


def noise(count, seed=9):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(SPEC.antennas, count, 2)).astype(np.float32).view(np.complex64)[..., 0]


def marks(*offsets):
    return [(int(offset), "slot_start", pmt.PMT_T) for offset in offsets]


class Gridded(Ports):
    """A flowgraph of one source for each antenna -> ofdm_pilot_grid; tags by antenna."""

    def __init__(self, samples, block, tags=(), source=vector_source):
        self.top = gr.top_block()
        self.block, self.sources = block, []  # GNU Radio does not keep Python's blocks alive
        for antenna, stream in enumerate(samples):
            self.sources.append(source(np.asarray(stream), tags[antenna] if antenna < len(tags) else []))
            self.top.connect(self.sources[-1], (block, antenna))
        super().__init__(self.top, block, "grids", "status")

    def run(self):
        run(self.top)
        return self

    @property
    def starts(self):
        return [facts["start_sample"] for facts, _ in self.grids("grids")]

    @property
    def finished(self):
        (finished,) = self.status("finished")
        return finished


def samples_close(said):
    return said["samples_in"] == said["slots"] * N + said["samples_skipped"] + said["samples_pending"]


@pytest.mark.parametrize("sync", ["tag", "pilots"])
@pytest.mark.parametrize(("most", "seed"), [(7, 1), (300, 2), (8000, 3)])
def test_random_chunks_give_what_a_slot_stream_cuts(sync, most, seed, spec_file):
    samples = np.concatenate([noise(57), uplink(12), noise(30)], axis=1)
    stream = SlotStream(SPEC, sync)
    if sync == "tag":
        for start in range(57, 57 + 12 * N, N):
            stream.mark(start)
    expected = stream.push(samples) + stream.finish()
    tags = [marks(*range(57, 57 + 12 * N, N))] if sync == "tag" else []
    block = wavesfm.ofdm_pilot_grid(numerology=spec_file, sync=sync)
    graph = Gridded(samples, block, tags, lambda stream, own: ChunkSource(stream, most, seed, own)).run()
    found = graph.grids("grids")
    assert len(expected) >= 12
    assert [facts["start_sample"] for facts, _ in found] == [slot.start_sample for slot in expected]
    for (facts, grid), slot in zip(found, expected):
        assert grid.tobytes() == slot.grid.tobytes()
        assert (facts["n_samples"], facts["rate_hz"], facts["numerology"]) == (N, SPEC.rate_hz, SPEC.id)
        assert facts["sync_metric"] == slot.sync_metric
    assert graph.finished["slots"] == len(expected)
    assert samples_close(graph.finished)
    (started,) = graph.status("started")
    assert (started["sync"], started["numerology"], started["slot_samples"]) == (sync, SPEC.id, N)
    assert pmt.to_python(graph.messages("status")[-1])["kind"] == "finished"


def test_slots_that_end_together_may_be_one_message(spec_file):
    samples, tags = uplink(12), [marks(*range(0, 12 * N, N))]
    alone = Gridded(samples, wavesfm.ofdm_pilot_grid(numerology=spec_file), tags).run().messages("grids")
    together = Gridded(samples, wavesfm.ofdm_pilot_grid(numerology=spec_file, batch_pdus=True), tags).run()
    expected = [slot for message in alone for slot in slots_from_pmt(message, SPEC)]
    found = [slot for message in together.messages("grids") for slot in slots_from_pmt(message, SPEC)]
    assert len(together.messages("grids")) < len(alone) == len(expected) == len(found) == 12
    for one, other in zip(found, expected):
        assert (one.start_sample, one.n_samples, one.rate_hz) == (other.start_sample, other.n_samples, other.rate_hz)
        assert one.grid.tobytes() == other.grid.tobytes()


def test_the_tag_has_the_name_that_was_given_and_counts_on_the_first_stream(spec_file):
    tags = [[(N, "here", pmt.from_long(3))], marks(2 * N)]
    graph = Gridded(uplink(4), wavesfm.ofdm_pilot_grid(numerology=spec_file, slot_tag="here"), tags).run()
    assert graph.starts == [N]


def test_lost_sync_is_said_and_found_again(spec_file):
    samples = np.concatenate([uplink(20), noise(14 * N + 33), uplink(20, seed=1)], axis=1)
    graph = Gridded(samples, wavesfm.ofdm_pilot_grid(numerology=spec_file, sync="pilots")).run()
    assert [said["found"] for said in graph.status("sync")] == [True, False, True]
    finished = graph.finished
    assert (finished["lost_sync"], finished["resyncs"]) == (1, 1)
    assert set(range(0, 20 * N, N)) <= set(graph.starts)
    assert 34 * N + 33 + 19 * N in graph.starts
    assert samples_close(finished)


def test_sync_that_is_never_found_is_said_and_the_flowgraph_ends(spec_file):
    graph = Gridded(noise(30 * N), wavesfm.ofdm_pilot_grid(numerology=spec_file, sync="pilots")).run()
    assert graph.starts == []
    assert any("found no start" in said["text"] for said in graph.status("warning"))
    assert graph.finished["searching"]
    assert graph.finished["searches_failed"] > 10
    assert samples_close(graph.finished)


def test_nonfinite_samples_are_counted_and_said_once(spec_file):
    samples = uplink(5)
    samples[0, 3], samples[2, N + 5 : N + 7] = np.nan, np.inf
    graph = Gridded(samples, wavesfm.ofdm_pilot_grid(numerology=spec_file), [marks(*range(0, 5 * N, N))]).run()
    assert [facts["n_nonfinite"] for facts, _ in graph.grids("grids")] == [1, 2, 0, 0, 0]
    (warning,) = graph.status("warning")
    assert "NaN" in warning["text"]
    assert graph.finished["n_nonfinite"] == 3


def test_a_slot_of_zeros_is_said_and_the_next_ones_come(spec_file):
    samples = uplink(5)
    samples[:, N : 2 * N] = 0
    graph = Gridded(samples, wavesfm.ofdm_pilot_grid(numerology=spec_file), [marks(*range(0, 5 * N, N))]).run()
    assert graph.starts == [0, 2 * N, 3 * N, 4 * N]
    assert "all zero" in graph.status("warning")[0]["text"]
    assert graph.finished["slots_zero_pilots"] == 1


def test_streams_of_unequal_length_end_with_the_shortest_and_are_named(spec_file):
    samples = list(uplink(300))
    samples[1] = samples[1][: 6 * N + 10]
    graph = Gridded(samples, wavesfm.ofdm_pilot_grid(numerology=spec_file), [marks(*range(0, 300 * N, N))]).run()
    assert graph.starts == [index * N for index in range(6)]
    (warning,) = graph.status("warning")
    assert "unequal length: antenna 0 by" in warning["text"]
    assert "antenna 2 by" in warning["text"]
    assert graph.finished["samples_in"] == 6 * N + 10
    assert graph.finished["samples_unmatched"] > 0


def test_streams_of_equal_length_are_not(spec_file):
    graph = Gridded(uplink(30), wavesfm.ofdm_pilot_grid(numerology=spec_file), [marks(0)]).run()
    assert (graph.status("warning"), graph.finished["samples_unmatched"]) == ([], 0)


def test_another_rate_is_said_and_gives_no_grids_until_it_ends(spec_file):
    rate = [(0, "rx_rate", pmt.from_double(SPEC.rate_hz))]
    for antenna in (0, 2):
        wrong = [
            (2 * N, "rx_rate", pmt.from_double(2 * SPEC.rate_hz)),
            (5 * N, "rx_rate", pmt.from_double(SPEC.rate_hz)),
        ]
        tags = [[*marks(*range(0, 8 * N, N)), *rate], [], rate]
        tags[antenna] = tags[antenna] + wrong
        graph = Gridded(uplink(8), wavesfm.ofdm_pilot_grid(numerology=spec_file), tags).run()
        assert graph.starts == [index * N for index in (0, 1, 5, 6, 7)]
        (warning,) = graph.status("warning")
        assert f"antenna {antenna}: rate_hz: found 1.92e+06" in warning["text"]
        assert graph.finished["slots_refused"] == 3


def test_a_slot_that_began_at_a_wrong_rate_is_cut(spec_file):
    for antenna in (0, 1):
        tags = [marks(*range(0, 8 * N, N)), [], []]
        tags[antenna] = [
            *tags[antenna],
            (2 * N, "rx_rate", pmt.from_double(2 * SPEC.rate_hz)),
            (4 * N + N // 2, "rx_rate", pmt.from_double(SPEC.rate_hz)),
        ]
        graph = Gridded(uplink(8), wavesfm.ofdm_pilot_grid(numerology=spec_file), tags).run()
        assert graph.starts == [index * N for index in (0, 1, 5, 6, 7)]
        assert (graph.finished["slots_refused"], graph.finished["slots_cut"]) == (2, 1)


def test_times_of_tags_and_gaps(spec_file):
    tags = [
        (0, "rx_time", rx_time(100, 0.5)),
        (2 * N, "rx_time", rx_time(100, 0.5 + 2 * N / SPEC.rate_hz)),
        (3 * N + 9, "rx_time", rx_time(101, 0.25)),
    ]
    block = wavesfm.ofdm_pilot_grid(numerology=spec_file)
    graph = Gridded(uplink(8), block, [[*marks(*range(0, 8 * N, N)), *tags]]).run()
    assert graph.starts == [index * N for index in (0, 1, 2, 4, 5, 6, 7)]
    seconds = [facts["time"][0] - 100 + facts["time"][1] for facts, _ in graph.grids("grids")]
    expected = [0.5 + i * N / SPEC.rate_hz for i in range(3)]
    expected += [1.25 + (i * N - 3 * N - 9) / SPEC.rate_hz for i in range(4, 8)]
    np.testing.assert_allclose(seconds, expected, rtol=0, atol=1e-9)
    assert graph.finished["slots_cut"] == 1


def test_an_antenna_at_another_time_is_named_and_no_grids_come_until_it_agrees(spec_file):
    def at(sample, ahead=0):
        return (sample, "rx_time", rx_time(5, (sample + ahead) / SPEC.rate_hz))

    # antenna 1 loses 77 samples in slot 2, antennas 0 and 2 the same in slot 5: from there on they agree again
    tags = [
        [*marks(*range(0, 9 * N, N)), at(0), at(5 * N + 9, 77)],
        [at(0), at(2 * N + 5, 77), at(3 * N, 77)],
        [at(0), at(5 * N + 9, 77)],
    ]
    graph = Gridded(uplink(9), wavesfm.ofdm_pilot_grid(numerology=spec_file), tags).run()
    assert graph.starts == [index * N for index in (0, 1, 6, 7, 8)]
    (warning,) = graph.status("warning")
    assert f"antenna 1: the time of sample {2 * N + 5} is not antenna 0's" in warning["text"]
    assert (graph.finished["misaligned"], graph.finished["slots_refused"], graph.finished["slots_cut"]) == (1, 3, 1)
    assert graph.finished["fault"] == ""


def test_an_antenna_at_another_time_from_the_beginning_is_named_and_counted(spec_file):
    tags = [[*marks(0, N), (0, "rx_time", rx_time(5, 0.0))], [], [(0, "rx_time", rx_time(5, 0.001))]]
    graph = Gridded(uplink(2), wavesfm.ofdm_pilot_grid(numerology=spec_file), tags).run()
    (warning,) = graph.status("warning")
    assert "antenna 2: the time of sample 0" in warning["text"]
    assert graph.finished["misaligned"] == 1
    assert "antenna 2" in graph.finished["fault"]
    assert (graph.starts, graph.finished["slots_refused"]) == ([], 2)


def test_what_makes_grids_wrong_is_said(spec_file):
    samples = uplink(120)
    silent = samples.copy()
    silent[1] = 0
    turned = samples * np.exp(2j * np.pi * 2000 * np.arange(120 * N) / SPEC.rate_hz).astype(np.complex64)
    every = marks(*range(0, 120 * N, N))
    for streams, tags, text in (
        (silent, every, "pilots: found all zero in antenna 1"),
        (turned, every, "carrier offset: found "),
        (samples, [(0, "slot", pmt.PMT_T)], "sync: found no mark of a slot's start in "),
    ):
        graph = Gridded(streams, wavesfm.ofdm_pilot_grid(numerology=spec_file), [tags]).run()
        (warning,) = graph.status("warning")
        assert text in warning["text"]
        assert len(graph.starts) == (0 if tags is not every else 120)
        assert text in graph.finished["fault"]


def test_carrier_offset_is_taken_out(spec_file):
    samples = uplink(120)
    turned = samples * np.exp(2j * np.pi * 2000 * np.arange(120 * N) / SPEC.rate_hz).astype(np.complex64)
    block = wavesfm.ofdm_pilot_grid(numerology=spec_file, correct_cfo=True)
    graph = Gridded(turned, block, [marks(*range(0, 120 * N, N))]).run()
    assert graph.status("warning") == []
    assert graph.finished["cfo_hz"] == pytest.approx(2000, abs=60)
    stream = SlotStream(SPEC, correct_cfo=True)
    for start in range(0, 120 * N, N):
        stream.mark(start)
    for (_, grid), slot in zip(graph.grids("grids"), stream.push(turned)):
        np.testing.assert_array_equal(grid, slot.grid)


def test_tags_that_cannot_be_read_are_said_and_passed_over(spec_file):
    tags = [marks(0), [(10, "rx_rate", pmt.intern("fast"))]]
    graph = Gridded(uplink(1), wavesfm.ofdm_pilot_grid(numerology=spec_file), tags).run()
    (warning,) = graph.status("warning")
    assert "antenna 1: tag rx_rate at sample 10" in warning["text"]
    assert graph.starts == [0]


@pytest.mark.parametrize("time", [rx_time(0, -0.5), rx_time(5, 1e30), rx_time(2**64 - 1, 0.0)])
def test_a_time_that_no_grid_can_tell_is_passed_over(time, spec_file):
    tags = [[*marks(0, N, 2 * N), (N, "rx_time", time)]]
    graph = Gridded(uplink(3), wavesfm.ofdm_pilot_grid(numerology=spec_file), tags).run()
    (warning,) = graph.status("warning")
    assert f"antenna 0: tag rx_time at sample {N}" in warning["text"]
    assert graph.starts == [0, N, 2 * N]
    assert graph.finished["fault"] == ""


def test_a_fault_in_work_skips_what_follows_and_ends_cleanly(spec_file, monkeypatch):
    cut = SlotStream.cut

    def failing(self, streams, marks, arrived_s=None):
        if self.status()["samples_in"] >= 4 * N:
            raise ZeroDivisionError("scripted")
        return cut(self, streams, marks, arrived_s)

    monkeypatch.setattr(SlotStream, "cut", failing)
    block = wavesfm.ofdm_pilot_grid(numerology=spec_file)
    graph = Gridded(uplink(300), block, [marks(*range(0, 300 * N, N))]).run()  # more than a buffer holds
    (error,) = graph.status("error")
    assert "ZeroDivisionError: scripted" in error["text"]
    assert graph.finished["samples_in"] == 300 * N
    assert "scripted" in graph.finished["fault"]
    assert 4 <= len(graph.starts) < 300


def test_an_empty_stream_and_a_second_run(spec_file):
    block = wavesfm.ofdm_pilot_grid(numerology=spec_file)
    graph = Gridded(np.zeros((3, 0), np.complex64), block).run()
    assert graph.finished["samples_in"] == 0
    graph.top.disconnect_all()
    graph = Gridded(uplink(3), block, [marks(0, N, 2 * N)]).run()
    assert graph.starts == [0, N, 2 * N]


def test_a_flowgraph_that_is_stopped_ends_at_once(spec_file):
    top, block = gr.top_block(), wavesfm.ofdm_pilot_grid(numerology=spec_file, sync="pilots")
    for antenna, stream in enumerate(uplink(5)):
        top.connect(blocks.vector_source_c(stream.tolist(), True), (block, antenna))
    top.start()
    top.stop()
    finish(top)


@pytest.mark.parametrize(
    ("parameters", "error", "field"),
    [
        ({"sync": "luck"}, ConfigurationError, "sync"),
        ({"slot_tag": ""}, ConfigurationError, "slot_tag"),
        ({"antennas": 2}, ConfigurationError, "antennas: found 2, expected 3"),
        ({"sample_rate": 1e6}, InputError, "rate_hz"),
        ({"numerology": ""}, ConfigurationError, "numerology"),
        ({"bundle": "/nowhere"}, Exception, "nowhere"),
    ],
)
def test_wrong_parameters_are_refused_at_construction(parameters, error, field, spec_file):
    with pytest.raises(error, match=field):
        wavesfm.ofdm_pilot_grid(**{"numerology": spec_file, **parameters})
