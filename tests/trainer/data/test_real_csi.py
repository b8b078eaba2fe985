# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers of CSI captures: fixtures with the bytes that the tools write; real files are read if present."""

from __future__ import annotations

import logging
import struct
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_trainer.data.cache import read_cache
from wavesfm_trainer.data.prepare import prepare_dataset
from wavesfm_trainer.data.readers import esp32, espectre, intel5300
from wavesfm_trainer.data.readers.csi_windows import Windows, labelled, sessions, unwrap_us
from wavesfm_trainer.data.readers.registry import open_reader
from wavesfm_trainer.data.splits import groups_on_two_sides, split_examples
from wavesfm_trainer.data.tasks import Task, read_task


@pytest.fixture
def rng():
    return np.random.default_rng(5)


ACTIVITY = Task("t", "classification", "intel5300", 4, labels=("brush-teeth", "walk"))
MOTION = Task("t", "classification", "espectre", 1, labels=("baseline", "movement"))


# --- windows, labels, groups


def test_windows_interpolate_between_packets_and_stop_at_gaps():
    time_s = np.r_[np.arange(25) * 0.1, 5 + np.arange(12) * 0.1]  # 2.4 s, a gap, 1.1 s
    ramp = (10 * time_s).astype(np.float32)[:, None, None] * np.ones((1, 2, 3), np.float32)
    found, n_left = Windows(seconds=1.0, rate_hz=20.0, max_gap_s=0.15).cut(ramp, time_s)
    assert [w.shape for w in found] == [(2, 3, 20)] * 3 and found[0].dtype == np.float32
    np.testing.assert_allclose(found[0][0, 0], np.arange(20) / 2, atol=1e-4)
    np.testing.assert_allclose(found[1][1, 2], 10 + np.arange(20) / 2, atol=1e-4)
    np.testing.assert_allclose(found[2][1, 2], 50 + np.arange(20) / 2, atol=1e-4)
    assert n_left == 5 + 2  # packets from 2.0 s of the first run on, from 6.0 s of the second


def test_windows_do_not_reach_over_a_clock_that_steps_back():
    time_s = np.r_[np.arange(8) * 0.1, 0.3 + np.arange(8) * 0.1]
    assert Windows(seconds=1.0, rate_hz=10.0).cut(np.ones((16, 1, 1), np.float32), time_s) == ([], 16)


def test_repeated_time_stamps_count_once():
    time_s = np.r_[0, np.arange(11) * 0.1]
    found, n_left = Windows(seconds=1.0, rate_hz=10.0).cut(np.ones((12, 1, 1), np.float32), time_s)
    assert len(found) == 1 and n_left == 2 and np.isfinite(found[0]).all()


def test_the_microsecond_counter_wraps():
    np.testing.assert_allclose(unwrap_us([2**32 - 5, 5, 25, 15]), [0, 10e-6, 30e-6, 20e-6])


def test_labels_are_words_of_folder_or_name(tmp_path, caplog):
    names = ["walk/1.dat", "a/brushteeth_1590158472.dat", "walking.dat"]
    paths = [tmp_path / name for name in names]
    assert labelled(paths, tmp_path, ACTIVITY.labels) == {paths[0]: 1, paths[1]: 0}
    assert "1 recordings have no label of the task: walking.dat" in caplog.text
    with pytest.raises(InputError, match=r"label walk: found no recording of that name, expected at least one"):
        labelled(paths[1:], tmp_path, ACTIVITY.labels)
    with pytest.raises(InputError, match=r"label: found brush-teeth and walk, expected one label"):
        labelled([tmp_path / "walk/brushteeth.dat"], tmp_path, ACTIVITY.labels)


def test_pieces_of_one_activity_are_one_group():
    a, b, c, d, e = map(Path, ("x_1597160009.dat", "x_1597160013.dat", "x_1597160161.dat", "y_1597160011.dat", "z.dat"))
    groups = sessions({a: 0, b: 0, c: 0, d: 1, e: 1})
    assert groups[a] == groups[b] == "x_1597160009"
    assert len(set(groups.values())) == 4 and groups[e] == "z"


# --- Intel 5300


def bfee(parts, time_us=0, rssi=(40, 0, 41), noise=-76, agc=39, selection=0x18):
    """One record; parts int8 [30, n_rx, n_tx, 2]. The body is one large number, filled bit by bit."""
    n_rx, n_tx = parts.shape[1:3]
    bits, at = 0, 0
    for subcarrier in parts:
        at += 3
        for value in subcarrier.ravel().tolist():
            bits |= (value & 0xFF) << at
            at += 8
    body = bits.to_bytes((at + 7) // 8, "little")
    head = struct.pack("<IHHBBBBBbBBHH", time_us, 7, 0, n_rx, n_tx, *rssi, noise, agc, selection, len(body), 0x1101)
    return struct.pack(">HB", 1 + len(head) + len(body), 0xBB) + head + body


def parts_of(rng, n_rx=2, n_tx=2):
    return rng.integers(-128, 128, (30, n_rx, n_tx, 2)).astype(np.int8)


def test_reports_come_back_bit_by_bit_in_antenna_order(tmp_path, rng):
    parts = [parts_of(rng), parts_of(rng), parts_of(rng, 3, 1)]
    path = tmp_path / "a.dat"
    frame = struct.pack(">HB", 4, 0xC1) + b"abc"  # a record of another kind in between
    path.write_bytes(bfee(parts[0], 11) + frame + bfee(parts[1], 12, selection=0x12) + bfee(parts[2], selection=0x24))
    reports = intel5300.read_reports(path)
    assert [r.antennas for r in reports] == [(0, 2), (0, 2), (0, 1, 2)] and reports[1].time_us == 12
    values = [(p[..., 0] + 1j * p[..., 1].astype(np.float32)).transpose(2, 1, 0) for p in parts]
    np.testing.assert_array_equal(reports[0].csi, values[0])
    np.testing.assert_array_equal(reports[1].csi, values[1][:, ::-1])  # 0x12: the first chain hears antenna 2
    np.testing.assert_array_equal(reports[2].csi, values[2])


def test_scaling_gives_the_signal_to_noise_ratio(tmp_path):
    parts = np.zeros((30, 1, 1, 2), np.int8)
    parts[..., 0], parts[..., 1] = 3, 4
    path = tmp_path / "a.dat"
    loud = dict(rssi=(40, 0, 0), noise=-50, agc=30, selection=0)
    path.write_bytes(
        bfee(parts, **loud)
        + bfee(np.repeat(parts, 2, axis=2), **loud)
        + bfee(parts, **loud | {"noise": -127})
        + bfee(parts * 0, **loud)
    )
    one, two, unknown, nothing = (np.abs(r.scaled()) ** 2 for r in intel5300.read_reports(path))
    # -34 dBm over |csi|^2 = 25: one step is 1.592e-5 mW, thermal noise 1e-5 mW
    np.testing.assert_allclose(one, 15.36, rtol=1e-3)
    # two streams: each half the power, so a step is 7.96e-6 mW, there are two of them, and the transmitter halves too
    np.testing.assert_allclose(two, 2 * 1.9905e-4 / (1e-5 + 2 * 7.962e-6), rtol=1e-3)
    np.testing.assert_allclose(unknown, 25, rtol=1e-3)  # -92 dBm: only the step is left
    assert not nothing.any()


def test_a_cut_last_record_is_left_out_with_its_bytes(tmp_path, rng, caplog):
    path = tmp_path / "a.dat"
    record = bfee(parts_of(rng))
    path.write_bytes(record * 3 + record[:100])
    assert len(intel5300.read_reports(path)) == 3
    assert "a truncated last record of 100 bytes is dropped" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: b"\0\0" + r[2:], r"record 1 \(byte 275\): found a length of 0"),
        (lambda r: r[:11] + b"\x03" + r[12:], r"record 1 .* found 252 bytes .*expected 372 for 3 x 2 antennas"),
        (lambda r: r[:11] + b"\x09" + r[12:], r"record 1 .* found 9 x 2 antennas"),
        (lambda r: r[:18] + b"\x00" + r[19:], r"record 1 .* antenna selection 0x00, expected 2 different"),
        (lambda r: b"\0\5\xbbabcd", r"record 1 .* found 4 bytes, expected a report of at least 20"),
    ],
)
def test_records_that_contradict_themselves_are_refused(tmp_path, rng, change, message):
    record = bfee(parts_of(rng))
    assert len(record) == 275
    path = tmp_path / "a.dat"
    path.write_bytes(record + change(record))
    with pytest.raises(InputError, match=rf"a\.dat: {message}"):
        intel5300.read_reports(path)


def test_a_file_without_reports_is_refused(tmp_path):
    path = tmp_path / "a.dat"
    path.write_bytes(b"text that is no log of the tool")
    with pytest.raises(InputError, match=r"records: found no CSI report in 31 bytes"):
        intel5300.read_reports(path)


def write_activity(path, rng, seconds=3.2, n_rx=2, start_us=2**32 - 1_000_000):
    path.parent.mkdir(exist_ok=True)
    parts = parts_of(rng, n_rx)
    selection = 0x24 if n_rx == 3 else 0x18
    times = (start_us + 10_000 * np.arange(round(seconds * 100))) % 2**32
    path.write_bytes(b"".join(bfee(parts, int(t), rssi=(40, 38, 41), selection=selection) for t in times))


def test_intel5300_yields_labelled_windows(tmp_path, rng):
    write_activity(tmp_path / "may" / "brushteeth_1590158645.dat", rng)
    write_activity(tmp_path / "may" / "brushteeth_1590158650.dat", rng)
    write_activity(tmp_path / "walk_1590161182.dat", rng, 1.6)
    raws = list(open_reader("intel5300").read(tmp_path, ACTIVITY))
    assert Counter((r.target, r.group) for r in raws) == {
        (0, "brushteeth_1590158645"): 4,
        (1, "walk_1590161182"): 1,
    }
    assert raws[1].source == "may/brushteeth_1590158645.dat[1]" and raws[0].load(4).shape == (4, 30, 150)
    assert np.ptp(raws[0].array, axis=2).max() == 0  # the same CSI in every packet, over the wrap of the counter
    longer = replace(ACTIVITY, options={"seconds": 3.0, "rate_hz": 50})
    with pytest.raises(InputError, match=r"walk_1590161182\.dat: length: found 160 reports of 4 streams, none fill"):
        list(intel5300.READER.read(tmp_path, longer))


def test_intel5300_of_another_number_of_streams_is_refused_when_labelled(tmp_path, rng, caplog):
    write_activity(tmp_path / "brushteeth.dat", rng)
    write_activity(tmp_path / "walk.dat", rng, n_rx=3)
    with pytest.raises(InputError, match=r"walk\.dat: length: found 0 reports of 4 streams"):
        list(intel5300.READER.read(tmp_path, ACTIVITY))
    assert "walk.dat: 320 of 320 reports dropped (streams: {6: 320}, 4 expected" in caplog.text
    pretraining = Task("t", "pretraining", "intel5300", 6)
    assert [r.target for r in intel5300.READER.read(tmp_path, pretraining)] == [None, None]
    with pytest.raises(InputError, match=r"channels: found no window of 3 streams"):
        list(intel5300.READER.read(tmp_path, replace(pretraining, channels=3)))


def test_options_that_are_not_there_are_refused(tmp_path, rng):
    write_activity(tmp_path / "walk.dat", rng)
    pretraining = Task("t", "pretraining", "intel5300", 4)
    for options, message in [
        ({"second": 1}, r"task t: options\.second: found no such option, expected one of seconds, rate_hz, max_gap_s"),
        ({"seconds": "2"}, r"options\.seconds: found '2', expected a number above 0"),
        ({"seconds": 0.01}, r"windows: seconds: found 0\.01, expected at least two points"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            list(intel5300.READER.read(tmp_path, replace(pretraining, options=options)))
    with pytest.raises(InputError, match=r"none that end in \.csv"):
        list(esp32.READER.read(tmp_path, replace(pretraining, channels=1)))


# --- ESPectre


def write_capture(path, amplitude=None, rising=False, **changes):
    """P packets whose subcarrier k has the amplitude amplitude[p] * (50 + k), in either order of the bins."""
    amplitude = np.ones(450) if amplitude is None else amplitude
    numbers = np.arange(-32, 32)
    bins = np.where((np.abs(numbers) <= 28) & (numbers != 0), 50 + numbers, 0) * amplitude[:, None]
    bins = bins if rising else np.fft.ifftshift(bins, axes=1)
    csi = np.zeros((len(amplitude), 128), np.int8)
    csi[:, 0::2] = np.round(bins)
    if not rising:
        csi[:, :4] = 96  # what the ESP32 writes over the first two bins
    values = dict(
        csi_data=csi,
        num_subcarriers=64,
        label="baseline",
        chip="c5" if rising else "esp32",
        collected_at="2026-03-10T23:38:56.117265",
        duration_ms=4500.0,
        gain_locked=True,
    )
    np.savez_compressed(path, **values | changes)
    return path


def test_both_orders_of_the_bins_give_the_same_subcarriers(tmp_path):
    natural = espectre.read_recording(write_capture(tmp_path / "a.npz"))
    rising = espectre.read_recording(write_capture(tmp_path / "b.npz", rising=True))
    expected = np.r_[np.arange(22, 50), np.arange(52, 79)].astype(np.float32)
    np.testing.assert_array_equal(natural.amplitude[0, 0], expected)
    np.testing.assert_array_equal(rising.amplitude, natural.amplitude)
    assert natural.time_s[-1] == 4.5 and natural.day == "2026-03-10" and natural.gain_locked


def test_espectre_takes_out_the_gain_only_where_it_moves(tmp_path):
    fading = np.where(np.arange(450) < 225, 0.5, 1.0)
    write_capture(tmp_path / "a.npz", fading)
    write_capture(tmp_path / "b.npz", fading, gain_locked=False, label="movement", chip="c3")
    locked, moving = (r for r in espectre.READER.read(tmp_path, replace(MOTION, options={"seconds": 4.0})))
    assert (locked.target, locked.group, moving.target, moving.group) == (0, "esp32 2026-03-10", 1, "c3 2026-03-10")
    assert locked.array.shape == (1, 55, 400)
    ratio = locked.array[0, :, -1] / locked.array[0, :, 0]
    np.testing.assert_allclose(ratio, 2, rtol=0.05)  # int8 rounding
    np.testing.assert_allclose(np.sqrt(np.mean(moving.array**2, axis=1)), 1, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"csi_data": np.zeros((10, 64), np.int8)}, r"csi_data: found int8 \[10, 64\], expected int8 \[packets, 128\]"),
        ({"csi_data": np.zeros((10, 128), np.float32)}, r"csi_data: found float32"),
        ({"csi_data": np.ones((10, 128), np.int8)}, r"csi_data: found no guard band"),
        ({"csi_data": np.array([None])}, r"csi_data: found Python objects"),
        ({"num_subcarriers": 128}, r"num_subcarriers: found 128, expected 64"),
        ({"duration_ms": -1.0}, r"duration_ms: found -1\.0"),
        ({"duration_ms": "long"}, r"duration_ms: found <U4, expected a number"),
        ({"duration_ms": 900.0}, r"duration_ms: found 0\.9 s, expected at least 2\.0 s"),
        ({"label": ["a", "b"]}, r"label: found shape \[2\], expected one value"),
        ({"label": "dancing"}, r"label: found 'dancing', expected one of baseline, movement"),
    ],
)
def test_espectre_refuses_what_is_not_its_layout(tmp_path, changes, message):
    write_capture(tmp_path / "a.npz", **changes)
    with pytest.raises(InputError, match=message):
        list(espectre.READER.read(tmp_path, MOTION))


def test_espectre_refuses_missing_keys_and_what_is_no_archive(tmp_path):
    np.savez(tmp_path / "a.npz", csi_data=np.zeros((2, 128), np.int8))
    with pytest.raises(InputError, match=r"num_subcarriers: found arrays csi_data, expected an array"):
        espectre.read_recording(tmp_path / "a.npz")
    data = write_capture(tmp_path / "b.npz").read_bytes()
    (tmp_path / "b.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(InputError, match=r"b\.npz: contents: found an unreadable archive"):
        espectre.read_recording(tmp_path / "b.npz")


def test_damaged_archives_are_refused_whatever_the_damage(tmp_path):
    whole = bytearray(write_capture(tmp_path / "a.npz").read_bytes())
    chance = np.random.default_rng(3)
    refused = 0
    for _ in range(60):
        data = whole.copy()
        for at in chance.integers(0, len(data), 8):
            data[at] ^= 1 << chance.integers(8)
        (tmp_path / "b.npz").write_bytes(data)
        try:
            espectre.read_recording(tmp_path / "b.npz")
        except InputError:
            refused += 1
    assert refused > 40


def test_a_folder_of_captures_becomes_a_cache(tmp_path):
    for day in range(10, 14):
        for label in MOTION.labels:
            path = tmp_path / "raw" / f"{label}_{day}.npz"
            path.parent.mkdir(exist_ok=True)
            write_capture(path, label=label, collected_at=f"2026-03-{day}T10:00:00")
    task = replace(read_task("csi-motion"), height=32, width=32)
    note = prepare_dataset(task, tmp_path / "raw", tmp_path / "cache.h5")
    assert note["labels"] == ["baseline", "movement"]
    parts = [read_cache(tmp_path / "cache.h5", split) for split in ("train", "validation", "test")]
    assert sum(len(part.target) for part in parts) == 16
    assert all(set(part.target.tolist()) == {0, 1} for part in parts)
    assert parts[0].image.shape[1:] == (1, 32, 32)


# --- ESP32 CSI tool

HEADER = "type,role,mac,rssi,secondary_channel,local_timestamp,len,CSI_DATA\n"


def csi_line(time_us, scale=1, mac="aa", secondary=0, length=128, text=None):
    numbers = np.arange(-32, 32)
    bins = np.where((np.abs(numbers) <= 26) & (numbers != 0), scale * (30 + numbers), 0)
    values = np.stack([bins, np.zeros(64, int)], axis=1)
    values = values if secondary else np.fft.ifftshift(values, axes=0)
    text = text if text is not None else "[" + " ".join(map(str, values.ravel())) + " ]"
    return f"CSI_DATA,PASSIVE,{mac},-52,{secondary},{time_us},{length},{text}\n"


def test_esp32_reads_the_training_field_in_both_orders(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text(HEADER + csi_line(10) + csi_line(20, secondary=1, length=384))
    capture = esp32.read_recording(path)
    expected = np.r_[np.arange(4, 30), np.arange(32, 57)].astype(np.float32)
    np.testing.assert_array_equal(capture.amplitude, np.stack([expected, expected])[:, None])
    np.testing.assert_allclose(capture.time_s, [0, 1e-5])


def test_esp32_counts_every_line_that_it_leaves_out(tmp_path):
    path = tmp_path / "a.csv"
    whole = csi_line(5)
    lines = [
        *(whole, whole, csi_line(6, mac="bb"), HEADER, csi_line(7, length=126)),
        csi_line(8, text="[1 2 3]"),
        whole.replace("]", ""),
        csi_line(9, text="[ 200" + " 1" * 127 + "]"),
        csi_line(9, text="[" + " 0" * 128 + "]"),
        csi_line(10, length=4, text="[1 2 3 4]"),
    ]
    path.write_text(HEADER + "".join(lines))
    capture = esp32.read_recording(path)
    assert len(capture.time_s) == 2
    assert capture.left_out == {
        "of another sender": 1,
        "that are no numbers": 1,
        "cut short": 3,
        "with numbers out of range": 1,
        "without power": 1,
        "of fewer than 64 bins": 1,
    }


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be"])
def test_esp32_reads_logs_as_monitors_write_them(tmp_path, encoding):
    """Messages of the chip before and between the lines, and UTF-16 as PowerShell writes it."""
    path = tmp_path / "a.csv"
    boot = "ets Jul 29 2019 12:21:46\nrst:0x1 (POWERON_RESET),boot:0x13\nI (29) boot: chip revision: 1, v3\n"
    text = boot + HEADER + csi_line(10) + "W (500) wifi:timeout, 3\n" + HEADER + csi_line(20)
    bom = "\ufeff" if encoding == "utf-16-be" else ""
    path.write_bytes((bom + text).encode(encoding))
    capture = esp32.read_recording(path)
    assert len(capture.time_s) == 2
    assert capture.left_out == {"before the table": 3, "that are no numbers": 2}


def test_esp32_reads_a_log_that_begins_after_the_header(tmp_path):
    path = tmp_path / "a.csv"
    fields = csi_line(10).strip().split(",")
    values = dict(zip(HEADER.strip().split(","), fields, strict=True))
    line = ",".join(values.get(name, "0") if name != "type" else "CSI_DATA" for name in esp32.TOOL_COLUMNS)
    path.write_text(line + "\n" + line + "\n")
    assert len(esp32.read_recording(path).time_s) == 2


def test_packets_out_of_order_are_refused(tmp_path):
    lines = [csi_line(10_000 * (i ^ 1)) for i in range(450)]
    (tmp_path / "walk.csv").write_text(HEADER + "".join(lines))
    (tmp_path / "brushteeth.csv").write_text(HEADER + "".join(lines))
    with pytest.raises(InputError, match=r"brushteeth\.csv: time: found 225 steps back in 450 packets, expected"):
        list(esp32.READER.read(tmp_path, replace(ACTIVITY, channels=1)))


def test_esp32_yields_windows_without_the_gain(tmp_path):
    for name in ("walk", "brushteeth"):
        lines = [csi_line(10_000 * i, scale=1 + i % 2) for i in range(450)]
        (tmp_path / f"{name}.csv").write_text(HEADER + "".join(lines))
    raws = list(esp32.READER.read(tmp_path, replace(ACTIVITY, channels=1)))
    assert [(r.target, r.group, r.source) for r in raws] == [
        *((0, "brushteeth", f"brushteeth.csv[{i}]") for i in (0, 1)),
        *((1, "walk", f"walk.csv[{i}]") for i in (0, 1)),
    ]
    assert raws[0].load(1).shape == (1, 51, 200)
    np.testing.assert_allclose(np.ptp(raws[0].array, axis=2), 0, atol=1e-5)
    with pytest.raises(InputError, match=r"channels: found 4, expected 1, the antenna"):
        list(esp32.READER.read(tmp_path, ACTIVITY))


def test_esp32_files_are_prepared_for_a_task_of_one_channel(tmp_path):
    """As docs/data.md has it: csi-motion with --reader esp32."""
    (tmp_path / "raw").mkdir()
    for label in read_task("csi-motion").labels:
        for i in range(3):
            lines = [csi_line(10_000 * k, scale=1 + k % 2) for k in range(450)]
            (tmp_path / "raw" / f"{label}_{i}.csv").write_text(HEADER + "".join(lines))
    note = prepare_dataset("csi-motion", tmp_path / "raw", tmp_path / "csi-motion.h5", reader="esp32")
    assert note["reader"] == "esp32" and note["split"]["sizes"] == {"train": 4, "validation": 4, "test": 4}


def test_esp32_refuses_other_tables(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("time,csi\n1,2\n")
    with pytest.raises(InputError, match=r"columns: found time, csi, expected mac, local_timestamp"):
        esp32.read_recording(path)
    path.write_text(HEADER + csi_line(1, text="[1 2"))
    with pytest.raises(InputError, match=r"lines: found 1 cut short, expected CSI of 64 bins"):
        esp32.read_recording(path)


# --- the real files


@pytest.mark.parametrize(
    ("name", "folder", "n"), [("csi-activity", "csi_csikit_intel5300", 30), ("csi-motion", "csi_espectre", 62)]
)
def test_real_recordings_split_without_a_group_on_two_sides(shared_data, name, folder, n):
    task = read_task(name)
    raws = list(open_reader(task.reader).read(shared_data / folder, task))
    arrays = np.stack([raw.load(task.channels) for raw in raws])
    assert len(raws) == len({raw.source for raw in raws}) == n and arrays.std() > 0
    sides = split_examples(raws, task, task.split, seed=0)
    assert set(sides) == {0, 1, 2} and not groups_on_two_sides(raws, sides)


def flutter(amplitude):
    """How much the shape over subcarriers changes from packet to packet: median deviation over mean."""
    shape = amplitude / amplitude.mean(axis=(1, 2), keepdims=True)
    return float(np.median(shape.std(axis=0) / shape.mean(axis=0)))


def test_real_walking_moves_the_channel_more_than_sleeping(shared_data):
    root = shared_data / "csi_csikit_intel5300"
    task = replace(ACTIVITY, labels=("walk", "sleeping"))
    found = {0: [], 1: []}
    for raw in intel5300.READER.read(root, task):
        found[raw.target].append(flutter(raw.array.transpose(2, 0, 1)))
    # not every window: a walk begins and ends with standing
    assert np.median(found[0]) > 1.5 * max(found[1])


def test_real_antennas_stay_in_order_when_the_card_switches_them(shared_data):
    reports = intel5300.read_reports(shared_data / "csi_csikit_intel5300" / "august_washingdishes_1597160719.dat")
    values = np.stack([np.abs(r.scaled()) for r in reports if r.csi.shape == (2, 2, 30)])
    step = np.sqrt((np.diff(values, axis=0) ** 2).sum(axis=(1, 2, 3)) / (values[1:] ** 2).sum(axis=(1, 2, 3)))
    # swapped antennas differ by 0.4; the card switches at every fourth packet of this file
    assert np.quantile(step, 0.95) < 0.2
    snr_db = 20 * np.log10(np.median(values))
    assert 20 < snr_db < 35


def test_real_movement_shows_at_every_chip(shared_data):
    found = {}
    for raw in espectre.READER.read(shared_data / "csi_espectre", MOTION):
        found.setdefault((raw.group, raw.target), []).append(flutter(raw.array.transpose(2, 0, 1)))
    for group in {group for group, _ in found}:
        assert np.median(found[group, 1]) > 2 * np.median(found[group, 0])


def test_real_esp32_files_are_read_line_by_line(shared_data, caplog):
    caplog.set_level(logging.INFO)
    root = shared_data / "csi_csikit_other"
    capture = esp32.read_recording(root / "esp32_100hz.csv")
    assert len(capture.time_s) == 833 and capture.left_out == {"cut short": 1}
    assert 50 < len(capture.time_s) / capture.time_s[-1] < 100
    raws = list(esp32.READER.read(root, Task("t", "pretraining", "esp32", 1)))
    assert len(raws) == 6 and {raw.group for raw in raws} == {"esp32_100hz"}
    assert "esp32_example.csv: 0 windows, 60 packets in none of them" in caplog.text
