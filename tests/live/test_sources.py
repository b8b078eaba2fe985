# SPDX-License-Identifier: GPL-3.0-or-later
"""Sources of samples, with fake devices and a fake rtl_tcp."""

from __future__ import annotations

import io
import itertools
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from support.live_parts import eventually, noise
from wavesfm_core.errors import ConfigurationError, InputError
from wavesfm_core.live.block import SampleBlock, TunableSource
from wavesfm_core.live.config import SourceConfig
from wavesfm_core.live.sources import device
from wavesfm_core.live.sources.opening import open_source
from wavesfm_core.live.sources.pmt_tags import read_header
from wavesfm_core.live.sources.recorded import open_file
from wavesfm_core.live.sources.rtl import open_rtl
from wavesfm_core.live.sources.simulated import SimulatedRadio
from wavesfm_core.live.sources.soapy import open_soapy
from wavesfm_core.live.sources.uhd import open_uhd
from wavesfm_core.live.sources.waveforms import plant, read_scene
from wavesfm_core.live.sources.zmq_subscriber import ZMQSource
from wavesfm_core.types import StreamTime


def joined(blocks: list[SampleBlock]) -> np.ndarray:
    return np.concatenate([block.complex64() for block in blocks])


def test_a_file_is_read_whole_or_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "x.cf32"
    samples = noise(100_000)
    samples.tofile(path)
    source = open_source(SourceConfig("file", str(path), rate_hz=1e6, centre_hz=5e6))
    blocks = list(source.blocks())
    assert np.array_equal(joined(blocks), samples)
    assert {(block.rate_hz, block.centre_hz) for block in blocks} == {(1e6, 5e6)}
    source.close()
    looped = open_file(str(path), 1e6, loop=True)
    assert np.array_equal(joined(list(itertools.islice(looped.blocks(), 10))), np.tile(samples, 2))
    looped.close()
    with pytest.raises(InputError, match="sample rate"):
        open_file(str(path))


def test_a_file_in_real_time_waits_for_its_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.cf32"
    noise(100_000).tofile(path)
    source = open_file(str(path), 1e6, realtime=True)
    waits: list[float] = []
    clock = SimpleNamespace(monotonic=lambda: 10.0)
    monkeypatch.setattr("wavesfm_core.live.sources.recorded.time", clock)
    monkeypatch.setattr(source._stopped, "wait", waits.append)
    assert source.is_live and len(list(source.blocks())) == 5
    assert waits == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.1])
    source.close()


def test_standard_input_needs_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = noise(5000)
    stdin = SimpleNamespace(buffer=io.BufferedReader(io.BytesIO(samples.tobytes())))
    monkeypatch.setattr(sys, "stdin", stdin)
    source = open_source(SourceConfig("stdin", rate_hz=1e6, format="cf32"))
    assert np.array_equal(joined(list(source.blocks())), samples)
    with pytest.raises(InputError, match="--rate"):
        open_source(SourceConfig("stdin", format="cf32"))


class FakeRTLTCP:
    """rtl_tcp for one client at a time: keeps the commands, sends a ramp of bytes."""

    def __init__(self, greeting: bytes = b"RTL0" + struct.pack(">II", 5, 29)) -> None:
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port = self.server.getsockname()[1]
        self.commands: list[tuple[int, int]] = []
        self.sends = True
        self.cut = threading.Event()
        self._greeting = greeting
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self.server.accept()
            except OSError:
                return
            with peer:
                self.cut.clear()
                peer.sendall(self._greeting)
                peer.settimeout(0.005)
                self._talk(peer)

    def _talk(self, peer: socket.socket) -> None:
        ramp = bytes(range(256)) * 64
        received = b""
        while not self.cut.is_set():
            try:
                data = peer.recv(5)
                if not data:
                    return
                received += data
                while len(received) >= 5:
                    self.commands.append(struct.unpack(">BI", received[:5]))
                    received = received[5:]
            except TimeoutError:
                pass
            except OSError:
                return
            try:
                peer.sendall(ramp[:8191])  # blocks are cut anywhere
            except OSError:
                return


@pytest.fixture
def rtl_tcp() -> Iterator[FakeRTLTCP]:
    server = FakeRTLTCP()
    yield server
    server.cut.set()
    server.server.close()


def test_rtl_tcp_is_tuned_read_and_opened_again(rtl_tcp: FakeRTLTCP, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "RECOVER_S", (0.01, 0.02))
    source = open_rtl(f"127.0.0.1:{rtl_tcp.port}", 433.92e6, 1e5, gain_db=28.0)
    assert isinstance(source, TunableSource)
    blocks = source.blocks()
    first = [next(blocks) for _ in range(3)]
    assert {(block.sample_format, block.rate_hz, block.centre_hz) for block in first} == {("cu8", 1e5, 433.92e6)}
    raw = np.concatenate([block.raw for block in first]).astype(int)
    steps = np.diff(raw) % 256
    assert (steps != 1).sum() <= len(raw) // 8191 + 1  # only where the fake server begins its ramp anew
    assert first[0].time is not None and first[1].time is None
    eventually(lambda: next(blocks) and len(rtl_tcp.commands) >= 5)
    assert rtl_tcp.commands[:5] == [(3, 1), (8, 0), (4, 280), (2, 100_000), (1, 433_920_000)]
    source.tune(868e6, 2e5)
    tuned = next(block for block in blocks if block.centre_hz == 868e6)
    assert tuned.rate_hz == 2e5 and tuned.time is not None
    eventually(lambda: next(blocks) and rtl_tcp.commands[-2:] == [(2, 200_000), (1, 868_000_000)])
    rtl_tcp.cut.set()  # the connection breaks
    commands = len(rtl_tcp.commands)
    again = next(block for block in blocks if len(rtl_tcp.commands) > commands and block.time is not None)
    assert (again.rate_hz, again.centre_hz) == (2e5, 868e6)
    source.stop()
    assert list(blocks) == []
    source.close()


def test_a_peer_that_is_no_rtl_tcp_is_named() -> None:
    server = FakeRTLTCP(greeting=b"HTTP/1.1 400 no")
    with pytest.raises(InputError, match=r"greeting.*RTL0"):
        open_rtl(f"127.0.0.1:{server.port}", 1e8, 1e6)
    server.cut.set()
    server.server.close()
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    with pytest.raises(InputError, match="a radio that can be opened"):
        open_rtl(f"127.0.0.1:{port}", 1e8, 1e6)


@pytest.mark.parametrize("kind, library", [("rtl", "rtlsdr"), ("soapy", "SoapySDR"), ("uhd", "uhd")])
def test_a_missing_library_is_named(kind: str, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigurationError, match=library):
        open_source(SourceConfig(kind, rate_hz=1e6, centre_hz=1e8))


def fake_soapy() -> ModuleType:
    """SoapySDR with one device, whose reads are: a block with a time, an overflow, a block later, an error."""
    library = ModuleType("SoapySDR")
    library.SOAPY_SDR_RX, library.SOAPY_SDR_HAS_TIME = 1, 4
    library.SOAPY_SDR_TIMEOUT, library.SOAPY_SDR_OVERFLOW = -1, -4
    calls: list[tuple] = []
    reads = [(1000, 4, 5_000_000_000), (-4, 0, 0), (1000, 4, 5_250_000_000), (-7, 0, 0)]

    class Device:
        def __init__(self, arguments: str) -> None:
            if arguments == "driver=none":
                raise RuntimeError("no match")
            calls.append(("open", arguments))
            self.rate = 0.0

        def getNativeStreamFormat(self, direction: int, channel: int) -> tuple[str, float]:
            return "CS16", 32768.0

        def hasGainMode(self, direction: int, channel: int) -> bool:
            return True

        def setSampleRate(self, direction: int, channel: int, rate: float) -> None:
            self.rate = rate + 0.5

        def getSampleRate(self, direction: int, channel: int) -> float:
            return self.rate

        def readStream(self, stream: object, buffers: list, count: int, timeoutUs: int) -> SimpleNamespace:
            assert buffers[0].dtype == np.int16 and count <= buffers[0].size // 2
            buffers[0][:4] = (1, 2, 3, 4)
            ret, flags, time_ns = reads.pop(0) if reads else (-1, 0, 0)
            return SimpleNamespace(ret=ret, flags=flags, timeNs=time_ns)

        def __getattr__(self, name: str) -> object:
            return lambda *arguments: calls.append((name, *arguments))

    library.Device, library.calls = Device, calls
    return library


def test_soapy_gives_times_losses_and_native_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    library = fake_soapy()
    monkeypatch.setitem(sys.modules, "SoapySDR", library)
    monkeypatch.setattr("wavesfm_core.live.sources.soapy.SoapyDevice.settle_s", 0.0)
    source = open_soapy("driver=fake", 100e6, 1e6, 20.0, "LNAW")
    blocks = source.blocks()
    first, second = next(blocks), next(blocks)
    assert (first.sample_format, first.n_samples, first.rate_hz) == ("cs16", 1000, 1e6 + 0.5)
    assert np.allclose(first.complex64(0, 2) * 32768, [1 + 2j, 3 + 4j])
    assert (first.time, second.time) == (StreamTime(5, 0.0), StreamTime(5, 0.25))
    names = [call[0] for call in library.calls]
    assert ("setAntenna", 1, 0, "LNAW") in library.calls and ("setGain", 1, 0, 20.0) in library.calls
    assert names.index("setFrequency") < names.index("activateStream")
    source.stop()
    list(blocks)
    source.close()
    assert names.count("closeStream") == 0 and library.calls[-1][0] == "closeStream"
    with pytest.raises(InputError, match="no match"):
        open_soapy("driver=none", 100e6, 1e6)


def fake_uhd() -> ModuleType:
    """uhd with one USRP, whose first reads are an overflow and a block with a time."""
    library = ModuleType("uhd")
    codes = SimpleNamespace(none=0, timeout=1, overflow=8)
    commands: list[object] = []
    reads = [(0, 8), (500, 0)]

    class Metadata:
        error_code, has_time_spec = 0, True
        time_spec = SimpleNamespace(get_full_secs=lambda: 7, get_frac_secs=lambda: 0.5)

    class Streamer:
        def recv(self, buffer: np.ndarray, metadata: Metadata, timeout: float) -> int:
            assert buffer.dtype == np.int32
            count, metadata.error_code = reads.pop(0) if reads else (0, 1)
            buffer[0, :count] = 1 | 2 << 16
            return count

        def issue_stream_cmd(self, command: object) -> None:
            commands.append(command)

    class MultiUSRP:
        def __init__(self, arguments: str) -> None:
            self.rate = 0.0

        def set_rx_rate(self, rate: float, channel: int) -> None:
            self.rate = rate

        def get_rx_rate(self, channel: int) -> float:
            return self.rate

        def get_rx_stream(self, options: object) -> Streamer:
            return Streamer()

        def __getattr__(self, name: str) -> object:
            return lambda *arguments: commands.append((name, *arguments))

    class StreamCMD:
        def __init__(self, mode: str) -> None:
            self.mode = mode

    library.usrp = SimpleNamespace(MultiUSRP=MultiUSRP, StreamArgs=lambda *formats: SimpleNamespace())
    library.types = SimpleNamespace(
        RXMetadata=Metadata,
        RXMetadataErrorCode=codes,
        StreamCMD=StreamCMD,
        StreamMode=SimpleNamespace(start_cont="start", stop_cont="stop"),
        TuneRequest=lambda hz: hz,
    )
    library.commands = commands
    return library


def test_uhd_gives_times_and_samples_of_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    library = fake_uhd()
    monkeypatch.setitem(sys.modules, "uhd", library)
    monkeypatch.setattr("wavesfm_core.live.sources.uhd.UHDDevice.settle_s", 0.0)
    source = open_uhd("type=b200", 100e6, 1e6, 30.0)
    block = next(source.blocks())
    assert (block.n_samples, block.time) == (500, StreamTime(7, 0.5))
    assert np.allclose(block.complex64(0, 1) * 32768, [1 + 2j])
    assert ("set_rx_gain", 30.0, 0) in library.commands and ("set_rx_freq", 100e6, 0) in library.commands
    source.close()
    assert library.commands[-1].mode == "stop"


def tagged(offset: int, tags: list[tuple[int, str, object]], samples: np.ndarray) -> bytes:
    """A message as zmq_pub_sink with pass_tags sends it."""
    pmt = pytest.importorskip("pmt")
    parts = [struct.pack("<HBQQ", 0x5FF0, 1, offset, len(tags))]
    for place, key, value in tags:
        parts.append(struct.pack("<Q", place))
        parts += [pmt.serialize_str(each) for each in (pmt.intern(key), value, pmt.PMT_F)]
    return b"".join(parts) + samples.tobytes()


def test_tags_of_gnu_radio_are_read() -> None:
    pmt = pytest.importorskip("pmt")
    time = pmt.make_tuple(pmt.from_uint64(12), pmt.from_double(0.25))
    other = pmt.dict_add(pmt.make_dict(), pmt.intern("a"), pmt.from_long(-5))
    tags = [(9, "rx_time", time), (9, "rx_freq", pmt.from_double(1e8)), (11, "other", other)]
    message = tagged(9, tags, noise(4))
    header = read_header(message)
    assert header.offset == 9 and message[header.n_bytes :] == noise(4).tobytes()
    assert [tag.value for tag in header.tags[:2]] == [(12, 0.25), 1e8]
    assert read_header(noise(4).tobytes()) is None
    with pytest.raises(InputError, match="tags"):
        read_header(message[:40])


def test_zmq_messages_become_blocks_cut_at_tags(tmp_path: Path) -> None:
    pmt, zmq = pytest.importorskip("pmt"), pytest.importorskip("zmq")
    endpoint = f"ipc://{tmp_path}/iq"
    samples = noise(100)
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.bind(endpoint)
        source = ZMQSource(endpoint, 1e6, 5e6)
        blocks = source.blocks()
        received: list[SampleBlock] = []
        thread = threading.Thread(target=lambda: received.extend(blocks))
        thread.start()

        def subscribed() -> bool:
            publisher.send(b"")  # no sample
            publisher.send_multipart([b"key", samples[:1].tobytes()])
            return bool(received)

        eventually(subscribed)
        count = len(received)
        time = pmt.make_tuple(pmt.from_uint64(12), pmt.from_double(0.25))
        publisher.send(tagged(1000, [(1060, "rx_freq", pmt.from_double(6e6)), (1060, "rx_time", time)], samples))
        publisher.send(tagged(1150, [], samples))
        eventually(lambda: sum(block.n_samples for block in received if block.n_samples > 1) == 200)
        source.stop()
        thread.join()
        source.close()
    first, second, third = [block for block in received[count:] if block.n_samples > 1]
    assert (first.n_samples, first.centre_hz, first.lost) == (60, 5e6, 0)
    assert (second.n_samples, second.centre_hz, second.time) == (40, 6e6, StreamTime(12, 0.25))
    assert (third.n_samples, third.centre_hz, third.lost) == (100, 6e6, 50)
    assert np.array_equal(joined([first, second]), samples)


def test_the_simulated_radio_follows_its_tuning_and_its_seed() -> None:
    scene = plant(3, 1e9, 2e9)
    assert [each.centre_hz for each in scene] == [each.centre_hz for each in plant(3, 1e9, 2e9)]
    target = scene[2]

    def power_near(radio: SimulatedRadio) -> float:
        block = next(iter(radio.blocks()))
        spectrum = np.abs(np.fft.fftshift(np.fft.fft(block.complex64()))) ** 2
        inside = np.abs(np.fft.fftshift(np.fft.fftfreq(block.n_samples, 1 / block.rate_hz))) < target.width_hz / 2
        return 10 * np.log10(spectrum[inside].mean() / spectrum[~inside].mean())

    radio = SimulatedRadio(scene, target.centre_hz, 2e6, seed=1)
    assert power_near(radio) > 15
    radio.tune(target.centre_hz + 20e6)
    assert abs(power_near(radio)) < 3
    again = SimulatedRadio(scene, target.centre_hz, 2e6, seed=1)
    assert power_near(again) > 15
    radio.tune(target.centre_hz, 1e6)
    first, second = itertools.islice(radio.blocks(), 2)
    assert first.rate_hz == 1e6 and first.time is not None and second.time is None


def test_a_scene_file_is_read_and_checked(tmp_path: Path) -> None:
    loop = noise(1000)
    label = np.frombuffer(b"lora", np.uint8)
    np.savez(tmp_path / "a.npz", iq_0=loop, place_0=np.array([868e6, 125e3, -40.0, 250e3]), label_0=label)
    (each,) = read_scene(tmp_path / "a.npz")
    assert (each.label, each.centre_hz, each.rate_hz) == ("lora", 868e6, 250e3)
    np.savez(tmp_path / "b.npz", iq_0=loop, place_0=np.array([868e6, 125e6, -40.0, 250e3]), label_0=label)
    with pytest.raises(InputError, match="width"):
        read_scene(tmp_path / "b.npz")
    with pytest.raises(InputError, match="transmitters"):
        read_scene(tmp_path / "none.npz")
