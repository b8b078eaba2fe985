# SPDX-License-Identifier: GPL-3.0-or-later
"""`wavesfm classify` and `annotate` with --workers, --ray and --results."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from wavesfm_core import cli
from wavesfm_core.archive.results import read_result
from wavesfm_core.archive.worker import ArchiveWorker

Tone = Callable[..., np.ndarray]


@pytest.fixture()
def wavesfm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command in this process: exit status, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["wavesfm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return int(ended.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture()
def folder(tmp_path: Path, tone: Tone) -> Path:
    """Three recordings below and above the centre, and one that is too short."""
    found = tmp_path / "archive"
    (found / "below").mkdir(parents=True)
    (found / "below" / "a_100M_1M.cf32").write_bytes(tone(-0.2, 6144).tobytes())
    (found / "b_100M_1M.cf32").write_bytes(tone(0.3, 4096).tobytes())
    (found / "c_100M_1M.cf32").write_bytes(tone(0.3, 2048).tobytes())
    (found / "short_100M_1M.cf32").write_bytes(tone(0.3, 10).tobytes())
    return found


def test_classify_a_folder_by_processes(
    wavesfm: Callable[..., tuple[int, str, str]], folder: Path, fake_bundle: Path, tmp_path: Path
) -> None:
    options = ("--model", fake_bundle, "--detect", "off", "--device", "onnxruntime", "--results", tmp_path / "out")
    lines = tmp_path / "all.jsonl"
    code, out, _ = wavesfm("classify", folder, *options, "--workers", 2, "--json", lines)
    assert code == 2  # one failed
    assert [line.split() for line in out.splitlines() if line.strip().startswith(("left", "right"))] == [
        ["right", "2", "3", "2"],
        ["left", "1", "3", "1"],
    ]
    assert "note: failed: " in out and "short_100M_1M.cf32" in out
    assert f"4 recordings: 3 done, 1 failed\nresults in {tmp_path / 'out'}" in out
    made = [json.loads(line) for line in lines.read_text().splitlines()]
    expected = [("b_100M_1M.cf32", "right"), ("b_100M_1M.cf32", "right")] + [("a_100M_1M.cf32", "left")] * 3
    assert sorted((line["recording"], line["label"]) for line in made) == sorted(
        [*expected, ("c_100M_1M.cf32", "right")]
    )
    (folder / "short_100M_1M.cf32").unlink()
    code, out, _ = wavesfm("classify", folder, *options)
    assert code == 0 and "3 recordings: 3 done (3 of them before this run), 0 failed" in out


def test_ctrl_c_says_how_to_go_on(
    wavesfm: Callable[..., tuple[int, str, str]],
    folder: Path,
    fake_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from wavesfm_core.archive.processes import ProcessCrew

    def interrupted(crew: ProcessCrew) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ProcessCrew, "start", lambda crew, slot, recording: None)
    monkeypatch.setattr(ProcessCrew, "wait", interrupted)
    code, out, _ = wavesfm("classify", folder, "--model", fake_bundle, "--results", tmp_path / "out", "--workers", 2)
    assert code == 130 and "interrupted with 0 recordings done: the same command goes on there" in out


def test_annotations_of_equal_names_are_refused(
    wavesfm: Callable[..., tuple[int, str, str]], folder: Path, fake_bundle: Path, tmp_path: Path
) -> None:
    (folder / "below" / "b_100M_1M.cf32").write_bytes((folder / "b_100M_1M.cf32").read_bytes())
    arguments = (
        "annotate",
        folder,
        "--model",
        fake_bundle,
        "--results",
        tmp_path / "out",
        "--output",
        tmp_path / "meta",
    )
    code, _, err = wavesfm(*arguments)
    assert code == 2
    assert err.startswith("wavesfm: command line: --output: found several recordings named b_100M_1M")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--workers", 0, "--results", "out"), "--workers: found 0, expected 1 or more"),
        (("--workers", 2), "--workers: found no --results, expected a folder for the results"),
        (("--ray", "auto"), "--ray: found no --results, expected a folder for the results"),
    ],
)
def test_options_that_contradict(
    options: tuple[object, ...],
    sentence: str,
    wavesfm: Callable[..., tuple[int, str, str]],
    folder: Path,
    fake_bundle: Path,
) -> None:
    code, _, err = wavesfm("classify", folder, "--model", fake_bundle, *options)
    assert (code, err) == (2, f"wavesfm: command line: {sentence}\n")


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="ray is not installed")
def test_two_nodes_of_a_ray_cluster(
    wavesfm: Callable[..., tuple[int, str, str]],
    folder: Path,
    fake_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray.cluster_utils import Cluster

    options = ("--model", fake_bundle, "--detect", "off", "--device", "onnxruntime", "--results", tmp_path / "out")
    memory = {"object_store_memory": 80 << 20, "include_dashboard": False}
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **memory})
    try:
        cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
        code, out, err = wavesfm("classify", folder, *options, "--ray", cluster.address)
    finally:
        cluster.shutdown()
    assert code == 2 and "4 recordings: 3 done, 1 failed" in out, err
    result = read_result(tmp_path / "out", folder / "below" / "a_100M_1M.cf32")
    assert result is not None and (result.label, result.tiles) == ("left", 3)


def test_ray_that_is_not_there(
    wavesfm: Callable[..., tuple[int, str, str]],
    folder: Path,
    fake_bundle: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    code, _, err = wavesfm("classify", folder, "--model", fake_bundle, "--results", tmp_path / "out", "--ray", "auto")
    assert code == 2 and "pip install 'ray>=2.40'" in err


def test_a_full_disk_costs_only_the_recordings_that_meet_it(
    folder: Path, fake_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from wavesfm_core.archive import worker
    from wavesfm_core.archive.job import ArchiveJob
    from wavesfm_core.bundle.bundle import Bundle
    from wavesfm_core.cli.classifying import ReadOptions

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(worker, "write_result", full)
    reading = ReadOptions(None, None, None, None, None, None)
    job = ArchiveJob("classify", fake_bundle, Bundle.open(fake_bundle).id, tmp_path, reading, detect="off")
    result = ArchiveWorker(job).work(str(folder / "b_100M_1M.cf32"))
    assert result.state == "failed" and "No space left on device" in result.error
