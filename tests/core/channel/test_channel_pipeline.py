# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots in, estimates out: methods, back-off, bad slots among good ones, and the worker's accounts of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.known_engines import KnownEngine
from support.tiny_grids import PAPER, SMALL, covariances, drawn, make_grid_bundle, nmse_db, paths, received
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.channel.backoff import BackOff
from wavesfm_core.channel.estimators import LMMSE, LeastSquares
from wavesfm_core.channel.pipeline import METHODS, ChannelPipeline
from wavesfm_core.errors import BundleError, ConfigurationError, EngineError, InputError, WavesfmError
from wavesfm_core.pipeline import Pipeline
from wavesfm_core.preprocess.pilot_grid import observe
from wavesfm_core.types import ChannelEstimate, Slot, StreamTime
from wavesfm_core.worker import Worker, WorkerOptions


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_grid_bundle(tmp_path_factory.mktemp("grids") / "b", covs=covariances(SMALL))


def slots(grids: np.ndarray, **fields: object) -> list[Slot]:
    return [Slot(grid, 1000 * i, 999, **fields) for i, grid in enumerate(grids)]


GRIDS = received(SMALL, paths(SMALL, 5), 15.0)


def test_an_estimate_says_what_it_is() -> None:
    slot = Slot(GRIDS[0], 5000, 832, 1.44e6, StreamTime(7, 0.5), 3, 0.9, time.monotonic() - 2)
    (estimate,) = ChannelPipeline.of(SMALL).predict([slot])
    seen = observe(GRIDS[:1], SMALL)
    assert np.array_equal(estimate.channel, LeastSquares(SMALL).estimate(GRIDS[:1])[0])
    assert (estimate.method, estimate.bundle_id, estimate.backed_off) == ("ls", "", False)
    assert (estimate.start_sample, estimate.n_samples, estimate.n_nonfinite) == (5000, 832, 3)
    assert estimate.snr_db == pytest.approx(seen.snr_db[0]) and estimate.noise_power == pytest.approx(
        seen.noise_power[0]
    )
    assert estimate.residual == pytest.approx(0, abs=1e-9)
    assert 2 <= estimate.latency_s < 60
    assert not estimate.gated
    expected = {"full_s": 7, "frac_s": 0.5, "utc": "1970-01-01T00:00:07.500000000Z"}
    assert json.loads(json.dumps(estimate.facts()))["time"] == expected
    assert list(estimate.as_dict())[:2] == ["real", "imag"]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_a_bundle(bundle: Path, method: str) -> None:
    pipeline = ChannelPipeline.open(bundle, method, device="cpu")
    assert pipeline.spec == SMALL and pipeline.method == method
    estimates = pipeline.predict(slots(GRIDS))
    assert [estimate.method for estimate in estimates] == [method] * 5
    assert {estimate.bundle_id for estimate in estimates} == {pipeline.bundle.id if method == "model" else ""}
    assert [estimate.start_sample for estimate in estimates] == [0, 1000, 2000, 3000, 4000]
    assert all(np.abs(e.channel - h).mean() < 1 for e, h in zip(estimates, paths(SMALL, 5)))
    assert all(estimate.latency_s is None for estimate in estimates)


def test_live_is_offline_whatever_the_batches_are(bundle: Path) -> None:
    for method in METHODS:
        pipeline = ChannelPipeline.open(bundle, method, device="cpu")
        together = pipeline.predict(slots(GRIDS))
        alone = [pipeline.predict([slot])[0] for slot in slots(GRIDS)]
        for a, b in zip(together, alone):
            assert np.allclose(a.channel, b.channel, atol=1e-5)
            assert a.snr_db == pytest.approx(b.snr_db, abs=1e-4)


def test_the_method_changes_while_running(bundle: Path) -> None:
    pipeline = ChannelPipeline.open(bundle, "ls")
    pipeline.set_method("lmmse-tf")
    (estimate,) = pipeline.predict(slots(GRIDS[:1]))
    assert estimate.method == pipeline.method == "lmmse-tf"
    assert np.allclose(estimate.channel, LMMSE(SMALL, covariances(SMALL), False).estimate(GRIDS[:1])[0], atol=1e-5)
    with pytest.raises(ConfigurationError, match="method: found 'mmse', expected one of model, lmmse, lmmse-tf, ls"):
        pipeline.set_method("mmse")
    assert pipeline.method == "lmmse-tf"


MISSING = {
    "model": "method: found model, expected another: there is no bundle",
    "lmmse": "method: found lmmse, expected another: there are no covariances",
}


@pytest.mark.parametrize("method", MISSING)
def test_a_method_that_lacks_its_parts_is_refused(method: str) -> None:
    with pytest.raises(ConfigurationError, match=MISSING[method]):
        ChannelPipeline.of(SMALL, method)


def expected_and_true(pipeline: ChannelPipeline, channels: np.ndarray, snr_db: float) -> tuple[float, float]:
    """NMSE in dB over all slots."""
    made = pipeline.predict(slots(received(PAPER, channels, snr_db)))
    expected = 10 * np.log10(np.mean([10 ** (estimate.nmse_db / 10) for estimate in made]))
    return expected, nmse_db(np.stack([estimate.channel for estimate in made]), channels)


@pytest.mark.parametrize("snr_db", [0.0, 15.0])
@pytest.mark.parametrize("method", ["ls", "lmmse", "lmmse-tf"])
def test_the_expected_error_is_the_true_one(method: str, snr_db: float) -> None:
    covs = covariances(PAPER)
    expected, true = expected_and_true(ChannelPipeline.of(PAPER, method, covs), drawn(covs, 100), snr_db)
    assert expected == pytest.approx(true, abs=1.0)


def test_the_expected_error_shows_channels_of_other_covariances() -> None:
    covs = covariances(PAPER, space=0.95)
    expected, true = expected_and_true(ChannelPipeline.of(PAPER, "lmmse", covs), paths(PAPER, 60), 10.0)
    assert expected == pytest.approx(true, abs=1.5)
    assert expected > 10 * np.log10(LMMSE(PAPER, covs).error(10.0)) + 3


def test_the_expected_error_of_a_model_is_that_of_lmmse_and_its_residual(bundle: Path, tmp_path: Path) -> None:
    for estimate in ChannelPipeline.open(bundle, device="cpu").predict(slots(GRIDS)):
        beyond = max(estimate.residual - 1, 0) * 10 ** (-estimate.snr_db / 10)
        expected = LMMSE(SMALL, covariances(SMALL)).error(estimate.snr_db) + beyond
        assert estimate.nmse_db == pytest.approx(10 * np.log10(expected), abs=1e-6)
    without = ChannelPipeline.open(make_grid_bundle(tmp_path / "b"), device="cpu", backoff=BackOff(15.0, 10.0))
    quiet, loud = (without.predict(slots(received(SMALL, paths(SMALL, 2), snr_db))) for snr_db in (0.0, 30.0))
    assert [(estimate.backed_off, estimate.nmse_db) for estimate in quiet] == [(False, None)] * 2
    for estimate in loud:
        assert estimate.backed_off
        assert estimate.nmse_db == pytest.approx(10 * np.log10(LeastSquares(SMALL).error(estimate.snr_db)))


def test_given_covariances_take_the_place_of_the_bundles(bundle: Path) -> None:
    given = covariances(SMALL, space=0.1, spread=0.03)
    found = ChannelPipeline.open(bundle, "lmmse", covariances=given).predict(slots(GRIDS))
    expected = LMMSE(SMALL, given).estimate(GRIDS)
    assert np.allclose([estimate.channel for estimate in found], expected, atol=1e-5)
    assert not np.allclose(LMMSE(SMALL, covariances(SMALL)).estimate(GRIDS), expected, atol=1e-2)


def test_given_covariances_of_another_size_are_refused_whatever_the_method(bundle: Path) -> None:
    with pytest.raises(InputError, match="covariances: space: found 16 x 16, expected 2 x 2, as the numerology has"):
        ChannelPipeline.open(bundle, "ls", covariances=covariances(PAPER))
    with pytest.raises(InputError, match="covariances: space: found 16 x 16, expected 2 x 2, as the numerology has"):
        ChannelPipeline.of(SMALL, covariances=covariances(PAPER))


def test_a_bundle_without_covariances_says_so(tmp_path: Path) -> None:
    path = make_grid_bundle(tmp_path / "b")
    with pytest.raises(ConfigurationError, match=r"b: method: found lmmse-tf, expected another: there are no covar"):
        ChannelPipeline.open(path, "lmmse-tf")


def test_bundles_of_another_kind_are_refused(bundle: Path, fake_bundle: Path) -> None:
    with pytest.raises(ConfigurationError, match="found a model for spectrograms, expected one for pilot grids"):
        ChannelPipeline.open(fake_bundle)
    pipeline = Pipeline.open(bundle, "cpu")
    with pytest.raises(ConfigurationError, match="found a model for pilot grids, expected one for images"):
        pipeline.estimate([np.zeros((4, 2, 12), np.float32)])
    with pytest.raises(ConfigurationError, match="expected one for spectrograms, since IQ is to be read"):
        _ = pipeline.stream_spec


def test_covariances_that_were_altered_are_refused(tmp_path: Path) -> None:
    path = make_grid_bundle(tmp_path / "b", covs=covariances(SMALL))
    covariances(SMALL, time=0.9).save(path / "covariances.npz")
    with pytest.raises(BundleError, match=r"covariances.npz: sha256: found [0-9a-f]{64}, expected"):
        ChannelPipeline.open(path, "ls")


def bad(change: Callable[[np.ndarray], object]) -> np.ndarray:
    grid = GRIDS[0].copy()
    change(grid)
    return grid


BAD = {
    "NaN": bad(lambda g: g.__setitem__((1, 2, 3), np.nan)),
    "zero": np.zeros(SMALL.grid_shape, np.complex64),
    "pilots zero": bad(lambda g: g.__setitem__((slice(None), [1, 3]), 0)),
    "another numerology": received(PAPER, paths(PAPER, 1), 10.0)[0],
    "huge": bad(lambda g: g.__imul__(np.float32(1e18))),
}


@pytest.mark.parametrize("method", ["ls", "lmmse", "model"])
def test_a_bad_slot_harms_no_other(bundle: Path, method: str) -> None:
    pipeline = ChannelPipeline.open(bundle, method, device="cpu")
    mixed = [Slot(grid, 77, 1) for grid in BAD.values()]
    good = slots(GRIDS)
    answers = pipeline.predict([mixed[0], good[0], *mixed[1:], good[1]])
    alone = pipeline.predict(good[:2])
    assert [isinstance(answer, InputError) for answer in answers] == [True, False, True, True, True, True, False]
    assert np.allclose(answers[1].channel, alone[0].channel, atol=1e-5)
    assert np.allclose(answers[-1].channel, alone[1].channel, atol=1e-5)
    assert pipeline.failed == 5
    assert str(answers[0]).startswith("slot at sample 77: grid: found NaN or infinity in 1 of 96")
    assert "found all 48 zero" in str(answers[2])
    assert pipeline.predict(mixed)[1].field == "pilots received"


def test_the_worker_counts_bad_slots_and_goes_on() -> None:
    heard: list[ChannelEstimate] = []
    errors: list[tuple[WavesfmError, int]] = []
    pipeline = ChannelPipeline.of(SMALL)
    options = WorkerOptions(batch_tiles=4)
    with Worker(pipeline, heard.extend, options, on_error=lambda *error: errors.append(error)) as worker:
        for grid in [GRIDS[0], *BAD.values(), GRIDS[1]]:
            worker.submit(Slot(grid, 7, 1))
        assert worker.drain(30)
        accounts = worker.accounts
    assert accounts.closes()
    assert (accounts.tiles_in, accounts.inferred, accounts.failed, accounts.gated) == (7, 2, 5, 0)
    assert [n for _, n in errors] == [1] * 5 and len(heard) == 2


def test_it_backs_off_where_the_estimate_does_not_fit() -> None:
    """Channels that the covariances hold at first, and then others that they do not."""
    covs = covariances(PAPER, time=0.9999, spread=0.001)
    fitting = received(PAPER, drawn(covs, 6), 20.0)
    other = received(PAPER, drawn(covariances(PAPER, time=0.9999, spread=0.03), 6), 20.0)
    backoff = BackOff()
    pipeline = ChannelPipeline.of(PAPER, "lmmse", covs, backoff)
    estimates = pipeline.predict(slots(np.concatenate([fitting, other, fitting])))
    assert [e.backed_off for e in estimates] == [False] * 6 + [True] * 6 + [False] * 6
    assert [e.method for e in estimates[5:7]] == ["lmmse", "ls"]
    assert np.array_equal(estimates[6].channel, LeastSquares(PAPER).estimate(other[:1])[0])
    assert estimates[6].residual > 1.75 > 1.4 > estimates[5].residual
    assert (pipeline.backed_off, backoff.switches) == (6, 2)


def test_it_backs_off_above_an_snr(bundle: Path) -> None:
    channels = paths(SMALL, 1)
    grids = np.concatenate([received(SMALL, channels, snr) for snr in (0.0, 40.0, 20.0, 0.0)])
    backoff = BackOff(enter_db=30, leave_db=10, residual_enter=1e6, residual_leave=1e5)
    pipeline = ChannelPipeline.open(bundle, device="cpu", backoff=backoff)
    estimates = pipeline.predict(slots(grids))
    assert [e.backed_off for e in estimates] == [False, True, True, False]
    assert [bool(e.bundle_id) for e in estimates] == [True, False, False, True]


def test_least_squares_do_not_back_off_to_themselves_and_another_method_starts_anew() -> None:
    grids = slots(received(SMALL, paths(SMALL, 2), 40.0))
    backoff = BackOff(enter_db=30, leave_db=-50)
    pipeline = ChannelPipeline.of(SMALL, "ls", covariances(SMALL), backoff)
    assert not any(e.backed_off for e in pipeline.predict(grids))
    pipeline.set_method("lmmse")
    assert all(e.backed_off for e in pipeline.predict(grids))
    pipeline.set_method("lmmse-tf")
    quiet = slots(received(SMALL, paths(SMALL, 2), -10.0))
    assert not any(e.backed_off for e in pipeline.predict(quiet))


def test_close_frees_the_models_engine_and_reopen_opens_it_anew(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    opened: list[KnownEngine] = []

    def open_engine(bundle: Bundle, *options: Any) -> KnownEngine:
        asked.append(options)
        opened.append(KnownEngine(bundle, f"engine {len(opened)}"))
        return opened[-1]

    monkeypatch.setattr("wavesfm_core.channel.pipeline.open_engine", open_engine)
    pipeline = ChannelPipeline.open(bundle, "ls", "cpu", None, 1, "f32", device_id=2, on_change=print)
    pipeline.close()
    pipeline.reopen()
    assert (pipeline.engine, opened) == (None, [])  # least squares need none
    pipeline.set_method("model")
    for _ in range(2):
        pipeline.close()
        pipeline.close()
        assert all(engine.closed for engine in opened)
        with pytest.raises(EngineError, match="closed"):
            pipeline.predict(slots(GRIDS))
        pipeline.reopen()
        assert [e.method for e in pipeline.predict(slots(GRIDS))] == ["model"] * len(GRIDS)
    assert asked == [("cpu", 1, "f32", 2, print)] * 3
    assert pipeline.engine is opened[-1] and not opened[-1].closed
