"""The `wavesfm-train` command from tiles to a bundle, at toy scale, and what it says to wrong input."""

from __future__ import annotations

import json
import sys
from functools import partial

import numpy as np
import pytest
from wavesfm_core.bundle import Bundle
from wavesfm_core.spec import SpectrogramSpec
from wavesfm_trainer import cli, tiles
from wavesfm_trainer.model import SIZES, ViTSize
from wavesfm_trainer.signals import LABELS

pytestmark = pytest.mark.filterwarnings("ignore")  # what torch and Lightning say of themselves


@pytest.fixture(scope="module", autouse=True)
def toy():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "toy", ViTSize(depth=1, width=32, heads=2))
        patch.setattr(cli, "SpectrogramSpec", partial(SpectrogramSpec, rows_per_tile=32))
        patch.setattr(tiles, "SHARD_TILES", 12)
        yield


def call(*arguments):
    """Exit code of the command, run in this process so that it knows the toy size."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["wavesfm-train", *map(str, arguments)])
        cli.main()
    return ended.value.code or 0


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """A directory in which all four verbs have been used once."""
    root = tmp_path_factory.mktemp("cli")
    assert call("tiles", root / "cache", "--count", 20, "--seed", 4) == 0
    assert call("tiles", root / "val", "--count", 20, "--seed", 5, "--workers", 1) == 0
    options = ("--size", "toy", "--steps", 3, "--batch", 4, "--keep", "0.5:0.25,1:1")
    assert call("train", root / "cache", root / "val", root / "run", *options) == 0
    assert call("export", root / "run", root / "bundle", "--name", "toy") == 0
    return root


def test_tiles(made):
    assert sorted(p.name for p in (made / "cache").iterdir()) == ["cache.json", "shard-00000.npz", "shard-00001.npz"]
    cache, validation = tiles.read_cache(made / "cache"), tiles.read_cache(made / "val")
    assert cache.label.tolist() == list(range(20))
    assert not np.array_equal(cache.picture, validation.picture)
    assert tiles.read_note(made / "cache")["seed"] == 4


def test_train(made):
    config = json.loads((made / "run" / "config.json").read_text())
    assert config["labels"] == list(LABELS)
    assert config["args"]["keep"] == [[0.5, 0.25], [1.0, 1.0]]
    assert config["spec"]["rows_per_tile"] == 32
    assert (made / "run" / "metrics.csv").stat().st_size > 0


def test_export(made):
    bundle = Bundle.open(made / "bundle")
    assert bundle.id.startswith("toy@")
    assert bundle.spec.head.labels == LABELS
    assert bundle.spec.preprocess.mean == json.loads((made / "run" / "config.json").read_text())["spec"]["mean"]


def test_evaluate_tiles_by_run_and_by_bundle(made, tmp_path, capsys):
    reports = []
    for name in ("run", "bundle"):
        output = tmp_path / f"{name}.json"
        assert call("evaluate", made / name, "--cache", made / "val", "--output", output) == 0
        reports.append(json.loads(output.read_text(), parse_constant=pytest.fail)["synthetic"])
    assert reports[0]["n_tiles"] == 20
    clear = int((tiles.read_cache(made / "val").snr_db >= 10).sum())
    assert np.sum(reports[0]["confusion_10db"]) == clear
    assert reports[0].keys() == reports[1].keys()
    assert "mean_class_accuracy" in capsys.readouterr().out


def test_evaluate_recordings(made, tmp_path, capsys):
    rng = np.random.default_rng(0)
    names = []
    for name in ("one", "two"):
        rng.integers(0, 256, 2 * 40_000).astype(np.uint8).tofile(tmp_path / f"{name}.cu8")
        names.append(f"{name}.cu8")
    rows = [f"{names[0]},noise,1000000,cu8", f"{names[1]},wifi_11a,,cu8"]
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("\n".join(["file,label,sample_rate_hz,format", *rows]) + "\n")
    output = tmp_path / "report.json"
    assert call("evaluate", made / "run", "--manifest", manifest, "--output", output) == 0
    report = json.loads(output.read_text())["recordings"]
    assert [(entry["file"], entry["label"]) for entry in report["files"]] == [("one.cu8", "noise"), ("two.cu8", "wifi")]
    assert list(report["classes"]) == ["noise"]  # only documented rates are scored
    assert np.sum(report["confusion"]) == 1
    assert "accuracy by recording" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train", "none", "val", "out"), "none/cache.json: file: found nothing"),
        (("train", "cache", "none", "out"), "none/cache.json: file: found nothing"),
        (("train", "cache", "val", "out", "--size", "huge"), "TrainArgs: size: found huge"),
        (("train", "cache", "val", "out", "--keep", "all"), "train: --keep: found all, expected stages"),
        (("train", "cache", "val", "out", "--keep", "0.5:1"), "TrainArgs: keep"),
        (("evaluate", "none"), "none/config.json: file: found nothing"),
        (("evaluate", "run", "--cache", "none"), "none/cache.json: file: found nothing"),
        (("evaluate", "run", "--manifest", "none.csv"), "none.csv: file: found nothing"),
        (("export", "none", "out"), "none/config.json: file: found nothing"),
        (("tiles", "cache", "--seed", "6"), "cache/cache.json: seed: found 4, expected 6"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(made, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(made)
    monkeypatch.setenv("COLUMNS", "400")
    assert call(*arguments) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert error.startswith("error: ")
    assert says in error
    assert "Traceback" not in error
    assert not (made / "out").exists()


def test_options_out_of_range_are_refused(made, capsys):
    assert call("tiles", made / "x", "--count", 0) == 2
    assert "--count" in capsys.readouterr().err
    assert not (made / "x").exists()
