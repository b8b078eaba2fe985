# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers of Nexmon and FeitCSI captures: files with the bytes that the tools write; real files if present."""

from __future__ import annotations

import logging
import struct

import numpy as np
import pytest
from wavesfm_core.errors import InputError
from wavesfm_trainer.data.readers import feitcsi, nexmon
from wavesfm_trainer.data.readers.registry import open_reader
from wavesfm_trainer.data.tasks import Task

WALK = Task("t", "classification", "nexmon", 2, labels=("still", "walk"))
PCAP = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1)


def nexmon_record(rng, time_us, sequence=0, stream=0, size=64, sender=b"sender", chip=0x0065, port=5500, magic=0x1111):
    values = rng.integers(-200, 200, (size, 2)).astype("<i2")
    payload = struct.pack("<HbB6sHHHH", magic, -50, 0x80, sender, sequence, stream, 0xE02A, chip) + values.tobytes()
    udp = struct.pack(">HHHH", port, port, 8 + len(payload), 0) + payload
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(udp), 1, 0, 1, 17, 0, bytes(4), bytes(4)) + udp
    frame = b"\xff" * 6 + b"NEXMON" + b"\x08\x00" + ip
    return struct.pack("<IIII", time_us // 10**6, time_us % 10**6, len(frame), len(frame)) + frame, values


def walks(rng, **changes):
    """Two streams a frame, 100 frames a second for 4.5 s."""
    records = [nexmon_record(rng, 10_000 * i, i, k, **changes)[0] for i in range(450) for k in (1, 0)]
    return PCAP + b"".join(records)


@pytest.fixture
def rng():
    return np.random.default_rng(4)


# --- Nexmon


def test_nexmon_bins_are_in_ascending_order(tmp_path, rng):
    record, values = nexmon_record(rng, 1_500_000)
    (tmp_path / "a.pcap").write_bytes(PCAP + record)
    (packet,), left_out = nexmon.read_packets(tmp_path / "a.pcap")
    expected = np.fft.fftshift(np.hypot(*values.astype(float).T))
    np.testing.assert_allclose(packet.amplitude, expected, rtol=1e-6)
    assert (packet.time_s, packet.sender, left_out) == (1.5, b"sender", {})


def test_nexmon_counts_what_it_leaves_out(tmp_path, rng):
    records = [
        nexmon_record(rng, 0)[0],
        nexmon_record(rng, 0, port=80)[0],
        nexmon_record(rng, 0, magic=0x2222)[0],
        nexmon_record(rng, 0, size=65)[0],
        nexmon_record(rng, 0, chip=0x6A)[0],
        nexmon_record(rng, 0)[0][:-3],
    ]
    (tmp_path / "a.pcap").write_bytes(PCAP + b"".join(records))
    packets, left_out = nexmon.read_packets(tmp_path / "a.pcap")
    assert len(packets) == 1
    assert left_out == {
        "no CSI": 2,
        "of 65 subcarriers": 1,
        "of chip 0x006a, whose packed floats are not read": 1,
        "cut short": 1,
    }


def test_nexmon_streams_of_a_frame_are_one_window(tmp_path, rng):
    for name in ("walk", "still"):
        (tmp_path / f"{name}.pcap").write_bytes(walks(rng))
    raws = list(open_reader("nexmon").read(tmp_path, WALK))
    assert [(raw.target, raw.source) for raw in raws] == [
        *((0, f"still.pcap[{i}]") for i in (0, 1)),
        *((1, f"walk.pcap[{i}]") for i in (0, 1)),
    ]
    assert raws[0].load(2).shape == (2, 64, 200)
    amplitude, _, _ = nexmon.frames(tmp_path / "walk.pcap", 2)
    packets, _ = nexmon.read_packets(tmp_path / "walk.pcap")
    np.testing.assert_array_equal(amplitude[0], [packets[1].amplitude, packets[0].amplitude])  # by stream


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "header: found nothing, expected a .pcap file"),
        (b"RIFF" + bytes(40), "header: found 52494646"),
        (PCAP, "records: found no record, expected CSI"),
        (PCAP + struct.pack("<IIII", 0, 0, 1 << 30, 1 << 30), r"record 0 \(byte 24\): found 1073741824 bytes"),
    ],
)
def test_nexmon_refuses_other_files(tmp_path, data, message):
    (tmp_path / "a.pcap").write_bytes(data)
    with pytest.raises(InputError, match=message):
        nexmon.read_packets(tmp_path / "a.pcap")


def test_changing_antenna_counts_are_refused_or_counted(tmp_path, rng, caplog):
    few = walks(rng) + b"".join(nexmon_record(rng, 10_000 * (450 + i), 450 + i)[0] for i in range(20))
    (tmp_path / "a.pcap").write_bytes(few)
    with caplog.at_level(logging.WARNING):
        amplitude, _, _ = nexmon.frames(tmp_path / "a.pcap", 2)
    assert len(amplitude) == 450
    assert "packets (streams x subcarriers): found 450 of 2 x 64, 20 of 1 x 64" in caplog.text
    expected = (
        r"a\.pcap: packets \(streams x subcarriers\): found 450 of 2 x 64, 20 of 1 x 64, expected 1 streams and one"
    )
    with pytest.raises(InputError, match=expected):
        nexmon.frames(tmp_path / "a.pcap", 1)


def test_a_few_steps_back_are_said_and_many_are_refused(tmp_path, rng, caplog):
    times = np.arange(200) * 10_000
    for name, swapped in (("few", [50]), ("many", range(0, 200, 4))):
        mixed = times.copy()
        for at in swapped:
            mixed[[at, at + 1]] = mixed[[at + 1, at]]
        records = [nexmon_record(rng, int(t), i)[0] for i, t in enumerate(mixed)]
        (tmp_path / f"{name}.pcap").write_bytes(PCAP + b"".join(records))
    with caplog.at_level(logging.WARNING):
        nexmon.frames(tmp_path / "few.pcap", 1)
    assert "time: found 1 steps back in 200 packets" in caplog.text
    with pytest.raises(
        InputError, match=r"many\.pcap: time: found 50 steps back in 200 packets, expected packets in the"
    ):
        nexmon.frames(tmp_path / "many.pcap", 1)


# --- FeitCSI


def feit_packet(rng, time_us, n_rx=2, n_tx=1, subcarriers=56, size=None):
    values = rng.integers(-200, 200, (n_rx, n_tx, subcarriers, 2)).astype("<i2")
    header = bytearray(272)
    struct.pack_into("<I", header, 0, values.nbytes if size is None else size)
    header[46:48] = bytes([n_rx, n_tx])
    struct.pack_into("<I", header, 52, subcarriers)
    struct.pack_into("<I", header, 88, time_us % 2**32)
    return bytes(header) + values.tobytes(), values


def test_feitcsi_packets_come_back(tmp_path, rng, caplog):
    first, values = feit_packet(rng, 7)
    second, _ = feit_packet(rng, 2**32 + 9)
    (tmp_path / "a.csi").write_bytes(first + second + second[:300])
    packets = feitcsi.read_packets(tmp_path / "a.csi")
    assert [packet.time_us for packet in packets] == [7, 9]
    np.testing.assert_array_equal(packets[0].csi, values[..., 0] + 1j * values[..., 1].astype(np.float32))
    assert "cut short, of 300 bytes" in caplog.text


def test_feitcsi_yields_windows_over_a_counter_that_wraps(tmp_path, rng):
    start = 2**32 - 1_000_000
    for name in ("walk", "still"):
        data = b"".join(feit_packet(rng, start + 10_000 * i)[0] for i in range(250))
        (tmp_path / f"{name}.csi").write_bytes(data)
    raws = list(open_reader("feitcsi").read(tmp_path, WALK))
    assert [raw.target for raw in raws] == [0, 1] and raws[0].load(2).shape == (2, 56, 200)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": 12}, r"packet 0 \(byte 0\): found 12 bytes of CSI, expected 448 for 2 x 1 x 56"),
        ({"n_rx": 5, "subcarriers": 1}, r"found 5 x 1 antennas, 1 subcarriers, expected 1 to 4 each"),
    ],
)
def test_feitcsi_refuses_headers_that_contradict_themselves(tmp_path, rng, changes, message):
    (tmp_path / "a.csi").write_bytes(feit_packet(rng, 0, **changes)[0])
    with pytest.raises(InputError, match=message):
        feitcsi.read_packets(tmp_path / "a.csi")


def test_feitcsi_refuses_an_empty_file(tmp_path):
    (tmp_path / "a.csi").write_bytes(b"short")
    with pytest.raises(InputError, match="packets: found none in 5 bytes, expected headers of 272 bytes"):
        feitcsi.read_packets(tmp_path / "a.csi")


# --- the real files


def test_real_captures_of_both_tools_are_read(shared_data):
    folder = shared_data / "csi_csikit_other"
    amplitude, time_s, left_out = nexmon.frames(folder / "nexmon_pi_walk.pcap", 1)
    assert amplitude.shape == (343, 1, 256) and 3 < time_s[-1] < 3.2 and left_out == {}
    packets = feitcsi.read_packets(folder / "feitcsi_VHT80_5500.csi")
    assert len(packets) == 40 and {packet.csi.shape for packet in packets} == {(2, 1, 242)}
    steps = np.diff([packet.time_us for packet in packets])
    assert (steps > 0).all()
