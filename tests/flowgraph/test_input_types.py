# SPDX-License-Identifier: GPL-3.0-or-later
"""A classifier of integers gives the predictions of the same samples as complex floats."""

from __future__ import annotations

import numpy as np
import pmt
import pytest
from gnuradio import blocks, wavesfm
from support.flowgraphs import Collector, accounts_close, make_tags, vector_source
from wavesfm_core._kernels import to_complex64
from wavesfm_core.errors import ConfigurationError

TILE = 2048
TYPES = {
    "sc16": (np.int16, blocks.vector_source_s, "cs16", 20000),
    "sc8": (np.int8, blocks.vector_source_b, "cs8", 90),
}


def same(prediction):
    return {key: value for key, value in prediction.items() if key not in ("latency_s", "run", "sequence")}


def integers(samples, scale, dtype):
    """Interleaved I and Q, the largest part `scale`."""
    parts = samples.view(np.float32)
    return np.round(parts * (scale / np.abs(parts).max())).astype(dtype)


@pytest.mark.parametrize("name", TYPES)
def test_predictions_are_those_of_the_same_samples_as_floats(name, fake_bundle, tone):
    dtype, make_source, sample_format, scale = TYPES[name]
    samples = np.concatenate([tone(-0.2, 5 * TILE), tone(0.3, 4 * TILE + 700)])
    values = integers(samples, scale, dtype)
    tags = [(3 * TILE + 100, "rx_freq", pmt.from_double(433.92e6))]
    items = values.view(np.uint8) if name == "sc8" else values  # the source takes bytes
    source = make_source(items.tolist(), False, 2, make_tags(tags))
    options = {"sample_rate": 1e6, "device": "onnxruntime", "gate_db": None}
    raw = Collector(source, wavesfm.classifier(str(fake_bundle), input_type=name, **options)).run()
    plain = vector_source(to_complex64(values, sample_format), tags)
    floats = Collector(plain, wavesfm.classifier(str(fake_bundle), **options)).run()
    assert {p["label"] for p in raw.predictions} == {"left", "right"}
    assert {p["centre_hz"] for p in raw.predictions} == {None, 433.92e6}
    assert list(map(same, raw.predictions)) == list(map(same, floats.predictions))
    finished = raw.status("finished")[0]
    assert accounts_close(finished) and finished["samples_in"] == len(samples)


def test_an_unknown_type_is_refused(fake_bundle):
    with pytest.raises(ConfigurationError, match="input_type: found 'sc12', expected one of fc32, sc16, sc8"):
        wavesfm.classifier(str(fake_bundle), input_type="sc12")
