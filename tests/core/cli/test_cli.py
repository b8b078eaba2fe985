# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `wavesfm`: what it prints and writes, and one sentence with exit code 2 for every bad input."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from support import tiny_bundles
from wavesfm_core import __version__, cli
from wavesfm_core.bundle.bundle import Bundle
from wavesfm_core.cli.parsing import gate_db, hertz
from wavesfm_core.engines.fake import FakeEngine
from wavesfm_core.errors import ConfigurationError
from wavesfm_core.summary import Summary
from wavesfm_core.types import NOISE, Prediction

Tone = Callable[..., np.ndarray]

WHOLE_BAND = ("--detect", "off")  # the tones of these recordings are carriers, which the search does not name


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def wavesfm(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Result]:
    """Run the command in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["wavesfm", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capsys.readouterr()
        return Result(ended.value.code or 0, captured.out, captured.err)

    return run


@pytest.fixture
def recording(tmp_path: Path, tone: Tone) -> Path:
    path = tmp_path / "s_100M_1M.cf32"
    noise = tone(0.1, 4096, snr_db=-200)
    path.write_bytes(np.concatenate([tone(-0.2, 6144), noise, tone(0.3, 2048)]).tobytes())
    return path


def refused(result: Result) -> str:
    """The one sentence of a refusal."""
    assert result.code == 2
    assert result.out == ""
    assert "Traceback" not in result.err
    (line,) = result.err.splitlines()
    assert line.startswith("wavesfm: ")
    return line


def test_info(wavesfm: Callable[..., Result], fake_bundle: Path) -> None:
    result = wavesfm("info", fake_bundle)
    assert result.code == 0
    for text in (
        "fake@",
        "3: noise, left, right",
        "0.25 to 25 MS/s",
        "2048 samples, at least 256",
        "CC0-1.0",
        "fft_size 64",
    ):
        assert text in result.out


def test_check_replays_with_every_engine(wavesfm: Callable[..., Result], fake_bundle: Path) -> None:
    from wavesfm_core.engines import available_engines

    result = wavesfm("check", fake_bundle)
    assert result.code == 0
    assert all(name in result.out for name in available_engines())
    assert "the bundle is whole" in result.out


def test_classify(wavesfm: Callable[..., Result], fake_bundle: Path, recording: Path, tmp_path: Path) -> None:
    result = wavesfm("classify", recording, "--model", fake_bundle, "--json", tmp_path / "out.jsonl")
    assert (result.code, result.err) == (0, "")
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [line["label"] for line in lines] == ["left"] * 3 + [NOISE] * 2 + ["right"]
    assert [line["start_sample"] for line in lines] == list(range(0, 6 * 2048, 2048))
    assert {(line["n_samples"], line["rate_hz"], line["centre_hz"]) for line in lines} == {(2048, 1e6, 100e6)}
    assert set(lines[0]["probabilities"]) == {"noise", "left", "right"}
    assert lines[0]["confidence"] == lines[0]["probabilities"]["left"]
    assert all(line["inferred"] for line in lines)  # too few for the gate to know the noise
    assert "most probable: left" in result.out


def test_json_on_stdout_is_only_json(wavesfm: Callable[..., Result], fake_bundle: Path, recording: Path) -> None:
    result = wavesfm("classify", recording, "--model", fake_bundle, "--json", "-", "--gate", "off", "--rate", "2M")
    assert result.code == 0
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert [line["label"] for line in lines] == ["left"] * 3 + ["noise"] * 2 + ["right"]
    assert lines[0]["rate_hz"] == 2e6
    assert "most probable: left" in result.err


def test_classify_options_reach_the_pipeline(
    wavesfm: Callable[..., Result], fake_bundle: Path, recording: Path
) -> None:
    raw = recording.rename(recording.with_name("x.raw"))
    common = ("classify", raw, "--model", fake_bundle, "--format", "cf32", "--centre", "-5k", "--device", "onnxruntime")
    result = wavesfm(*common, "--json", "-", "--threshold", "1")
    lines = [json.loads(line) for line in result.out.splitlines()]
    assert {line["label"] for line in lines} == {"unknown"}
    assert {line["centre_hz"] for line in lines} == {-5e3}
    assert "onnxruntime" in result.err


@pytest.mark.parametrize("command", ["classify", "annotate"])
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--device", "cpu", "--precision", "int8"), "engine: precision int8: found no such model in the cache"),
        (("--device-id", "-1"), "engine: device_id: found -1, expected 0 or more"),
        (("--device", "abacus"), "engine: device: found 'abacus', expected one of auto, cpu, tensorrt, openvino"),
    ],
)
def test_wrong_options_of_the_engine(
    wavesfm: Callable[..., Result],
    fake_bundle: Path,
    recording: Path,
    command: str,
    options: tuple[str, ...],
    sentence: str,
) -> None:
    result = wavesfm(command, recording, "--model", fake_bundle, *options)
    assert result.code == 2
    assert sentence in " ".join(result.err.split())


@pytest.mark.parametrize("command", ["classify", "annotate"])
def test_the_engine_is_closed_at_the_end(
    wavesfm: Callable[..., Result],
    fake_bundle: Path,
    recording: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[FakeEngine] = []

    def open_engine(bundle: Bundle, *options: object) -> FakeEngine:
        opened.append(FakeEngine(bundle))
        assert options == ("cpu", 1, "f32", 2, None)
        return opened[-1]

    monkeypatch.setattr("wavesfm_core.pipeline.open_engine", open_engine)
    monkeypatch.setattr("wavesfm_core.engines.verify.replay_golden", lambda *_: None)
    options = ("--device", "cpu", "--precision", "f32", "--device-id", 2, "--threads", 1)
    result = wavesfm(command, recording, "--model", fake_bundle, *options)
    assert result.code == 0
    assert [engine.closed for engine in opened] == [True]


def test_noise_that_is_held_back_is_counted(
    wavesfm: Callable[..., Result], fake_bundle: Path, tmp_path: Path, tone: Tone
) -> None:
    (tmp_path / "n.cf32").write_bytes(tone(0, 20 * 2048, snr_db=-200).tobytes())
    result = wavesfm("classify", tmp_path / "n.cf32", "--model", fake_bundle)
    assert "most probable: noise" in result.out
    assert re.search(r"tiles held back by the power gate: 1\d", result.out)


def test_samples_that_are_not_finite_are_told(
    wavesfm: Callable[..., Result], fake_bundle: Path, tmp_path: Path, tone: Tone
) -> None:
    samples = tone(0.3, 2048)
    samples[7:10] = np.nan
    (tmp_path / "n.cf32").write_bytes(samples.tobytes())
    result = wavesfm("classify", tmp_path / "n.cf32", "--model", fake_bundle)
    assert result.code == 0
    assert "note: samples that are NaN or infinite: 3" in result.out


def test_annotate(wavesfm: Callable[..., Result], fake_bundle: Path, recording: Path) -> None:
    result = wavesfm("annotate", recording, "--model", fake_bundle, *WHOLE_BAND)
    assert result.code == 0
    meta = json.loads((recording.parent / "s_100M_1M.sigmf-meta").read_text())
    spans = [(a["core:sample_start"], a["core:sample_count"], a["core:label"]) for a in meta["annotations"]]
    assert spans == [(0, 6144, "left"), (10240, 2048, "right")]


def test_annotate_elsewhere(wavesfm: Callable[..., Result], fake_bundle: Path, recording: Path, tmp_path: Path) -> None:
    for output in ("one.sigmf-meta", "folder"):
        result = wavesfm(
            "annotate", recording, "--model", fake_bundle, *WHOLE_BAND, "--output", tmp_path / "out" / output
        )
        assert result.code == 0
    assert not recording.with_suffix(".sigmf-meta").exists()
    for name in ("out/one", "out/folder/s_100M_1M"):
        meta = json.loads((tmp_path / f"{name}.sigmf-meta").read_text())
        assert [each["core:label"] for each in meta["annotations"]] == ["left", "right"]
        assert (tmp_path / f"{name}.sigmf-data").samefile(recording)


def test_the_table_says_what_was_found_when_and_where(
    wavesfm: Callable[..., Result], fake_bundle: Path, recording: Path
) -> None:
    out = wavesfm("classify", recording, "--model", fake_bundle, *WHOLE_BAND).out
    assert re.search(r"0\.000 +0\.006 +100 +left +[01]\.\d\d +3 ", out), out
    assert re.search(r"0\.006 +0\.004 +100 +noise +[01]\.\d\d +2 ", out), out
    assert re.search(r"0\.010 +0\.002 +100 +right +[01]\.\d\d +1 ", out), out
    assert "note:" not in out


def test_table_json_and_annotations_are_of_one_analysis(
    wavesfm: Callable[..., Result], fake_bundle: Path, recording: Path, tmp_path: Path
) -> None:
    out = wavesfm("annotate", recording, "--model", fake_bundle, *WHOLE_BAND).out
    wavesfm("classify", recording, "--model", fake_bundle, *WHOLE_BAND, "--json", tmp_path / "x.jsonl")
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    meta = json.loads(recording.with_suffix(".sigmf-meta").read_text())
    for label in ("left", "right"):
        mean = np.mean([line["confidence"] for line in lines if line["label"] == label])
        (annotation,) = [each for each in meta["annotations"] if each["core:label"] == label]
        assert f"confidence {mean:.3f}, mean of" in annotation["core:comment"]
        assert re.search(rf"{label} +{mean:.2f} ", out)


@pytest.mark.parametrize(
    ("options", "note"),
    [((), "the sample rate is unknown"), (("--rate", "48k"), "the sample rate is outside 0.25 to 25 MS/s")],
)
def test_a_guess_is_marked_in_table_verdict_json_and_annotations(
    wavesfm: Callable[..., Result], fake_bundle: Path, tmp_path: Path, tone: Tone, options: tuple[str, ...], note: str
) -> None:
    path = tmp_path / "x.cf32"
    path.write_bytes(tone(0.3, 4096).tobytes())
    result = wavesfm("classify", path, "--model", fake_bundle, *WHOLE_BAND, *options, "--json", tmp_path / "x.jsonl")
    assert re.search(r" right\? ", result.out)
    assert "most probable: right? (" in result.out
    assert f"note: {note}" in result.out
    assert all(json.loads(line)["rate_note"] for line in (tmp_path / "x.jsonl").read_text().splitlines())
    wavesfm("annotate", path, "--model", fake_bundle, *options)
    (annotation,) = json.loads(path.with_suffix(".sigmf-meta").read_text())["annotations"]
    assert "; sample rate " in annotation["core:comment"]


def test_a_part_of_a_recording(wavesfm: Callable[..., Result], fake_bundle: Path, recording: Path) -> None:
    def starts(*options: str) -> list[int]:
        out = wavesfm("classify", recording, "--model", fake_bundle, "--json", "-", *options).out
        return [json.loads(line)["start_sample"] for line in out.splitlines()]

    assert starts("--start", "2048", "--length", "4096") == [2048, 4096]
    assert starts("--start", "2.048ms", "--length", "4.096ms") == [2048, 4096]
    assert starts("--start", "9000") == [9000, 11048]


def test_standard_input(
    wavesfm: Callable[..., Result], fake_bundle: Path, recording: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with recording.open("rb") as file:
        monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=file))
        options = ("--format", "cf32", "--rate", "1M", "--centre", "100M")
        result = wavesfm("classify", "-", "--model", fake_bundle, *options)
    assert result.code == 0, result.err
    assert re.search(r"0\.010 +0\.002 +100 +right ", result.out), result.out
    line = refused(wavesfm("annotate", "-", "--model", fake_bundle, "--format", "cf32"))
    assert "recording: found a stream, expected a file" in line


def test_many_recordings_and_folders_are_one_table(
    wavesfm: Callable[..., Result], fake_bundle: Path, recording: Path, tmp_path: Path, tone: Tone
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a_50M_1M.cf32").write_bytes(tone(0.3, 4096).tobytes())
    (folder / "b_60M_1M.cf32").write_bytes(bytes(7))
    (folder / "c.cf32").write_bytes(tone(-0.2, 2100).tobytes())
    result = wavesfm("classify", recording, folder, "--model", fake_bundle, *WHOLE_BAND, "--json", tmp_path / "x.jsonl")
    assert result.code == 2  # of b
    assert re.search(r"note: passed over: \S+b_60M_1M.cf32: size: found 7 bytes", result.err)
    assert re.search(r"s_100M_1M.cf32 +0\.012 +1 +100 +left \(0\.\d+\) +6 +3 +0", result.out), result.out
    assert re.search(r"a_50M_1M.cf32 +0\.004 +1 +50 +right \([01]\.\d+\) +2 +1 +0", result.out), result.out
    assert re.search(r"c.cf32 +unknown +left\? ", result.out), result.out
    assert "note: c.cf32: the sample rate is unknown" in result.out
    assert "note: c.cf32: 52 of 2100 samples (2.5%) were not looked at" in result.out
    names = [json.loads(line)["recording"] for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    assert names == ["s_100M_1M.cf32"] * 6 + ["a_50M_1M.cf32"] * 2 + ["c.cf32"]


def test_a_wrong_option_ends_many_recordings_at_once(
    wavesfm: Callable[..., Result], fake_bundle: Path, recording: Path
) -> None:
    result = wavesfm("classify", recording, recording, "--model", fake_bundle, *WHOLE_BAND, "--rate", "4")
    assert "--rate: found '4'" in refused(result)


def test_samples_that_no_tile_covers_are_counted(
    wavesfm: Callable[..., Result], fake_bundle: Path, tmp_path: Path, tone: Tone
) -> None:
    tone(0.3, 4096).tofile(tmp_path / "x.sigmf-data")
    captures = [{"core:sample_start": start, "core:frequency": 1e8 + start} for start in (0, 2048, 2248, 2448)]
    meta = {
        "global": {"core:datatype": "cf32_le", "core:version": "1.2.0", "core:sample_rate": 1e6},
        "captures": [*captures, {"core:sample_start": 4096}],
        "annotations": [],
    }
    (tmp_path / "x.sigmf-meta").write_text(json.dumps(meta))
    out = wavesfm("classify", tmp_path / "x", "--model", fake_bundle).out
    assert "note: 448 of 4096 samples (10.9%) were not looked at, too few for a tile, which takes 256 or more" in out
    assert "which takes 256 or more: 400 before a change of frequency or rate, 48 at the end" in out
    assert "note: 1 captures begin at sample 4096, past the last of the 4096 samples: left out" in out


def test_a_wrong_hash_is_noted(wavesfm: Callable[..., Result], fake_bundle: Path, tmp_path: Path, tone: Tone) -> None:
    tone(0.3, 4096).tofile(tmp_path / "x.sigmf-data")
    fields = {"core:datatype": "cf32_le", "core:version": "1.2.0", "core:sha512": "0" * 128, "core:sample_rate": 1e6}
    meta = {"global": fields, "captures": [], "annotations": []}
    (tmp_path / "x.sigmf-meta").write_text(json.dumps(meta))
    out = wavesfm("classify", tmp_path / "x", "--model", fake_bundle).out
    assert "note: core:sha512 of the metadata is not that of the samples" in out


def test_times_are_exact_in_json(wavesfm: Callable[..., Result], fake_bundle: Path, tmp_path: Path, tone: Tone) -> None:
    tone(0.3, 4096).tofile(tmp_path / "x.sigmf-data")
    fields = {"core:datatype": "cf32_le", "core:version": "1.2.0", "core:sample_rate": 1e6}
    captures = [{"core:sample_start": 0, "core:datetime": "1969-12-31T23:59:59.999000001Z"}]
    (tmp_path / "x.sigmf-meta").write_text(json.dumps({"global": fields, "captures": captures, "annotations": []}))
    out = wavesfm("classify", tmp_path / "x", "--model", fake_bundle, "--json", "-").out
    first, second = [json.loads(line)["time"] for line in out.splitlines()]
    assert first == {"full_s": -1, "frac_s": 0.999000001, "utc": "1969-12-31T23:59:59.999000001Z"}
    assert second["full_s"] == 0
    assert second["utc"] == "1970-01-01T00:00:00.001048001Z"


def test_the_version(wavesfm: Callable[..., Result]) -> None:
    result = wavesfm("--version")
    assert (result.code, result.out, result.err) == (0, f"wavesfm {__version__}\n", "")


def test_bench(wavesfm: Callable[..., Result], fake_bundle: Path, tmp_path: Path) -> None:
    peer = tmp_path / "peer.py"
    peer.write_text('print("""noise of the runtime\\n{"msamples_per_s": 100.0}""")')
    result = wavesfm(
        "bench", "--model", fake_bundle, "--seconds", "0.01", "--peer", peer, "--json", tmp_path / "bench.json"
    )
    assert result.code == 0
    figures = json.loads((tmp_path / "bench.json").read_text())
    kernel, chain, own = figures["spectrogram"]
    assert chain["msamples_per_s"] == 100.0
    assert kernel["msamples_per_s"] > 0
    assert own["msamples_per_s"] > 0
    assert f"{kernel['msamples_per_s'] / 100:.2f} times" in result.out
    assert {(row["threads"], row["batch"]) for row in figures["engines"]} == {(1, 1), (1, 8), (2, 1), (2, 8)}


@pytest.mark.parametrize("script", ["raise SystemExit(1)", "print('no json')", "print(1)"])
def test_bench_goes_on_without_a_peer(wavesfm: Callable[..., Result], tmp_path: Path, script: str) -> None:
    (tmp_path / "peer.py").write_text(script)
    result = wavesfm("bench", "--seconds", "0.01", "--peer", tmp_path / "peer.py")
    assert result.code == 0
    assert "not measured" in result.out


def break_key(bundle: Path) -> None:
    values = json.loads((bundle / "bundle.json").read_text())
    del values["head"]["labels"]
    (bundle / "bundle.json").write_text(json.dumps(values))


def break_version(bundle: Path) -> None:
    values = json.loads((bundle / "bundle.json").read_text())
    (bundle / "bundle.json").write_text(json.dumps({**values, "schema_version": 99}))


def break_hash(bundle: Path) -> None:
    (bundle / "model.onnx").write_bytes((bundle / "model.onnx").read_bytes() + b"\x00")


def break_golden(bundle: Path) -> None:
    with np.load(bundle / "golden.npz") as archive:
        arrays = dict(archive)
    arrays["out_logits"] += 1
    np.savez(bundle / "golden.npz", **arrays)


BROKEN_BUNDLES = {
    "key": (break_key, "bundle.json: head: head.labels: found nothing, expected two or more different labels"),
    "version": (break_version, "bundle.json: schema_version: found 99, expected 1"),
    "hash": (break_hash, "model.onnx: sha256: found "),
    "file": (lambda bundle: (bundle / "golden.npz").unlink(), "golden.npz: file: found nothing"),
    "golden": (break_golden, "golden stage engine"),
}


@pytest.mark.parametrize("case", BROKEN_BUNDLES)
@pytest.mark.parametrize("command", ["check", "classify"])
def test_broken_bundle(
    wavesfm: Callable[..., Result], fake_bundle: Path, recording: Path, tmp_path: Path, command: str, case: str
) -> None:
    bundle = Path(shutil.copytree(fake_bundle, tmp_path / "bundle"))
    change, message = BROKEN_BUNDLES[case]
    change(bundle)
    arguments = ("check", bundle) if command == "check" else ("classify", recording, "--model", bundle)
    line = refused(wavesfm(*arguments))
    assert message in line
    assert str(bundle) in line


def test_a_model_that_is_not_what_the_bundle_says(
    wavesfm: Callable[..., Result], make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    from support import tiny_onnx

    bundle = make_bundle(tmp_path / "b", model=tiny_onnx.model(3, logits="scores"))
    line = refused(wavesfm("check", bundle))
    assert "model.onnx: output scores: found a tensor that bundle.json does not name, expected one of logits" in line


BAD_RECORDINGS = {
    "empty": ("x.cu8", b"", (), "size: found 0 bytes, expected samples"),
    "no sample": ("x.cf32", bytes(7), (), "size: found 7 bytes, expected samples of 8 bytes"),
    "short": ("x.cu8", bytes(20), (), "length: found 10 samples, expected at least 256"),
    "format": ("x.iq", b"1234", (), "format: found the suffix .iq, expected --format, one of cu8"),
    "wrong format": (
        "x.cu8",
        b"1234",
        ("--format", "mp3"),
        "format: found 'mp3', expected one of cu8, cs8, cs16, cs24",
    ),
    "rate": ("x.cu8", b"1234", ("--rate", "fast"), "--rate: found 'fast', expected a positive number of Hz"),
    "rate zero": ("x.cu8", b"1234", ("--rate", "0"), "--rate: found '0', expected a positive number of Hz"),
    "rate without unit": ("x.cu8", b"1234", ("--rate", "4"), "--rate: found '4', expected 1000 Hz or more, as in 2M"),
    "rate nan": ("x.cu8", b"1234", ("--rate", "nan"), "--rate: found 'nan', expected a positive number of Hz"),
    "start": ("x.cu8", bytes(600), ("--start", "2h"), "--start: found '2h', expected seconds such as 2.5s or 40ms"),
    "start of samples": ("x.cu8", bytes(600), ("--start", "0.5"), "--start: found '0.5', expected seconds such as"),
    "start in s": ("x.cu8", bytes(600), ("--start", "1s"), "--start: found '1s', expected samples, or a --rate"),
    "start late": ("x.cu8", bytes(600), ("--start", "300"), "part: found samples 300 to 300, expected within the 300"),
    "channel": ("x.cu8", bytes(600), ("--channel", "1"), "channel: found 1, expected 0"),
    "gate": ("x.cu8", bytes(600), ("--gate", "loud"), "--gate: found 'loud', expected a number of dB or off"),
    "threshold": ("x.cu8", bytes(600), ("--threshold", "2"), "threshold: found 2.0, expected 0 to 1"),
    "device": ("x.cu8", bytes(600), ("--device", "gpu"), "device: found 'gpu', expected one of auto, cpu"),
    "json": (
        "x.cu8",
        bytes(600),
        ("--json", "/no/where.jsonl"),
        "/no/where.jsonl: --json: found No such file or directory",
    ),
    "meta": ("x.sigmf-meta", b"{", (), "x.sigmf-meta: contents: found no JSON"),
}


@pytest.mark.parametrize("case", BAD_RECORDINGS)
def test_bad_recording_or_option(wavesfm: Callable[..., Result], fake_bundle: Path, tmp_path: Path, case: str) -> None:
    name, content, options, message = BAD_RECORDINGS[case]
    (tmp_path / name).write_bytes(content)
    assert message in refused(wavesfm("classify", tmp_path / name, "--model", fake_bundle, *options))


def test_missing_recording_and_bundle(wavesfm: Callable[..., Result], fake_bundle: Path, recording: Path) -> None:
    assert "no.cu8: file: found nothing" in refused(wavesfm("classify", "no.cu8", "--model", fake_bundle))
    assert "none: bundle: found nothing" in refused(wavesfm("classify", recording, "--model", "none"))
    assert "none: bundle: found nothing" in refused(wavesfm("info", "none"))


def test_a_full_disk_is_one_sentence(wavesfm: Callable[..., Result], fake_bundle: Path, recording: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full")
    line = refused(wavesfm("classify", recording, "--model", fake_bundle, "--json", "/dev/full"))
    assert "/dev/full: --json: found No space left on device" in line


def test_wrong_usage_ends_with_2(wavesfm: Callable[..., Result]) -> None:
    assert wavesfm("classify").code == 2
    assert wavesfm("fly").code == 2


@pytest.mark.parametrize("name", ["typer", "rich"])
def test_a_missing_package_says_which_extra(
    wavesfm: Callable[..., Result], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in [module for module in sys.modules if module.startswith("wavesfm_core.cli.")]:
        monkeypatch.delitem(sys.modules, module)
    for module in [module for module in sys.modules if module == name or module.startswith(name + ".")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, name, None)
    assert "pip install 'typer>=0.12' 'rich>=13'" in refused(wavesfm("info", "x"))


def test_a_reader_that_leaves_early_is_no_fault(fake_bundle: Path, recording: Path) -> None:
    source = Path(cli.__file__).parents[2]
    start = f"import sys; sys.path.insert(0, {str(source)!r}); from wavesfm_core.cli import main; main()"
    command = [sys.executable, "-c", start, "classify", str(recording), "--model", str(fake_bundle), "--json", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    process.stdout = None
    _, err = process.communicate(timeout=300)
    assert "Traceback" not in err
    assert "Exception" not in err


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2M", 2e6),
        ("1.92e6", 1.92e6),
        ("250k", 250e3),
        ("2.4G", 2.4e9),
        ("48000", 48e3),
        ("1.5 MHz", 1.5e6),
        (None, None),
    ],
)
def test_hertz(text: str | None, value: float | None) -> None:
    assert hertz("--rate", text) == value


@pytest.mark.parametrize("text", ["", "M", "2MM", "-2M", "0", "inf", "1e400", "nan", "2 M S"])
def test_hertz_refuses(text: str) -> None:
    with pytest.raises(ConfigurationError, match=r"command line: --rate: found"):
        hertz("--rate", text)


def test_gate() -> None:
    assert (gate_db("off"), gate_db("OFF"), gate_db("7.5")) == (None, None, 7.5)


def test_summary_takes_the_highest_mean_probability_of_tiles_with_a_signal() -> None:
    def said(label: str, **probabilities: float) -> Prediction:
        return Prediction(label, 0.5, probabilities, 0, 1, 0.0, None, None, False, None, "m")

    noise = [said(NOISE, a=0.1, b=0.0), said(NOISE)]
    summary = Summary().add([said("a", a=0.6, b=0.4), said("a", a=0.6, b=0.4), *noise, said("b", a=0.0, b=1.0)])
    assert summary.label == "b"
    assert summary.probabilities == pytest.approx({"a": 0.4, "b": 0.6})
    assert summary.counts == {"a": 2, "b": 1, NOISE: 2}
    assert Summary().add(noise[:1]).label == "a"  # nothing but noise: its own probabilities


INFO = {
    "classification": ("3: run, walk, fall", "threshold", "an array [3, rows, columns]"),
    "position": ("x 0 to 80 m, y -10 to 60 m, z 1 to 2 m", "channels 3"),
    "channel": ("2 antennas, 3 symbols, 4 subcarriers", "channel [-1, 2, 2, 12]"),
}


@pytest.mark.parametrize("task", INFO)
def test_info_and_check_of_images(wavesfm: Callable[..., Result], tmp_path: Path, task: str) -> None:
    bundle = tiny_bundles.make_image_bundle(tmp_path / "b", task)
    result = wavesfm("info", bundle)
    assert result.code == 0
    assert all(text in result.out for text in (*INFO[task], f"tiny-{task}@", task))
    assert "MS/s" not in result.out
    result = wavesfm("check", bundle)
    assert result.code == 0
    assert "the bundle is whole" in result.out


@pytest.mark.parametrize("command", ["classify", "annotate"])
def test_images_do_not_classify_recordings(
    wavesfm: Callable[..., Result], tmp_path: Path, recording: Path, command: str
) -> None:
    bundle = tiny_bundles.make_image_bundle(tmp_path / "b", "classification")
    kept = tmp_path / "earlier.jsonl"
    kept.write_text("kept")
    line = refused(wavesfm(command, recording, "--model", bundle, *(["--json", kept] if command == "classify" else [])))
    assert "found a model for images, expected one for spectrograms" in line
    assert kept.read_text() == "kept"


def test_bench_of_images_times_the_engines_only(wavesfm: Callable[..., Result], tmp_path: Path) -> None:
    bundle = tiny_bundles.make_image_bundle(tmp_path / "b", "position")
    options = ("--seconds", "0.01", "--peer", tmp_path / "none.py", "--json", tmp_path / "bench.json")
    assert wavesfm("bench", "--model", bundle, *options).code == 0
    figures = json.loads((tmp_path / "bench.json").read_text())
    assert len(figures["spectrogram"]) == 2
    assert all(row["ms_per_tile"] > 0 for row in figures["engines"])
