# SPDX-License-Identifier: GPL-3.0-or-later
"""rx_time, rx_freq and rx_rate in real flowgraphs: what a prediction says of its place, and where a new tile begins."""

from __future__ import annotations

import numpy as np
import pmt
import pytest
from gnuradio import gr_unittest, wavesfm
from support.flowgraphs import ChunkSource, Collector, rx_time, vector_source
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.preprocess.tile_stream import TileStream

TILE = 2048


class Tags(gr_unittest.TestCase):
    @pytest.fixture(autouse=True)
    def arrange(self, fake_bundle, tone):
        self.bundle, self.tone = str(fake_bundle), tone

    def classify(self, n_samples, tags, **parameters):
        graph = Collector(
            vector_source(self.tone(-0.2, n_samples), tags), wavesfm.classifier(self.bundle, **parameters)
        )
        return graph.run()

    def positions(self, graph):
        return [(p["start_sample"], p["n_samples"], p["rate_hz"], p["centre_hz"]) for p in graph.predictions]

    def test_without_tags_the_parameters_hold(self):
        graph = self.classify(2 * TILE, [], sample_rate=2e6, center_freq=868e6)
        self.assertEqual(self.positions(graph), [(0, TILE, 2e6, 868e6), (TILE, TILE, 2e6, 868e6)])
        self.assertEqual([p["time"] for p in graph.predictions], [None, None])

    def test_without_tags_and_parameters_nothing_is_known(self):
        self.assertEqual(self.positions(self.classify(TILE, [])), [(0, TILE, 0.0, None)])

    def test_tags_at_the_start_replace_the_parameters_and_cut_nothing(self):
        tags = [
            (0, "rx_rate", pmt.from_double(1e6)),
            (0, "rx_freq", pmt.from_double(433e6)),
            (0, "rx_time", rx_time(7, 0.5)),
        ]
        graph = self.classify(2 * TILE, tags, sample_rate=2e6, center_freq=868e6)
        self.assertEqual(self.positions(graph), [(0, TILE, 1e6, 433e6), (TILE, TILE, 1e6, 433e6)])
        times = [p["time"] for p in graph.predictions]
        self.assertEqual(times[0], (7, 0.5))
        self.assertEqual(times[1][0], 7)
        self.assertAlmostEqual(times[1][1], 0.5 + TILE / 1e6, 12)

    def test_a_retune_in_mid_tile_starts_a_new_tile_at_its_sample(self):
        tags = [(0, "rx_freq", pmt.from_double(100e6)), (3001, "rx_freq", pmt.from_double(101e6))]
        graph = self.classify(3001 + TILE, tags)
        partial = (3001 - TILE) // 64 * 64
        self.assertEqual(
            self.positions(graph), [(0, TILE, 0, 100e6), (TILE, partial, 0, 100e6), (3001, TILE, 0, 101e6)]
        )
        self.assertEqual([p["partial"] for p in graph.predictions], [False, True, False])
        self.assertEqual(graph.status("finished")[0]["samples_skipped"], 3001 - TILE - partial)

    def test_a_change_of_rate_starts_a_new_tile_and_time_goes_on(self):
        tags = [
            (0, "rx_rate", pmt.from_double(1e6)),
            (0, "rx_time", rx_time(100, 0.999)),
            (TILE + 5, "rx_rate", pmt.from_double(4e6)),
        ]
        graph = self.classify(3 * TILE + 5, tags)
        self.assertEqual(
            self.positions(graph), [(0, TILE, 1e6, None), (TILE + 5, TILE, 4e6, None), (2 * TILE + 5, TILE, 4e6, None)]
        )
        seconds = [whole - 100 + fraction for whole, fraction in (p["time"] for p in graph.predictions)]
        first = 0.999 + (TILE + 5) / 1e6
        np.testing.assert_allclose(seconds, [0.999, first, first + TILE / 4e6], rtol=0, atol=1e-9)
        self.assertEqual(graph.predictions[1]["time"][0], 101)

    def test_the_same_values_again_cut_nothing(self):
        tags = []
        for offset in (0, 1000, 3000):
            tags += [
                (offset, "rx_freq", pmt.from_double(100e6)),
                (offset, "rx_rate", pmt.from_double(1e6)),
                (offset, "rx_time", rx_time(5, offset / 1e6)),
            ]
        self.assertEqual(
            self.positions(self.classify(2 * TILE, tags)), [(0, TILE, 1e6, 100e6), (TILE, TILE, 1e6, 100e6)]
        )

    def test_a_gap_in_time_starts_a_new_tile(self):
        tags = [
            (0, "rx_rate", pmt.from_double(1e6)),
            (0, "rx_time", rx_time(5, 0.0)),
            (1000, "rx_time", rx_time(6, 0.25)),
        ]
        graph = self.classify(1000 + TILE, tags)
        self.assertEqual([p["start_sample"] for p in graph.predictions], [0, 1000])
        self.assertEqual([p["time"] for p in graph.predictions], [(5, 0.0), (6, 0.25)])

    def test_a_rate_that_is_an_integer_is_read(self):
        graph = self.classify(TILE, [(0, "rx_rate", pmt.from_long(1000000))])
        self.assertEqual(self.positions(graph), [(0, TILE, 1e6, None)])

    def test_tags_that_cannot_be_read_are_said_and_passed_over(self):
        tags = [
            (10, "rx_rate", pmt.intern("fast")),
            (20, "rx_rate", pmt.from_double(-1.0)),
            (30, "rx_freq", pmt.from_double(float("nan"))),
            (40, "rx_time", pmt.from_double(1.0)),
            (50, "burst", pmt.PMT_T),
        ]
        graph = self.classify(2 * TILE, tags)
        self.assertEqual(self.positions(graph), [(0, TILE, 0, None), (TILE, TILE, 0, None)])
        said = [status["text"] for status in graph.status("warning")]
        places = [("rx_rate", 10), ("rx_rate", 20), ("rx_freq", 30), ("rx_time", 40)]
        self.assertEqual([text.split(":")[0] for text in said], [f"tag {key} at sample {at}" for key, at in places])


@pytest.mark.parametrize("seed", range(6))
def test_random_retunes_in_random_chunks_cut_what_the_tile_stream_cuts(seed, fake_bundle, tone):
    rng = np.random.default_rng(seed)
    samples = tone(-0.2, 15 * TILE + 77, seed=seed)
    offsets = sorted(rng.choice(len(samples), 8, replace=False).tolist())
    frequencies = (1e8 + 1e6 * np.arange(8)).tolist()
    tags = [(offset, "rx_freq", pmt.from_double(hz)) for offset, hz in zip(offsets, frequencies)]

    stream, tiles, done = TileStream(Bundle.open(fake_bundle).spec.preprocess), [], 0
    for offset, hz in zip(offsets, frequencies):
        tiles += stream.push(samples[done:offset]) + stream.retune(centre_hz=hz)
        done = offset
    tiles += stream.push(samples[done:]) + stream.finish()

    graph = Collector(ChunkSource(samples, 3000, seed, tags), wavesfm.classifier(str(fake_bundle))).run()
    found = [(p["start_sample"], p["n_samples"], p["centre_hz"], p["partial"]) for p in graph.predictions]
    assert found == [(tile.start_sample, tile.n_samples, tile.centre_hz, tile.partial) for tile in tiles]
    assert graph.status("finished")[0]["samples_skipped"] == stream.samples_skipped
