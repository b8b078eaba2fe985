# SPDX-License-Identifier: GPL-3.0-or-later
"""WAV files as receivers write them, SDRangel's .sdriq and PortaPack's .C16 with .TXT."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from scipy.io import wavfile
from wavesfm_core.errors import InputError
from wavesfm_core.recordings.iqfile import open_recording
from wavesfm_core.recordings.recording import Recording
from wavesfm_core.types import StreamTime

RNG = np.random.default_rng(7)
IQ = np.clip(RNG.normal(0, 0.2, (5000, 2)), -0.99, 0.99)


def samples(recording: Recording) -> np.ndarray:
    return np.concatenate(list(recording.blocks(999)))


def chunk(name: bytes, content: bytes, size: int | None = None) -> bytes:
    length = len(content) if size is None else size
    return name + struct.pack("<I", length) + content + b"\0" * (len(content) % 2)


def fmt(channels: int = 2, rate_hz: int = 2_000_000, bits: int = 16, tag: int = 1) -> bytes:
    each = channels * bits // 8
    return chunk(b"fmt ", struct.pack("<HHIIHH", tag, channels, rate_hz, min(rate_hz * each, 2**32 - 1), each, bits))


def auxi(centre_hz: int = 433_920_000, when: tuple[int, ...] = (2024, 6, 3, 5, 12, 30, 15, 250)) -> bytes:
    """Of SpectraVue, HDSDR and SDRuno: start and stop as SYSTEMTIME, frequencies, the next file's name."""
    return chunk(b"auxi", struct.pack("<8H8H9I96s", *when, *when, centre_hz, 0, 0, 0, 0, 0, 0, 0, 0, b""))


def riff(*chunks: bytes, magic: bytes = b"RIFF") -> bytes:
    body = b"".join(chunks)
    return magic + struct.pack("<I", min(len(body) + 4, 0xFFFFFFFF)) + b"WAVE" + body


def int16() -> bytes:
    return np.rint(IQ * 32767).astype("<i2").tobytes()


@pytest.mark.parametrize("dtype", ["u1", "<i2", "<i4", "<f4", "<f8"])
def test_every_type_against_scipy(tmp_path: Path, dtype: str) -> None:
    values = IQ.astype(dtype) if "f" in dtype else np.rint(IQ * np.iinfo(dtype).max).astype(dtype)
    if dtype == "u1":
        values = np.rint(IQ * 127 + 128).astype("u1")
    path = tmp_path / "x.wav"
    wavfile.write(path, 2_000_000, values)
    rate_hz, peer = wavfile.read(path)
    peer = peer.astype("f8")
    scale, zero = {"u1": (127.5, 127.5), "<i2": (2**15, 0), "<i4": (2**31, 0)}.get(dtype, (1.0, 0.0))
    with open_recording(path) as recording:
        assert recording.rate_hz == rate_hz
        assert (recording.centre_hz, recording.time, recording.notes) == (None, None, ())
        np.testing.assert_allclose(samples(recording), (peer - zero) @ [1, 1j] / scale, atol=1e-6)


def test_24_bits(tmp_path: Path) -> None:
    whole = np.rint(IQ * (2**23 - 1)).astype("<i4")
    packed = whole.view("u1").reshape(-1, 4)[:, :3].tobytes()
    (tmp_path / "x.wav").write_bytes(riff(fmt(bits=24), chunk(b"data", packed)))
    with open_recording(tmp_path / "x.wav") as recording:
        np.testing.assert_allclose(samples(recording), whole @ [1, 1j] / 2**23, atol=1e-6)
        assert recording.notes == ()


def test_the_auxi_chunk_of_receivers(tmp_path: Path) -> None:
    path = tmp_path / "HDSDR_20240605_123015Z_7000kHz_RF.wav"
    path.write_bytes(riff(fmt(), auxi(), chunk(b"data", int16())))
    with open_recording(path) as recording:
        assert (recording.rate_hz, recording.centre_hz) == (2e6, 433.92e6)
        assert recording.time == StreamTime(1717590615, 0.25)
        np.testing.assert_allclose(samples(recording), IQ @ [1, 1j], atol=1e-4)
    assert open_recording(path, rate_hz=1e6, centre_hz=5e6).centre_hz == 5e6


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le"])
def test_the_auxi_chunk_of_sdr_console(tmp_path: Path, encoding: str) -> None:
    xml = '<?xml version="1.0"?><SDR-XML-Root><Definition RadioCenterFreq="7150000" UTCSeconds="1717590615"/>'
    content = riff(fmt(), chunk(b"auxi", xml.encode(encoding)), chunk(b"data", int16()))
    (tmp_path / "x.wav").write_bytes(content)
    with open_recording(tmp_path / "x.wav") as recording:
        assert (recording.centre_hz, recording.time) == (7.15e6, StreamTime(1717590615, 0.0))


@pytest.mark.parametrize(
    ("name", "centre_hz"),
    [
        ("SDRSharp_20240605_123015Z_100000000Hz_IQ.wav", 100e6),
        ("baseband_433920000Hz_12-30-15_05-06-2024.wav", 433.92e6),
        ("HDSDR_20240605_123015Z_7000kHz_RF.wav", 7e6),
        ("SDRuno_20240605_123015Z_913600kHz.wav", 913.6e6),
    ],
)
def test_names_tell_what_the_header_does_not(tmp_path: Path, name: str, centre_hz: float) -> None:
    (tmp_path / name).write_bytes(riff(fmt(), chunk(b"data", int16())))
    with open_recording(tmp_path / name) as recording:
        assert (recording.rate_hz, recording.centre_hz) == (2e6, centre_hz)
        assert recording.time == (StreamTime(1717590615, 0.0) if "Z_" in name else None)


def test_rf64(tmp_path: Path) -> None:
    data = int16()
    sizes = chunk(b"ds64", struct.pack("<QQQI", len(data) + 100, len(data), len(IQ), 0))
    tail = chunk(b"LIST", b"INFO")
    (tmp_path / "x.wav").write_bytes(riff(sizes, fmt(), chunk(b"data", data, 0xFFFFFFFF), tail, magic=b"RF64"))
    with open_recording(tmp_path / "x.wav") as recording:
        assert (recording.n_samples, recording.notes) == (len(IQ), ())


@pytest.mark.parametrize("declared", [0, 0xFFFFFFFF, 10**9])
def test_an_interrupted_recording(tmp_path: Path, declared: int) -> None:
    (tmp_path / "x.wav").write_bytes(riff(fmt(), auxi(), chunk(b"data", int16() + b"\1", declared)))
    with open_recording(tmp_path / "x.wav") as recording:
        assert recording.n_samples == len(IQ)
        assert "bytes of samples are declared" in recording.notes[0]
        assert "no whole sample" in recording.notes[1]


def test_chunks_behind_the_samples_are_no_samples(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(riff(fmt(), chunk(b"data", int16()), auxi(), chunk(b"id3 ", bytes(999))))
    with open_recording(tmp_path / "x.wav") as recording:
        assert (recording.n_samples, recording.centre_hz) == (len(IQ), 433.92e6)


def test_more_than_4_gib(tmp_path: Path) -> None:
    """A size that does not fit the header; the file is sparse."""
    path = tmp_path / "x.wav"
    n_bytes = (1 << 32) + 4000
    path.write_bytes(riff(fmt(), chunk(b"data", b"", 4000)))
    with path.open("r+b") as file:
        file.truncate(44 + n_bytes)
    with open_recording(path) as recording:
        assert recording.n_samples == n_bytes // 4
        assert len(next(recording.blocks(10, start=recording.n_samples - 5))) == 5


def test_one_channel_is_a_real_signal(tmp_path: Path) -> None:
    tone = np.rint(20000 * np.cos(2 * np.pi * 0.1 * np.arange(4000))).astype("<i2").tobytes()
    (tmp_path / "x.wav").write_bytes(riff(fmt(channels=1, rate_hz=48000), chunk(b"data", tone)))
    with open_recording(tmp_path / "x.wav") as recording:
        assert (recording.rate_hz, recording.n_samples, recording.centre_hz) == (24000.0, 2000, 12000.0)
        assert "analytic signal" in recording.notes[-1]


WRONG_WAVS = {
    "no wav": (b"RIFX" + bytes(40), "header: found b'RIFX"),
    "short": (b"RIFF", "header: found b'RIFF'"),
    "no data": (riff(fmt()), "header: found no data chunk"),
    "no format": (riff(chunk(b"data", bytes(8))), "header: found no fmt chunk"),
    "short format": (riff(chunk(b"fmt ", bytes(8)), chunk(b"data", bytes(8))), "fmt chunk: found 8 bytes"),
    "compressed": (riff(fmt(tag=2, bits=4), chunk(b"data", bytes(8))), "sample type: found WAV format 2 of 4 bits"),
    "channels": (riff(fmt(channels=6), chunk(b"data", bytes(24))), "channels: found 6 channels"),
    "chunks": (riff(*[chunk(b"junk", b"")] * 2000), "header: found more than 1000 chunks"),
    "nothing": (riff(fmt(), chunk(b"data", b"")), "size: found 0 bytes, expected samples of 4 bytes"),
}


@pytest.mark.parametrize("case", WRONG_WAVS)
def test_wrong_wavs(tmp_path: Path, case: str) -> None:
    content, message = WRONG_WAVS[case]
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_recording(tmp_path / "x.wav")


def test_a_chosen_format_goes_before_the_header_and_is_noted(tmp_path: Path) -> None:
    (tmp_path / "x.wav").write_bytes(riff(fmt(), chunk(b"data", int16())))
    with open_recording(tmp_path / "x.wav", sample_format="cu16") as recording:
        assert (recording.sample_format, recording.n_samples) == ("cu16", len(IQ))
        assert recording.notes[0] == "format cu16 as chosen; the header says cs16"


def sdriq(bits: int, data: bytes, stamp: int = 1_717_590_615_250) -> bytes:
    head = struct.pack("<IQQII", 2_400_000, 433_920_000, stamp, bits, 0)
    return head + struct.pack("<I", zlib.crc32(head)) + data


def test_sdriq(tmp_path: Path) -> None:
    path = tmp_path / "x.sdriq"
    path.write_bytes(sdriq(16, int16()))
    with open_recording(path) as recording:
        assert (recording.rate_hz, recording.centre_hz) == (2.4e6, 433.92e6)
        assert recording.time == StreamTime(1717590615, 0.25)
        np.testing.assert_allclose(samples(recording), IQ @ [1, 1j], atol=1e-4)
    path.write_bytes(sdriq(24, np.rint(IQ * (2**23 - 1)).astype("<i4").tobytes(), 1_717_590_615))
    with open_recording(path) as recording:
        assert recording.time == StreamTime(1717590615, 0.0)
        np.testing.assert_allclose(samples(recording), IQ @ [1, 1j], atol=1e-6)
        assert recording.notes == ()


def test_wrong_sdriq(tmp_path: Path) -> None:
    path = tmp_path / "x.sdriq"
    for content, message in (
        (sdriq(16, int16())[:20], "header: found 20 bytes"),
        (b"\1" + sdriq(16, int16())[1:], "header: found a wrong checksum"),
        (sdriq(8, int16()), "sample size: found 8 bits"),
        (sdriq(16, b""), "size: found 0 bytes"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            open_recording(path)


def test_portapack(tmp_path: Path) -> None:
    (tmp_path / "BBD_0001.C16").write_bytes(int16())
    (tmp_path / "BBD_0001.TXT").write_bytes(b"sample_rate=500000\r\ncenter_frequency=433920000\r\n")
    with open_recording(tmp_path / "BBD_0001.C16") as recording:
        assert (recording.sample_format, recording.rate_hz, recording.centre_hz) == ("cs16", 500e3, 433.92e6)
    (tmp_path / "BBD_0001.TXT").write_bytes(b"\xff nothing")
    assert open_recording(tmp_path / "BBD_0001.C16").rate_hz == 0.0


GQRX = "gqrx_20240605_123015_433920000_1800000_fc.raw"
SIGDIGGER = "sigdigger_20240605_123015Z_2560000_433500000_float32_iq.raw"


@pytest.mark.parametrize(("name", "rate_hz", "centre_hz"), [(GQRX, 1.8e6, 433.92e6), (SIGDIGGER, 2.56e6, 433.5e6)])
def test_raw_floats_of_gqrx_and_sigdigger(tmp_path: Path, name: str, rate_hz: float, centre_hz: float) -> None:
    (tmp_path / name).write_bytes(IQ.astype("<f4").tobytes())
    with open_recording(tmp_path / name) as recording:
        assert (recording.sample_format, recording.rate_hz, recording.centre_hz) == ("cf32", rate_hz, centre_hz)
        assert recording.time == StreamTime(1717590615, 0.0)
        assert recording.notes == ()


@pytest.mark.parametrize(
    ("suffix", "sample_format"),
    [("complex", "cf32"), ("complex16u", "cu8"), ("complex16s", "cs8"), ("complex32s", "cs16"), ("complex32u", "cu16")],
)
def test_names_of_the_universal_radio_hacker(tmp_path: Path, suffix: str, sample_format: str) -> None:
    path = tmp_path / f"HackRF-20240605_123015-433_92MHz-2MSps-1MHz.{suffix}"
    path.write_bytes(bytes(64))
    with open_recording(path) as recording:
        assert (recording.sample_format, recording.rate_hz, recording.centre_hz) == (sample_format, 2e6, 433.92e6)
