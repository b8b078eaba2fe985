# SPDX-License-Identifier: GPL-3.0-or-later
"""The `wavesfm-train` command from tiles to a bundle and a report, at toy scale, and what it says to wrong input."""

from __future__ import annotations

import json
import sys
from functools import partial

import numpy as np
import pytest
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.bundle.spectrogram_spec import SpectrogramSpec
from wavesfm_trainer import cli
from wavesfm_trainer.cli import tiles as tile_commands
from wavesfm_trainer.data import tile_dataset as tiles
from wavesfm_trainer.signals import LABELS

pytestmark = pytest.mark.filterwarnings("ignore")  # what torch and Lightning say of themselves
TOY = ("size=custom", "depth=1", "width=32", "heads=2", "decoder_depth=1", "decoder_width=16", "decoder_heads=2")
QUICK = ("loop.batch_size=10", "loop.precision=32-true", "loop.tensorboard=false")
QUICKLY = [f"--set={change}" for change in QUICK]
CHANGES = [f"--set=model.{change}" for change in TOY] + QUICKLY


@pytest.fixture(scope="module", autouse=True)
def toy():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tile_commands, "SpectrogramSpec", partial(SpectrogramSpec, rows_per_tile=32))
        patch.setattr(tiles, "SHARD_TILES", 12)
        yield


def call(*arguments):
    """Exit code of the command, run in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as ended:
        patch.setattr(sys, "argv", ["wavesfm-train", *map(str, arguments)])
        cli.main()
    return ended.value.code or 0


@pytest.fixture(scope="module")
def made(toy, tmp_path_factory):
    """A directory in which the verbs have been used once, one after the other."""
    root = tmp_path_factory.mktemp("cli")
    (root / "afile").write_text("")
    data = root / "data"
    for part, seed in (("train", 4), ("validation", 5), ("test", 6)):
        assert call("tiles", data / "rf20" / part, "--count", 20, "--seed", seed) == 0
    assert (
        call("pretrain", "rf20-pretrain", "--data", data, "--out", root / "runs" / "mwm", "--epochs", 2, *CHANGES) == 0
    )
    options = ("--pretrained", root / "runs" / "mwm", "--epochs", 2, "--seed", 1, *QUICKLY)
    assert call("finetune", "rf20", "--data", data, "--out", root / "runs" / "rf20", *options) == 0
    assert call("evaluate", root / "runs", "--data", data) == 0
    assert call("report", root / "runs") == 0
    assert call("export", root / "runs" / "rf20", root / "toy", "--half-weights") == 0
    return root


def test_tiles(made):
    assert sorted(p.name for p in (made / "data" / "rf20" / "train").iterdir()) == [
        "cache.json",
        "shard-00000.npz",
        "shard-00001.npz",
    ]
    cache, validation = (tiles.read_shards(made / "data" / "rf20" / part) for part in ("train", "validation"))
    assert cache.label.tolist() == list(range(20))
    assert not np.array_equal(cache.picture, validation.picture)
    assert tiles.read_shard_note(made / "data" / "rf20" / "train")["seed"] == 4


def test_runs(made):
    config = json.loads((made / "runs" / "rf20" / "config.json").read_text())
    assert (config["command"], config["task"], config["pretrained"]) == ("finetune", "rf20", "rf20-pretrain")
    assert len((made / "runs" / "rf20" / "metrics.csv").read_text().splitlines()) == 3
    kinds = {name: json.loads((made / "runs" / name / "evaluation.json").read_text()) for name in ("mwm", "rf20")}
    assert (kinds["mwm"]["kind"], kinds["mwm"]["split"]) == ("pretraining", "validation")
    assert (kinds["rf20"]["kind"], kinds["rf20"]["split"], kinds["rf20"]["n_samples"]) == ("classification", "test", 20)


def test_a_finished_run_is_not_done_again(made, capsys):
    before = (made / "runs" / "mwm" / "weights.safetensors").stat().st_mtime_ns
    run = ("--data", made / "data", "--out", made / "runs" / "mwm", "--epochs", 2, *CHANGES)
    assert call("pretrain", "rf20-pretrain", *run) == 0
    assert (made / "runs" / "mwm" / "weights.safetensors").stat().st_mtime_ns == before
    assert "2 epochs" in capsys.readouterr().out
    assert call("pretrain", "rf20-pretrain", *run, "--fresh") == 2


def test_report(made):
    page = (made / "runs" / "report.html").read_text()
    assert "rf20" in page and "rf20-pretrain" in page and "data:image" in page


def test_export(made):
    bundle = Bundle.open(made / "toy")
    assert bundle.id.startswith("toy@")
    assert bundle.spec.head.labels == LABELS
    assert "rf20" in (made / "toy" / "README.md").read_text()


def test_evaluate_tiles_by_run_and_by_bundle(made, tmp_path, capsys):
    reports, held_back = [], made / "data" / "rf20" / "test"
    for model, device in ((made / "runs" / "rf20", "cpu"), (made / "toy", "onnxruntime")):
        output = tmp_path / f"{model.name}.json"
        assert call("evaluate", model, "--tiles", held_back, "--device", device, "--output", output) == 0
        reports.append(json.loads(output.read_text(), parse_constant=pytest.fail)["synthetic"])
    assert reports[0]["n_tiles"] == 20
    clear = int((tiles.read_shards(held_back).snr_db >= 10).sum())
    assert np.sum(reports[0]["confusion_10db"]) == clear
    assert reports[0].keys() == reports[1].keys()
    assert "mean_class_accuracy" in capsys.readouterr().out


def test_bench_writes_what_it_measured(tmp_path, monkeypatch):
    from wavesfm_trainer.benchmarks import training_speed as bench

    rows = []
    monkeypatch.setattr(bench, "run_bench", lambda seconds, **options: rows.append((seconds, options)) or [])
    monkeypatch.setattr(bench, "format_rows", lambda rows: "a table")
    monkeypatch.setattr(bench, "as_json", lambda rows: {"rows": rows})
    assert call("bench", "--seconds", 3, "--size", "small", "--output", tmp_path / "bench.json") == 0
    assert rows == [(3.0, {"size": "small", "batch": 32, "device": "cpu", "repeats": 5})]
    assert json.loads((tmp_path / "bench.json").read_text()) == {"rows": []}


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
    assert call("evaluate", made / "runs" / "rf20", "--manifest", manifest, "--output", output) == 0
    report = json.loads(output.read_text())["recordings"]
    assert [(entry["file"], entry["label"]) for entry in report["files"]] == [("one.cu8", "noise"), ("two.cu8", "wifi")]
    assert list(report["classes"]) == ["noise"]  # only documented rates are scored
    assert np.sum(report["confusion"]) == 1
    assert "accuracy by recording" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("pretrain", "vit", "--data", "data", "--out", "out"), "vit: recipe: found nothing, expected a .yml file or"),
        (("pretrain", "vit-all", "--data", "data", "--out", "out"), "data/rf-spectrograms.h5: file: found nothing"),
        (("finetune", "rf20", "--data", "data", "--out", "out"), "rf20: --pretrained: found nothing"),
        (("finetune", "rf20", "--data", "data", "--out", "out", "--pretrained", "none"), "none: file: found nothing"),
        (("finetune", "rf20", "--data", "data", "--out", "out", "--devices", "x"), "--devices: value: found x"),
        (("evaluate", "none", "--data", "data"), "none: run: found nothing"),
        (("evaluate", "runs/rf20"), "evaluate: --data, --tiles, --manifest: found none"),
        (
            ("evaluate", "runs/rf20", "--data", "data", "--output", "out"),
            "--output: found out, expected none with --data",
        ),
        (("evaluate", "runs/rf20", "--tiles", "none"), "none/cache.json: file: found nothing"),
        (("evaluate", "runs/rf20", "--manifest", "none.csv"), "none.csv: file: found nothing"),
        (("evaluate", "runs/rf20", "--data", "data", "--split", "all"), "split"),
        (("export", "none", "out"), "none: file: found nothing"),
        (("export", "runs/rf20", "afile"), "afile: directory: found other files, expected a new directory or a bundle"),
        (("pretrain", "rf20-pretrain", "--data", "data", "--out", "out", "--accelerator", "foo"), "found foo ("),
        (("export", "runs/mwm", "out"), "expected a fine-tuned task"),
        (("import", "none.pth", "out"), "none.pth: file: found nothing"),
        (("report", "data"), "data"),
        (("data", "prepare", "positioning", "none", "out"), "none"),
        (("data", "prepare", "position", "none", "out"), "position: task: found nothing"),
        (("data", "generate", "nr", "out", "--count", "3"), "data generate: name: found 'nr'"),
        (("data", "generate", "cfr_5g", "afile/x", "--count", "3"), "afile/x: directory: found Not a directory"),
        (("data", "prepare", "positioning", "none", "afile/x.h5"), "afile: folder: found File exists"),
        (("data", "info", "data"), "data: file: found nothing"),
        (("evaluate", "runs/rf20", "--tiles", "data/rf20/test", "--output", "afile/x"), "afile/x: file: found Not a"),
        (("tiles", "data/rf20/train", "--seed", "6"), "data/rf20/train/cache.json: seed: found 4, expected 6"),
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
    for name, *arguments in (
        ("--count", "tiles", made / "x"),
        ("--seed", "data", "generate", "cfr_5g", made / "x", "--count", 3),
        ("--seed", "data", "prepare", "positioning", made, made / "x"),
        ("--seed", "data", "channels", made / "x", "--count", 3),
        ("--seed", "tiles", made / "x", "--count", 3),
    ):
        assert call(*arguments, name, -1) == 2
        assert name in capsys.readouterr().err
    assert not (made / "x").exists()
