# SPDX-License-Identifier: GPL-3.0-or-later
"""A classifier whose engine is a real Triton server: predictions, reports and accounts, also after the server died."""

from __future__ import annotations

import pytest
from gnuradio import wavesfm
from support import triton_server
from support.flowgraphs import Collector, accounts_close, vector_source
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.engines.kserve.repository import export_repository

pytestmark = pytest.mark.skipif(bool(triton_server.MISSING), reason=f"not installed: {triton_server.MISSING}")
TILE = 2048


def test_a_classifier_on_a_server_and_after_the_server_died(fake_bundle, tone, tmp_path):
    export_repository(Bundle.open(fake_bundle), tmp_path / "repository")
    samples = tone(-0.2, 6 * TILE)
    with triton_server.running(tmp_path, tmp_path / "repository") as server:
        classifier = wavesfm.classifier(
            str(fake_bundle), device=server.device("fake", "http", "&timeout_s=600"), gate_db=None
        )
        classifier._pipeline.engine.engine._thread.join()  # the server's model is verified
        graph = Collector(vector_source(samples), classifier).run()
        assert [p["label"] for p in graph.predictions] == ["left"] * 6
        finished = graph.status("finished")[0]
        assert accounts_close(finished) and (finished["inferred"], finished["engine_failures"]) == (6, 0)
        assert finished["remote"]["requests"] >= 3 and finished["remote"]["failures"] == 0
        assert graph.status("engine")[-1]["to"].startswith("kserve://127.0.0.1:")
        server.kill()
        graph.source.rewind()
        graph.run()
        assert [p["label"] for p in graph.predictions] == ["left"] * 12
        finished = graph.status("finished")[-1]
        assert accounts_close(finished) and (finished["inferred"], finished["failed"]) == (6, 0)
        assert finished["engine_failures"] == 1 and finished["remote"]["failures"] >= 1
        assert "the server failed" in graph.status("engine")[-1]["why"]
