# SPDX-License-Identifier: GPL-3.0-or-later
"""The simulated uplink, and the whole chain behind it: samples to h, by tag and by pilots, as offline to the bit."""

from __future__ import annotations

import time

import numpy as np
import pmt
import pytest
from gnuradio import blocks, digital, gr, wavesfm
from support import tiny_grids
from support.flowgraphs import finish, run
from support.ofdm_graphs import Ports, channels, numerology, write_numerology
from support.waiting import until
from wavesfm_core.channel.combining import error_vector_magnitude
from wavesfm_core.channel.pipeline import ChannelPipeline
from wavesfm_core.channel.slots import SlotStream
from wavesfm_core.channel.uplink import UplinkSource, load_channels, save_channels
from wavesfm_core.errors import ConfigurationError, InputError

SPEC = numerology()
N, S = SPEC.slot_samples, SPEC.symbols
H = channels(SPEC, 30).astype(np.complex64)


@pytest.fixture()
def spec_file(tmp_path):
    return write_numerology(SPEC, tmp_path / "numerology.json")


@pytest.fixture()
def channels_file(tmp_path):
    save_channels(tmp_path / "channels.npz", H, SPEC)
    return str(tmp_path / "channels.npz")


def saved():
    """The channels as the file has them, in float16."""
    return H.view(np.float32).astype(np.float16).astype(np.float32).view(np.complex64)


def antennas_to(top, simulator, block):
    for antenna in range(SPEC.antennas):
        top.connect((simulator, antenna), (block, antenna))


def test_the_streams_are_those_of_the_source_with_tags_and_truth(channels_file):
    simulator = wavesfm.uplink_simulator(channels_file, snr_db=12, speed=0.5, seed=3, slots=40)
    top, sinks = gr.top_block(), [blocks.vector_sink_c() for _ in range(3)]
    for antenna, sink in enumerate(sinks):
        top.connect((simulator, antenna), sink)
    ports = Ports(top, simulator, "channel", "sent")
    run(top)
    source = UplinkSource(SPEC, saved(), 12, 3, 0.5)
    expected = [source.slot() for _ in range(40)]
    for antenna, sink in enumerate(sinks):
        samples = np.concatenate([slot.samples[antenna] for slot in expected])
        np.testing.assert_array_equal(np.array(sink.data(), np.complex64), samples)
        tags = [(tag.offset, pmt.symbol_to_string(tag.key), pmt.to_python(tag.value)) for tag in sink.tags()]
        assert [tag for tag in tags if tag[1] == "slot_start"] == [(i * N, "slot_start", i) for i in range(40)]
        assert [tag for tag in tags if tag[1] == "rx_rate"] == [(0, "rx_rate", SPEC.rate_hz)]
    for port, what in (("channel", "channel"), ("sent", "sent")):
        for index, (facts, grid) in enumerate(ports.grids(port)):
            np.testing.assert_array_equal(grid, getattr(expected[index], what))
            assert (facts["start_sample"], facts["n_samples"], facts["numerology"]) == (index * N, N, SPEC.id)
        assert len(ports.grids(port)) == 40


def test_one_simulator_runs_again_from_the_start(channels_file):
    simulator = wavesfm.uplink_simulator(channels_file, slots=3, slot_tag="")
    runs = []
    for _ in range(2):
        top, sink = gr.top_block(), blocks.vector_sink_c()
        top.connect((simulator, 0), sink)
        for antenna in (1, 2):
            top.connect((simulator, antenna), blocks.null_sink(gr.sizeof_gr_complex))
        run(top)
        runs.append(np.array(sink.data()))
        assert [pmt.symbol_to_string(tag.key) for tag in sink.tags()] == ["rx_rate"] * len(sink.tags())
        top.disconnect_all()
    assert len(runs[0]) == 3 * N
    np.testing.assert_array_equal(*runs)


def test_snr_and_speed_while_running_and_a_limit_of_slots(channels_file):
    simulator = wavesfm.uplink_simulator(channels_file, slots_per_s=200, snr_db=-20)
    top, block = gr.top_block(), blocks.vector_sink_c()
    probe = blocks.probe_signal_c()
    top.connect((simulator, 0), block)
    for antenna in (1, 2):
        top.connect((simulator, antenna), probe if antenna == 1 else blocks.null_sink(gr.sizeof_gr_complex))
    began = time.monotonic()
    top.start()
    until(lambda: len(block.data()) >= 5 * N)
    simulator.set_snr_db(60.0)
    simulator.set_speed(0.0)
    so_far = len(block.data())
    until(lambda: len(block.data()) >= so_far + 40 * N)
    top.stop()
    finish(top)
    passed_s = time.monotonic() - began
    power = np.abs(np.array(block.data())) ** 2
    assert power[: 5 * N].mean() > 50
    assert power[-2 * N :].mean() < 3
    assert len(power) / N <= 200 * passed_s + 2
    for setter, wrong in ((simulator.set_snr_db, float("nan")), (simulator.set_speed, -1)):
        with pytest.raises(ConfigurationError):
            setter(wrong)


def test_pilots_of_another_numerology_and_another_grid(channels_file, tmp_path):
    other = numerology(pilot_quadrants="3" * 48)
    name = write_numerology(other, tmp_path / "other.json")
    simulator = wavesfm.uplink_simulator(channels_file, numerology=name, slots=1)
    assert simulator._spec == other
    wider = write_numerology(numerology(antennas=4), tmp_path / "wider.json")
    with pytest.raises(InputError, match="antennas"):
        wavesfm.uplink_simulator(channels_file, numerology=wider)


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"channels": ""}, "channels"),
        ({"slots": -1}, "slots"),
        ({"slots_per_s": -1}, "slots_per_s"),
        ({"speed": -1}, "speed"),
        ({"snr_db": float("nan")}, "snr_db"),
        ({"antennas": 4}, "antennas: found 4, expected 3"),
    ],
)
def test_wrong_parameters_are_refused_at_construction(parameters, field, channels_file):
    with pytest.raises(ConfigurationError, match=field):
        wavesfm.uplink_simulator(**{"channels": channels_file, **parameters})


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(InputError, match="nowhere"):
        wavesfm.uplink_simulator(str(tmp_path / "nowhere.npz"))


class Chain(Ports):
    """uplink_simulator -> ofdm_pilot_grid -> channel_estimator -> GNU Radio's equaliser, with what each says."""

    def __init__(self, channels_file, spec_file, sync, **simulated):
        self.top = gr.top_block()
        self.simulator = wavesfm.uplink_simulator(channels_file, seed=1, **simulated)
        self.grid = wavesfm.ofdm_pilot_grid(numerology=spec_file, sync=sync)
        self.estimator = wavesfm.channel_estimator(numerology=spec_file)
        self.equaliser = digital.ofdm_frame_equalizer_vcvc(
            digital.ofdm_equalizer_static(SPEC.fft_size, [SPEC.frequencies.tolist()]).base(), 0, "", False, 1
        )
        antennas_to(self.top, self.simulator, self.grid)
        self.top.msg_connect((self.grid, "grids"), (self.estimator, "grids"))
        self.sink = blocks.vector_sink_c(SPEC.fft_size)
        self.top.connect((self.estimator, 0), self.equaliser, self.sink)
        self.truth = Ports(self.top, self.simulator, "channel", "sent")
        self.grids_said = Ports(self.top, self.grid, "grids", "status")
        super().__init__(self.top, self.estimator, "channel", "status")

    def equalised(self):
        """By slot: complex64 [slots, S, F]."""
        vectors = np.array(self.sink.data(), np.complex64).reshape(-1, S, SPEC.fft_size)
        return vectors[..., SPEC.frequencies + SPEC.fft_size // 2]


@pytest.mark.parametrize("sync", ["tag", "pilots"])
def test_the_chain_gives_the_same_h_as_offline_and_equalises(sync, channels_file, spec_file):
    chain = Chain(channels_file, spec_file, sync, slots=60, snr_db=25)
    run(chain.top)
    source = UplinkSource(SPEC, saved(), 25, 1)
    sent = [source.slot() for _ in range(60)]
    stream = SlotStream(SPEC, sync)
    if sync == "tag":
        for start in range(0, 60 * N, N):
            stream.mark(start)
    slots = stream.push(np.concatenate([slot.samples for slot in sent], axis=1)) + stream.finish()
    expected = ChannelPipeline.of(SPEC).predict(slots)
    found = chain.grids("channel")
    assert [facts["start_sample"] for facts, _ in found] == [slot.start_sample for slot in slots]
    assert [channel.tobytes() for _, channel in found] == [estimate.channel.tobytes() for estimate in expected]
    assert len(found) >= 59

    starts = [facts["start_sample"] for facts, _ in found]
    aligned = [index for index, start in enumerate(starts) if start % N == 0]
    assert len(aligned) >= 59
    truth = {facts["start_sample"]: grid for facts, grid in chain.truth.grids("channel")}
    symbols = {facts["start_sample"]: grid for facts, grid in chain.truth.grids("sent")}
    error = [np.mean(np.abs(found[i][1] - truth[starts[i]]) ** 2) for i in aligned]
    assert 10 * np.log10(np.mean(error)) < -20
    equalised = chain.equalised()
    assert len(equalised) == len(found)
    wanted = np.stack([symbols[starts[i]] for i in aligned])
    assert error_vector_magnitude(equalised[aligned], wanted) < 0.06
    assert chain.status("finished")[0]["estimated"] == chain.grids_said.status("finished")[0]["slots"] == len(found)


@pytest.mark.parametrize(
    ("layout", "method"), [("least_squares", ""), ("image", "model"), ("least_squares", "lmmse"), ("image", "ls")]
)
def test_a_bundle_gives_live_what_it_gives_offline(layout, method, tmp_path):
    spec = tiny_grids.SMALL
    bundle = str(tiny_grids.make_grid_bundle(tmp_path / "b", layout=layout, covs=tiny_grids.covariances(spec)))
    save_channels(tmp_path / "channels.npz", tiny_grids.paths(spec, 5), spec)
    simulator = wavesfm.uplink_simulator(str(tmp_path / "channels.npz"), bundle, snr_db=15, slots=50)
    grid = wavesfm.ofdm_pilot_grid(bundle)
    estimator = wavesfm.channel_estimator(bundle, method=method, residual_enter=0)
    top = gr.top_block()
    for antenna in range(spec.antennas):
        top.connect((simulator, antenna), (grid, antenna))
    top.msg_connect((grid, "grids"), (estimator, "grids"))
    ports, grids = Ports(top, estimator, "channel", "status"), Ports(top, grid, "grids")
    run(top)

    source = UplinkSource(spec, load_channels(tmp_path / "channels.npz")[0], 15)
    stream = SlotStream(spec)
    slots = []
    for index in range(50):
        stream.mark(index * spec.slot_samples)
        slots += stream.push(source.slot().samples)
    assert [grid.tobytes() for _, grid in grids.grids("grids")] == [slot.grid.tobytes() for slot in slots]
    pipeline = ChannelPipeline.open(bundle, method or "model")
    expected = pipeline.predict(slots)
    found = ports.grids("channel")
    assert len(found) == 50
    for (facts, channel), estimate in zip(found, expected):
        np.testing.assert_allclose(channel, estimate.channel, rtol=0, atol=1e-5 * np.abs(estimate.channel).max())
        assert (facts["method"], facts["bundle_id"]) == (estimate.method, estimate.bundle_id)
        assert facts["snr_db"] == pytest.approx(estimate.snr_db, abs=1e-6)
        assert facts["residual"] == pytest.approx(estimate.residual, rel=1e-3, abs=1e-6)
    assert ports.status("started")[0]["bundle_id"] == pipeline.bundle.id


def test_a_chain_with_noise_alone_estimates_nothing_and_ends(channels_file, spec_file):
    chain = Chain(channels_file, spec_file, "pilots", slots=60, snr_db=-60)
    run(chain.top)
    assert chain.grids("channel") == []
    assert chain.grids_said.status("finished")[0]["searches_failed"] > 10


def test_a_chain_without_end_stops(channels_file, spec_file):
    chain = Chain(channels_file, spec_file, "tag", slots_per_s=500)
    chain.top.start()
    until(lambda: len(chain.sink.data()) >= 10 * S * SPEC.fft_size)
    chain.top.stop()
    finish(chain.top)
