# SPDX-License-Identifier: GPL-3.0-or-later
"""GNU Radio Companion: every yml becomes a block that runs, every example compiles, those that read files run."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pmt
import pytest
from gnuradio import gr, wavesfm
from support.ofdm_graphs import channels, numerology, write_numerology
from wavesfm_core.bundle.covariance import Covariances
from wavesfm_core.channel.uplink import save_channels

ROOT = Path(__file__).parents[2]
YMLS = sorted((ROOT / "grc").glob("*.block.yml"))
EXAMPLES = sorted((ROOT / "examples").glob("*.grc"))
TILE = 2048


def run(command, cwd=None):
    """Run a program that sees our blocks and no screen; it fails the test when it hangs."""
    ours = {
        "GRC_BLOCKS_PATH": str(ROOT / "grc"),
        "QT_QPA_PLATFORM": "offscreen",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    return subprocess.run(command, cwd=cwd, env={**os.environ, **ours}, capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def companion():
    """A platform of GNU Radio Companion that knows GNU Radio's own blocks and ours."""
    from gnuradio.grc.core.platform import Platform

    parts = (gr.major_version(), gr.api_version(), gr.minor_version())
    platform = Platform(name="test", prefs=gr.prefs(), version=gr.version(), version_parts=parts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRC_BLOCKS_PATH", str(ROOT / "grc"))
        platform.build_library()
    return platform


@pytest.fixture()
def spec_file(tmp_path):
    return write_numerology(numerology(), tmp_path / "numerology.json")


@pytest.fixture()
def channels_file(tmp_path):
    save_channels(tmp_path / "channels.npz", channels(numerology(), 4), numerology())
    return str(tmp_path / "channels.npz")


@pytest.fixture()
def covariances_file(tmp_path):
    Covariances.learn([channels(numerology(), 4)]).save(tmp_path / "covariances.npz")
    return str(tmp_path / "covariances.npz")


@pytest.fixture()
def values(fake_bundle, recording, spec_file, channels_file, covariances_file, tmp_path):
    """What a user must give, by block."""
    return {
        "wavesfm_recording_source": {"filename": str(recording)},
        "wavesfm_classifier": {"bundle": str(fake_bundle)},
        "wavesfm_prediction_sink": {"filename": str(tmp_path / "o")},
        "wavesfm_channel_estimator": {"numerology": spec_file, "fft_size": "32", "covariances": covariances_file},
        "wavesfm_ofdm_pilot_grid": {"numerology": spec_file, "antennas": "3"},
        "wavesfm_uplink_simulator": {"channels": channels_file, "antennas": "3"},
        "wavesfm_signal_display": {},
        "wavesfm_estimator_display": {},
    }


def make(companion, name, values):
    graph = companion.make_flow_graph()
    block = graph.new_block(name)
    for key, value in {"id": "made", **values}.items():
        block.params[key].set_value(value)
    graph.rewrite()
    block.validate()
    return block


def names():
    return [path.name.removesuffix(".block.yml") for path in YMLS]


def test_there_is_a_yml_for_every_block():
    assert names() == [f"wavesfm_{name}" for name in sorted(wavesfm.__all__)]


@pytest.mark.parametrize("name", names())
def test_a_yml_makes_its_block(name, companion, values):
    block = make(companion, name, values[name])
    assert {text for _, text in block.iter_error_messages()} == {"Port is not connected."}
    namespace = {}
    exec(block.templates.render("imports"), namespace)
    text = block.templates.render("make").strip().split("\nself.")[0]  # what follows places the window of a display
    made = eval(text, namespace)
    assert type(made).__name__ == name.removeprefix("wavesfm_")
    for callback in block.templates.render("callbacks") or []:
        eval(f"made.{callback}", namespace, {"made": made})
    assert block.category == ["WavesFM"]
    assert len(block.documentation[""]) > 200
    for port in (*block.sinks, *block.sources):
        assert port.domain == "stream" or has_port(made, port)


def has_port(made, port):
    """Whether a block, hierarchical or not, has the message port of a yml."""
    name = pmt.intern(port.key)
    if port.is_sink:
        return made.message_port_is_hier_in(name) or port.key in pmt.to_python(made.message_ports_in())
    return made.message_port_is_hier_out(name) or port.key in pmt.to_python(made.message_ports_out())


def test_every_parameter_of_a_block_is_in_its_yml(companion):
    for name in names():
        parameters = inspect.signature(getattr(wavesfm, name.removeprefix("wavesfm_"))).parameters
        own = set(make(companion, name, {}).params) - {"id", "alias", "affinity", "minoutbuf", "maxoutbuf", "comment"}
        own -= {"gui_hint"}
        assert own == set(parameters) - {"self"}


@pytest.mark.parametrize(("input_type", "size"), [("fc32", 8), ("sc16", 4), ("sc8", 2)])
def test_the_input_of_a_classifier_has_the_size_of_its_type(input_type, size, companion, values):
    from gnuradio.grc.core.Constants import TYPE_TO_SIZEOF

    block = make(companion, "wavesfm_classifier", {**values["wavesfm_classifier"], "input_type": input_type})
    assert TYPE_TO_SIZEOF[block.sinks[0].dtype] == size


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("wavesfm_classifier", ("bundle", "")),
        ("wavesfm_classifier", ("sample_rate", "-1")),
        ("wavesfm_classifier", ("center_freq", "-1")),
        ("wavesfm_classifier", ("threshold", "1.5")),
        ("wavesfm_classifier", ("queue_tiles", "0")),
        ("wavesfm_classifier", ("batch_tiles", "0")),
        ("wavesfm_classifier", ("batch_wait_ms", "-1")),
        ("wavesfm_classifier", ("max_age_s", "-1")),
        ("wavesfm_classifier", ("ask_again_s", "-1")),
        ("wavesfm_classifier", ("time_tolerance_s", "-1")),
        ("wavesfm_classifier", ("threads", "-1")),
        ("wavesfm_channel_estimator", ("numerology", "")),
        ("wavesfm_channel_estimator", ("fft_size", "0")),
        ("wavesfm_channel_estimator", ("snr_leave_db", "100")),
        ("wavesfm_channel_estimator", ("residual_leave", "2")),
        ("wavesfm_channel_estimator", ("antenna", "-2")),
        ("wavesfm_channel_estimator", ("batch_slots", "0")),
        ("wavesfm_channel_estimator", ("max_age_s", "-1")),
        ("wavesfm_channel_estimator", ("threads", "-1")),
        ("wavesfm_ofdm_pilot_grid", ("numerology", "")),
        ("wavesfm_ofdm_pilot_grid", ("slot_tag", "")),
        ("wavesfm_ofdm_pilot_grid", ("sample_rate", "-1")),
        ("wavesfm_ofdm_pilot_grid", ("antennas", "0")),
        ("wavesfm_uplink_simulator", ("channels", "")),
        ("wavesfm_uplink_simulator", ("speed", "-1")),
        ("wavesfm_uplink_simulator", ("slots", "-1")),
        ("wavesfm_uplink_simulator", ("slots_per_s", "-1")),
        ("wavesfm_signal_display", ("sample_rate", "-1")),
        ("wavesfm_signal_display", ("history_s", "0")),
        ("wavesfm_signal_display", ("keep_mb", "-1")),
        ("wavesfm_estimator_display", ("history", "1")),
        ("wavesfm_recording_source", ("filename", "")),
        ("wavesfm_recording_source", ("sample_rate", "-1")),
        ("wavesfm_recording_source", ("center_freq", "-1")),
    ],
)
def test_the_asserts_refuse(name, wrong, companion, values):
    block = make(companion, name, {**values[name], **dict([wrong])})
    assert any("Assertion" in said[1] for said in block.iter_error_messages())


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """The directory of what grcc makes of every example."""
    directory = tmp_path_factory.mktemp("compiled")
    command = ["grcc", "-o", str(directory), *map(str, EXAMPLES)]
    done = run(command)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


def test_the_example_of_a_source_without_tags_retunes_the_classifier(compiled):
    code = (compiled / "classify_rtlsdr.py").read_text()
    setter = code[code.index("def set_frequency(") :].split("\n    def ")[0]
    assert "self.classifier.set_center_freq(self.frequency)" in setter
    assert "sample_rate=rate" in code and "center_freq=frequency" in code and "max_age_s=0.5" in code


@pytest.fixture()
def recording(tone, tmp_path):
    path = tmp_path / "recording.cf32"
    tone(-0.2, 20 * TILE + 300).tofile(path)
    return path


@pytest.mark.parametrize("example", [path.stem for path in EXAMPLES])
def test_an_example_compiles_and_imports(example, compiled):
    code = f"import {example}; assert callable({example}.main)"
    done = run([sys.executable, "-c", code], cwd=compiled)
    assert done.returncode == 0, done.stderr


def test_the_example_without_a_window_runs_to_the_end(compiled, fake_bundle, recording, tmp_path):
    arguments = [
        "--bundle",
        fake_bundle,
        "--recording",
        recording,
        "--rate",
        "1M",
        "--predictions",
        tmp_path / "out.jsonl",
    ]
    command = [sys.executable, str(compiled / "classify_file_nogui.py"), *map(str, arguments)]
    done = run(command)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(line["label"], line["rate_hz"]) for line in lines] == [("left", 1e6)] * 21
    assert "finished" in done.stdout


WINDOW = """
import signal, sys
from PyQt5 import Qt
import {example} as example
application = Qt.QApplication(sys.argv)
top = example.{example}(bundle=sys.argv[1], recording=sys.argv[2], {lines}=sys.argv[3]{options})
sink = top.{sink}
if hasattr(example, "snippets_main_after_init"):
    example.snippets_main_after_init(top)
    print("throttle", top.throttle.sample_rate())
top.start()
top.show()
top.set_threshold(0.5)
poll = Qt.QTimer()
poll.timeout.connect(lambda: sink.count > {count} and top.display.status()["samples_in"] and application.quit())
poll.start(50)
application.exec_()
top.stop()
top.wait()
print("refused", top.display.status()["messages_refused"])
print("emitters", len(top.display.model.snapshot().emitters))
"""


def run_window(
    example, options, compiled, fake_bundle, recording, lines="predictions", sink="prediction_sink", count=30
):
    """Show the compiled example's window until so many lines came; returns what was printed and the lines."""
    path = recording.with_name("lines.jsonl")
    code = WINDOW.format(example=example, options=options, lines=lines, sink=sink, count=count)
    done = run([sys.executable, "-c", code, str(fake_bundle), str(recording), str(path)], cwd=compiled)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout) < 2000 and "refused 0" in done.stdout, done.stdout
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert len(records) > count
    return done.stdout, records


def test_the_example_with_a_window_runs(compiled, fake_bundle, recording):
    run_window("classify_file", ", rate=1e6", compiled, fake_bundle, recording)


def test_the_example_of_any_recording_takes_its_rate(compiled, fake_bundle, tone, tmp_path):
    path = tmp_path / "g001_433.92M_500k.cu8"
    (tone(-0.2, 20 * TILE).view("f4") * 5000 + 127.5).clip(0, 255).astype("u1").tofile(path)
    said, records = run_window("classify_recording", "", compiled, fake_bundle, path)
    assert "throttle 500000.0" in said
    assert {(r["rate_hz"], r["centre_hz"]) for r in records} == {(500e3, 433.92e6)}


@pytest.fixture()
def band(tmp_path):
    """Half a second of two signals side by side that begin and end."""
    rng = np.random.default_rng(1)
    n = 1 << 19
    noise = rng.normal(size=(2, n, 2)).astype(np.float32).view(np.complex64)[..., 0]
    f = np.fft.fftfreq(n)
    both = np.fft.ifft(np.fft.fft(noise[1]) * ((np.abs(f + 0.25) < 0.05) | (np.abs(f - 0.2) < 0.02)))
    samples = noise[0] * np.float32(0.01)
    samples[n // 4 : n // 2] += 0.1 * both[n // 4 : n // 2]
    path = tmp_path / "band_868M_1M.cf32"
    samples.astype(np.complex64).tofile(path)
    return path


def test_the_example_that_searches_the_band_shows_boxes(compiled, fake_bundle, band):
    said, records = run_window("detect_recording", "", compiled, fake_bundle, band, "events", "event_sink", 10)
    assert {"appeared", "ended"} <= {record["event"] for record in records}
    assert {round(record["low_hz"], -5) for record in records if record["kind"] == "signal"} == {-300e3, 200e3}
    assert int(said.rsplit("emitters ", 1)[1]) >= 2


def test_the_example_that_searches_without_a_window_runs_to_the_end(compiled, fake_bundle, band, tmp_path):
    arguments = ["--bundle", fake_bundle, "--recording", band, "--events", tmp_path / "events.jsonl"]
    done = run([sys.executable, str(compiled / "detect_recording_nogui.py"), *map(str, arguments)])
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    ended = [record for record in records if record["event"] == "ended" and record["kind"] == "signal"]
    assert sorted(round(record["low_hz"], -4) for record in ended) == [-300e3, 180e3]
    assert "finished" in done.stdout


LONGEST_VALUE = 20  # letters that Companion shows of a value, the rest is cut
LETTER, LINE, PORT = 5.7, 16, 32  # pixels


def extent(block):
    """Rectangle that Companion draws, a little too large: left, top, right, bottom."""
    shown = [p for p in block.params.values() if p.hide not in ("all", "part")]
    lines = [f"{p.name}: {p.get_value()[:LONGEST_VALUE]}" for p in shown]
    letters = max([len(block.label) + 4, *map(len, lines)])
    ports = max(len(block.active_sources), len(block.active_sinks))
    left, top = block.states["coordinate"]
    return left, top, left + LETTER * letters + 16, top + max(40 + LINE * len(lines), PORT * ports)


def overlap(one, other):
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_blocks_of_an_example_do_not_overlap_and_its_wires_have_room(example, companion):
    graph = companion.make_flow_graph(str(example))
    graph.rewrite()
    blocks = {block.name: extent(block) for block in graph.blocks}
    names = sorted(blocks)
    touching = [(a, b) for i, a in enumerate(names) for b in names[:i] if overlap(blocks[a], blocks[b])]
    assert touching == []
    narrow = [
        (wire.source_block.name, wire.sink_block.name)
        for wire in graph.connections
        if blocks[wire.sink_block.name][0] - wire.source_block.states["coordinate"][0] < 150
    ]
    assert narrow == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_widgets_of_an_example_have_places_of_their_own(example, companion):
    graph = companion.make_flow_graph(str(example))
    places = {}
    for block in graph.blocks:
        if "gui_hint" in block.params and (hint := block.params["gui_hint"].get_value()):
            row, column, rows, columns = map(int, hint.split(","))
            places[block.name] = (column, row, column + columns, row + rows)
    names = sorted(places)
    assert [(a, b) for i, a in enumerate(names) for b in names[:i] if overlap(places[a], places[b])] == []


BUNDLES = ["", str(ROOT / "models" / "chanest-nano")]  # none: least squares


def example_files(bundle):
    files = {"channels": "uplink_umi_3mps.npz", "numerology": "numerology_16x48.json"}
    return {name: str(ROOT / "examples" / file) for name, file in files.items()} | {"bundle": bundle}


@pytest.mark.parametrize("bundle", BUNDLES, ids=["least squares", "model"])
@pytest.mark.parametrize("sync", ["tag", "pilots"])
def test_the_uplink_without_a_window_runs_to_the_end_and_equalises(sync, bundle, compiled, tmp_path):
    arguments = [f"--{name}={value}" for name, value in example_files(bundle).items()]
    arguments += ["--slots=60", "--snr-db=20", f"--sync={sync}", f"--symbols={tmp_path / 'symbols.cf32'}"]
    done = run([sys.executable, str(compiled / "uplink_chanest_nogui.py"), *arguments])
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("(kind . finished)") == 2
    symbols = np.fromfile(tmp_path / "symbols.cf32", np.complex64)
    assert symbols.size == 60 * 14 * 48
    points = (np.sign(symbols.real) + 1j * np.sign(symbols.imag)) / np.sqrt(2)
    assert np.sqrt(np.mean(np.abs(symbols - points) ** 2)) < 0.1


UPLINK_WINDOW = """
import json, sys
from PyQt5 import Qt
import uplink_chanest as example
application = Qt.QApplication(sys.argv)
top = example.uplink_chanest(**json.loads(sys.argv[1]))
top.start()
top.show()
poll, steps = Qt.QTimer(), [20, 40]

def turn():
    status = top.estimator.status()
    if steps and status["estimated"] >= steps[0]:
        steps.pop(0)
        top.set_antenna(-1)
        top.set_snr_db(30)
        top.set_speed(4)
        top.set_method("ls-nearest")
    elif not steps and status["method"] == "ls-nearest":  # that of the last estimate: the one in work may be older
        application.quit()

poll.timeout.connect(turn)
poll.start(20)
application.exec_()
top.stop()
top.wait()
print("method", top.estimator.status()["method"], top.estimator.status()["failed"])
"""


@pytest.mark.parametrize("bundle", BUNDLES, ids=["least squares", "model"])
def test_the_uplink_with_a_window_runs(bundle, compiled):
    done = run([sys.executable, "-c", UPLINK_WINDOW, json.dumps(example_files(bundle))], cwd=compiled)
    assert done.returncode == 0, done.stderr
    assert "method ls-nearest 0" in done.stdout
