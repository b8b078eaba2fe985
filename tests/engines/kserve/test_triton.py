# SPDX-License-Identifier: GPL-3.0-or-later
"""A real Triton server answers as the local engine does; killed, slow or with another model it costs no batch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support import tiny_onnx, triton_server
from support.triton_server import TritonServer
from wavesfm_core.bundle.bundle import Bundle, bundle_inputs
from wavesfm_core.cli import main
from wavesfm_core.engines import open_engine
from wavesfm_core.engines.kserve.repository import RepositoryOptions, export_repository
from wavesfm_core.engines.shared import engine_failures, remote_accounts
from wavesfm_core.engines.standby import EngineChange, StandbyEngine
from wavesfm_core.engines.verify import replay_golden
from wavesfm_core.errors import BundleError, EngineError
from wavesfm_core.pipeline import Pipeline

pytestmark = pytest.mark.skipif(bool(triton_server.MISSING), reason=f"not installed: {triton_server.MISSING}")
PATIENT = "&timeout_s=600"


@pytest.fixture(scope="module")
def bundle(fake_bundle: Path) -> Bundle:
    return Bundle.open(fake_bundle)


@pytest.fixture(scope="module")
def server(bundle: Bundle, make_bundle: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server with the bundle's model as "fake", and other weights as "other" and other labels as "labels"."""
    folder = tmp_path_factory.mktemp("triton")
    repository = folder / "repository"
    export_repository(bundle, repository, RepositoryOptions(max_batch=4))
    other = Bundle.open(make_bundle(folder / "other", model=tiny_onnx.model(3, scale=1.5)))
    export_repository(other, repository, RepositoryOptions(name="other"))
    labels = Bundle.open(make_bundle(folder / "labels", labels=("noise", "a", "b", "c")))
    export_repository(labels, repository, RepositoryOptions(name="labels"))
    with triton_server.running(folder, repository) as started:
        yield started


@pytest.fixture()
def opened() -> Iterator[Callable[..., Any]]:
    """open_engine, with the engine closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *args, **options: stack.enter_context(contextlib.closing(open_engine(*args, **options)))


def batch(bundle: Bundle, n_tiles: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(n_tiles)
    return bundle_inputs(bundle.spec, rng.normal(size=(n_tiles, 1, 224, 224)), rng.uniform(1e5, 1e7, n_tiles))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_answers_are_those_of_the_local_engine(
    protocol: str, server: TritonServer, bundle: Bundle, opened: Callable[..., Any]
) -> None:
    address = server.device("fake", protocol, f"{PATIENT}&max_batch=4&fallback=off")
    engine, local = opened(bundle, address, precision="f32"), opened(bundle, "onnxruntime")
    assert replay_golden(bundle, engine).engine.startswith("kserve://127.0.0.1:")
    for n_tiles in (1, 2, 4, 9):
        inputs = batch(bundle, n_tiles)
        np.testing.assert_allclose(engine.run(inputs)["logits"], local.run(inputs)["logits"], rtol=0, atol=1e-5)
    accounts = remote_accounts(engine)
    requests = 1 + 1 + 1 + 1 + 1 + 3  # metadata, golden tiles, and batches of at most 4
    assert (accounts["requests"], accounts["retries"], accounts["failures"]) == (requests, 0, 0)
    assert accounts["seconds"] > 0
    engine.close()
    with pytest.raises(EngineError, match="closed engine"):
        engine.run(batch(bundle, 1))


def test_a_pipeline_classifies_on_the_server(server: TritonServer, bundle: Bundle, tone: Callable[..., Any]) -> None:
    samples = tone(-0.2, 5 * 2048)
    with contextlib.closing(Pipeline.open(bundle.path, server.device("fake", "http", PATIENT))) as pipeline:
        predictions = pipeline.classify(samples, 1e6)
        assert [each.label for each in predictions] == ["left"] * 5
        assert pipeline.engine.description.startswith("kserve://")


def test_the_command_shows_the_accounts(
    server: TritonServer,
    bundle: Bundle,
    tone: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    recording = tmp_path / "a_100M_1M.cf32"
    recording.write_bytes(tone(-0.2, 2048).tobytes())
    device = server.device("fake", "http", PATIENT)
    arguments = ["classify", recording, "--model", bundle.path, "--device", device, "--detect", "off"]
    monkeypatch.setattr("sys.argv", ["wavesfm", *map(str, arguments)])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        main()
    out = capsys.readouterr().out
    assert "on kserve://127.0.0.1:" in out and "retries 0, failures 0, seconds" in out


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("other", r"golden stage engine \(kserve://.*output logits: found a difference"),
        ("labels", r"kserve://.*/labels: output logits shape: found \(-1, 4\), expected \(-1, 3\)"),
        ("absent", r"kserve://.*/absent: request: found .*absent"),
    ],
)
def test_another_model_is_refused(
    protocol: str, model: str, message: str, server: TritonServer, bundle: Bundle
) -> None:
    with pytest.raises((BundleError, EngineError), match=message):
        open_engine(bundle, server.device(model, protocol, PATIENT))


def test_a_killed_server_costs_no_batch_and_is_asked_again_later(
    server: TritonServer, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wavesfm_core import engines

    monkeypatch.setattr(engines, "SERVER", engines.SERVER._replace(reopen_s=0.05))
    changes: list[EngineChange] = []
    inputs, expected = batch(bundle, 3), tiny_onnx.oracle(*batch(bundle, 3).values(), 3)
    engine = open_engine(bundle, server.device("fake", "grpc", PATIENT), precision="f32", on_change=changes.append)
    assert isinstance(engine, StandbyEngine)
    with contextlib.closing(engine):
        engine._thread.join()
        np.testing.assert_allclose(engine.run(inputs)["logits"], expected, atol=1e-4)
        assert engine.state == "fast"
        server.kill()
        try:
            np.testing.assert_allclose(engine.run(inputs)["logits"], expected, atol=1e-4)
            assert (engine.state, engine_failures(engine), [each.failed for each in changes]) == (
                "cpu",
                1,
                [False, True],
            )
            accounts = remote_accounts(engine)
            assert accounts["retries"] >= 1 and accounts["failures"] >= 1
        finally:
            server.start()
        engine._thread.join()  # it ends when the server's model was verified again
        np.testing.assert_allclose(engine.run(inputs)["logits"], expected, atol=1e-4)
        assert (engine.state, [each.failed for each in changes]) == ("fast", [False, True, False])
        assert changes[-1].now.startswith("kserve://")


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_slow_server_meets_the_deadline(protocol: str, server: TritonServer, bundle: Bundle) -> None:
    inputs = batch(bundle, 1)
    engine = open_engine(bundle, server.device("fake", protocol, "&timeout_s=0.3"))
    assert isinstance(engine, StandbyEngine)
    try:
        server.delay(1.5)
        with contextlib.closing(engine):
            outputs = engine.run(inputs)["logits"]
            np.testing.assert_allclose(outputs, tiny_onnx.oracle(*inputs.values(), 3), rtol=0, atol=0.2)
            assert engine.state == "cpu" and "no answer before the deadline" in engine.reason
            assert remote_accounts(engine)["failures"] == 1
    finally:
        server.delay(0.0)
