# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm estimate`, and `info`, `check` and `bench` of bundles of pilot grids."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.tiny_grids import SMALL, covariances, drawn, make_grid_bundle, numerology, received
from wavesfm_core import cli
from wavesfm_core.channel.estimators import LMMSE
from wavesfm_core.preprocess.pilot_grid import observe

COVS = covariances(SMALL)
CHANNELS = drawn(COVS, 40)
GRIDS = received(SMALL, CHANNELS, 20.0)
SENT = np.zeros((40, *SMALL.grid_shape[1:]), np.complex64)
SENT[:, [1, 3]] = SMALL.pilots
Wavesfm = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_grid_bundle(tmp_path_factory.mktemp("grids") / "b", covs=COVS)


@pytest.fixture
def wavesfm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Wavesfm:
    """Run the command in this process: exit code, stdout, stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["wavesfm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out, said.err

    return run


@pytest.fixture
def grids(tmp_path: Path) -> Path:
    path = tmp_path / "grids.npz"
    np.savez(path, y_rg=GRIDS, h_freq=CHANNELS, x_rg=SENT)
    return path


def test_estimate_writes_channels_and_facts(wavesfm: Wavesfm, bundle: Path, grids: Path, tmp_path: Path) -> None:
    lines, made = tmp_path / "lines", tmp_path / "made.npz"
    code, out, _ = wavesfm("estimate", bundle, grids, "--method", "lmmse", "--json", lines, "--output", made)
    assert code == 0
    assert "40 slots by lmmse: median SNR" in out and "0 backed off to ls" in out
    with np.load(made) as archive:
        channels, starts = archive["channel"], archive["start_sample"]
    assert np.allclose(channels, LMMSE(SMALL, COVS).estimate(GRIDS, observe(GRIDS, SMALL)), atol=1e-4)
    assert starts[1] == SMALL.slot_samples
    facts = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(facts) == 40 and facts[2]["method"] == "lmmse" and facts[2]["start_sample"] == 2 * SMALL.slot_samples


def test_estimate_says_the_error_of_the_method_and_of_least_squares(
    wavesfm: Wavesfm, bundle: Path, tmp_path: Path
) -> None:
    channels = drawn(COVS, 200, seed=5)
    np.savez(tmp_path / "g.npz", y_rg=received(SMALL, channels, 20.0), h_freq=channels)
    _, out, _ = wavesfm("estimate", bundle, tmp_path / "g.npz", "--method", "lmmse")
    (row,) = (line for line in out.splitlines() if line.split("│")[1:2] and line.split("│")[1].strip() == "20")
    _, _, slots, method, least_squares, _ = row.split("│")
    assert int(slots) > 100
    assert float(method) == pytest.approx(10 * np.log10(LMMSE(SMALL, COVS).error(20.0)), abs=1.0)
    assert float(least_squares) > float(method) + 1


def test_estimate_by_covariances_of_a_file(wavesfm: Wavesfm, bundle: Path, grids: Path, tmp_path: Path) -> None:
    given = covariances(SMALL, space=0.1, spread=0.03)
    given.save(tmp_path / "c.npz")
    options = ("--method", "lmmse", "--covariances", tmp_path / "c.npz")
    code, out, _ = wavesfm("estimate", bundle, grids, *options, "--output", tmp_path / "made.npz")
    assert code == 0 and "40 slots by lmmse" in out
    with np.load(tmp_path / "made.npz") as archive:
        assert np.allclose(archive["channel"], LMMSE(SMALL, given).estimate(GRIDS), atol=1e-4)
    covariances(numerology()).save(tmp_path / "c.npz")
    code, _, err = wavesfm("estimate", bundle, grids, *options)
    assert code == 2 and "c.npz: space: found 16 x 16, expected 2 x 2, as the numerology has" in err
    code, _, err = wavesfm("estimate", bundle, grids, "--method", "ls", *options[2:])
    assert code == 2 and "--covariances: found method ls, expected lmmse or lmmse-tf" in err


def test_estimate_with_the_model_and_back_off(wavesfm: Wavesfm, bundle: Path, grids: Path) -> None:
    code, out, _ = wavesfm("estimate", bundle, grids, "--device", "cpu", "--back-off", "10")
    assert code == 0 and "40 slots by model" in out and ", 40 backed off to ls" in out
    code, out, _ = wavesfm("estimate", bundle, grids, "--device", "cpu")
    assert code == 0 and ", 0 backed off to ls" in out


def test_bad_slots_are_counted(wavesfm: Wavesfm, bundle: Path, tmp_path: Path) -> None:
    bad = GRIDS.copy()
    bad[3, 0, 0, 0] = np.nan
    bad[5] = 0
    bad[7, 1, 2, 3] = np.inf
    np.savez(tmp_path / "g.npz", y_rg=bad)
    options = ("--method", "ls", "--json", tmp_path / "lines", "--output", tmp_path / "made.npz")
    code, out, _ = wavesfm("estimate", bundle, tmp_path / "g.npz", *options)
    assert code == 0 and "37 slots by ls" in out
    assert "2 slots could not be estimated: slot at sample 624: grid: found NaN or infinity in 1 of 96" in out
    assert "1 slots could not be estimated: slot at sample 1040: pilots received: found all 48 zero" in out
    facts = [json.loads(line) for line in (tmp_path / "lines").read_text().splitlines()]
    assert [fact["start_sample"] for fact in facts] == [i * SMALL.slot_samples for i in range(40)]
    assert [i for i, fact in enumerate(facts) if "error" in fact] == [3, 5, 7]
    assert "NaN or infinity" in facts[7]["error"] and "zero" in facts[5]["error"]
    with np.load(tmp_path / "made.npz") as archive:
        assert archive["start_sample"].tolist() == [f["start_sample"] for f in facts if "error" not in f]
    np.savez(tmp_path / "g.npz", y_rg=0 * GRIDS)
    code, out, err = wavesfm("estimate", bundle, tmp_path / "g.npz", "--method", "ls")
    assert code == 2 and "slots: found 40, none that can be estimated (slot at sample 0: pilots received" in err


def test_truths_that_are_none_are_counted(wavesfm: Wavesfm, bundle: Path, tmp_path: Path) -> None:
    wrong = CHANNELS.copy()
    wrong[2, 0, 0, 0], wrong[4] = np.nan, 0
    np.savez(tmp_path / "g.npz", y_rg=GRIDS, h_freq=wrong)
    code, out, _ = wavesfm("estimate", bundle, tmp_path / "g.npz", "--method", "ls")
    assert code == 0 and "NMSE ls, dB" in out
    assert "2 slots are not in the errors: their h_freq is not finite or all zero" in out
    np.savez(tmp_path / "g.npz", y_rg=GRIDS, h_freq=0 * CHANNELS)
    code, out, _ = wavesfm("estimate", bundle, tmp_path / "g.npz", "--method", "ls")
    assert code == 0 and "NMSE" not in out and "40 slots are not in the errors" in out


@pytest.mark.filterwarnings("error")
def test_what_single_precision_cannot_hold_is_refused_by_slot(wavesfm: Wavesfm, bundle: Path, tmp_path: Path) -> None:
    grids = GRIDS.astype(np.complex128)
    grids[1] *= 1e200
    np.savez(tmp_path / "g.npz", y_rg=grids, h_freq=1e30 * CHANNELS)
    code, out, err = wavesfm("estimate", bundle, tmp_path / "g.npz", "--method", "ls")
    assert (code, err) == (0, "")
    assert "1 slots could not be estimated: slot at sample 208: grid: found NaN or infinity in 96 of 96" in out


OTHER = {
    "numerology": (
        {"y_rg": np.ones((2, 3, 4, 12), "c8")},
        "y_rg: found complex64 [2, 3, 4, 12], expected complex numb",
    ),
    "no grids": ({"h_freq": CHANNELS}, "y_rg: found nothing, expected the received grids"),
    "lengths": ({"y_rg": GRIDS, "h_freq": CHANNELS[1:]}, "h_freq: found complex64 [39, 2, 4, 12]"),
    "real": ({"y_rg": GRIDS.real}, "y_rg: found float32"),
    "none": ({"y_rg": GRIDS[:0]}, "y_rg: found complex64 [0, 2, 4, 12]"),
    "pilots": ({"y_rg": GRIDS, "x_rg": 1j * SENT}, "x_rg: found pilots that differ by 1.41, expected the numerology's"),
    "objects": ({"y_rg": np.array([object()])}, "y_rg: found Python objects"),
}


@pytest.mark.parametrize("case", OTHER)
def test_files_of_something_else_are_refused(wavesfm: Wavesfm, bundle: Path, tmp_path: Path, case: str) -> None:
    arrays, message = OTHER[case]
    np.savez(tmp_path / "g.npz", **arrays)
    code, out, err = wavesfm("estimate", bundle, tmp_path / "g.npz", "--method", "ls")
    assert (code, out) == (2, "") and len(err.splitlines()) == 1
    assert message in err and "g.npz" in err


OPTIONS = {
    "method": (("--method", "mmse"), "method: found 'mmse', expected one of model, lmmse"),
    "back-off": (("--method", "ls", "--back-off", "x"), "--back-off: found 'x', expected off, on or a number of dB"),
    "output": (("--method", "ls", "--output", "/none/x.npz"), "--output: found No such file or directory"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_bad_options_are_refused(wavesfm: Wavesfm, bundle: Path, grids: Path, case: str) -> None:
    options, message = OPTIONS[case]
    code, _, err = wavesfm("estimate", bundle, grids, *options)
    assert code == 2 and message in err


def test_a_bundle_of_another_kind_is_refused(wavesfm: Wavesfm, fake_bundle: Path, grids: Path) -> None:
    code, _, err = wavesfm("estimate", fake_bundle, grids)
    assert code == 2 and "found a model for spectrograms, expected one for pilot grids" in err


@pytest.mark.parametrize("layout", ["least_squares", "image"])
def test_info_and_check_of_pilot_grids(wavesfm: Wavesfm, tmp_path: Path, layout: str) -> None:
    path = make_grid_bundle(tmp_path / "b", numerology(2, 4, 12, 48, 4, (1, 3), 2, 1), layout)
    code, out, _ = wavesfm("info", path)
    assert code == 0
    for said in ("FFT 48, 30 kHz, 1.44 MS/s, 208 samples a slot", "on symbols 1, 3, 6 subcarriers each", layout):
        assert said in out
    code, out, _ = wavesfm("check", path)
    assert code == 0 and "the bundle is whole" in out


def test_bench_of_pilot_grids(wavesfm: Wavesfm, bundle: Path, tmp_path: Path) -> None:
    options = ("--seconds", "0.01", "--peer", tmp_path / "none.py", "--json", tmp_path / "bench.json")
    code, out, _ = wavesfm("bench", "--model", bundle, *options)
    assert code == 0 and "kernel: samples to grids" in out
    rates = {row["name"]: row["slots_per_s"] for row in json.loads((tmp_path / "bench.json").read_text())["channel"]}
    assert len(rates) == 3 + 2 * 5
    assert all(rate is None or rate > 0 for rate in rates.values())
    assert rates["lmmse: samples to channels"] < rates["kernel: samples to grids"]
