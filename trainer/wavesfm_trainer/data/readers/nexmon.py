# SPDX-License-Identifier: GPL-3.0-or-later
"""Reader of Nexmon CSI captures: .pcap files of UDP packets to port 5500 that a patched Broadcom chip sends.

References
----------
Gringoli et al., "Free Your CSI: A Channel State Information Extraction Platform For Modern Wi-Fi Chipsets", 2019.
"""

from __future__ import annotations

import logging
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import InputError

from .base import Raw
from .csi_windows import Windows, labelled, name_below, recordings, sessions, unit_power, with_options
from .packets import require_order, same_shape

if TYPE_CHECKING:
    from ..tasks import Task

log = logging.getLogger(__name__)
MAGICS = {b"\xd4\xc3\xb2\xa1": ("<", 1e-6), b"\xa1\xb2\xc3\xd4": (">", 1e-6), b"\x4d\x3c\xb2\xa1": ("<", 1e-9)}
"""First bytes of a capture: byte order, and unit of the fraction of a second."""
HEADER, RECORD, HEADERS = 24, 16, 42
"""Bytes of the capture's header, of a record's, and of Ethernet, IP and UDP together."""
PORT = 5500
CSI = struct.Struct("<2sbB6sHHHH")
"""Magic, RSSI in dBm, frame control, sender, sequence number, core and stream, channel, chip."""
INTEGERS = (0x0065, 0xA6DC, 0x0001)
"""Chips whose CSI is int16 pairs: 43455c0 under two numbers, and 4339. The others pack floats."""
SIZES = (64, 128, 256)
RECORD_LIMIT = 65_535


@dataclass(frozen=True)
class NexmonPacket:
    """CSI of one core and stream of a frame."""

    time_s: float
    """Time of the capture."""
    sender: bytes
    """MAC address."""
    sequence: int
    """Sequence number of the frame; the streams of a frame share it."""
    stream: int
    """Core and spatial stream, as one number."""
    amplitude: NDArray[np.float32]
    """[S], in ascending order of frequency, in the chip's units."""


def read_packets(path: Path) -> tuple[list[NexmonPacket], dict[str, int]]:
    """Packets of a capture in order, and the number of those left out by reason.

    Raises
    ------
    InputError : no capture, a record that is longer than the file, or no CSI in it.
    """
    data = path.read_bytes()
    if data[:4] not in MAGICS or len(data) < HEADER:
        raise InputError(path, "header", data[:4].hex() or "nothing", "a .pcap file")
    order, unit_s = MAGICS[data[:4]]
    left_out: Counter[str] = Counter()
    packets: list[NexmonPacket] = []
    at, number = HEADER, 0
    while at + RECORD <= len(data):
        seconds, fraction, length, _ = struct.unpack_from(order + "IIII", data, at)
        if length > RECORD_LIMIT:
            raise InputError(path, f"record {number} (byte {at})", f"{length} bytes", f"up to {RECORD_LIMIT}")
        at += RECORD
        if at + length > len(data):
            left_out["cut short"] += 1
            break
        packet = _packet(data[at : at + length], seconds + fraction * unit_s)
        if isinstance(packet, str):
            left_out[packet] += 1
        else:
            packets.append(packet)
        at += length
        number += 1
    if not packets:
        found = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or "no record"
        raise InputError(path, "records", found, "CSI of a chip that sends integers (43455c0, 4339)")
    return packets, dict(left_out)


def _packet(record: bytes, time_s: float) -> NexmonPacket | str:
    """The CSI of a record, or why it is left out."""
    if len(record) < HEADERS + CSI.size or record[12:14] != b"\x08\x00" or record[23] != 17:
        return "no UDP"
    payload = record[HEADERS:]
    magic, _, _, sender, sequence, stream, _, chip = CSI.unpack_from(payload)
    if struct.unpack_from(">H", record, 36)[0] != PORT or magic != b"\x11\x11":
        return "no CSI"
    if chip not in INTEGERS:
        return f"of chip {chip:#06x}, whose packed floats are not read"
    size = (len(payload) - CSI.size) // 4
    if size not in SIZES:
        return f"of {size} subcarriers"
    pairs = np.frombuffer(payload, "<i2", 2 * size, CSI.size).reshape(-1, 2).astype(np.float32)
    amplitude = np.fft.fftshift(np.hypot(pairs[:, 0], pairs[:, 1]))
    return NexmonPacket(time_s, sender, sequence, stream, amplitude) if amplitude.any() else "without power"


def frames(path: Path, antennas: int) -> tuple[NDArray[np.float32], NDArray[np.float64], dict[str, int]]:
    """Frames of the most frequent sender: amplitudes float32 [P, antennas, S], times [P] in s, and what is left out.

    Packets in a row with one sequence number are the streams of one frame.

    Raises
    ------
    InputError : see `read_packets`, `same_shape` and `require_order`.
    """
    packets, left_out = read_packets(path)
    sender = Counter(packet.sender for packet in packets).most_common(1)[0][0]
    mine = [packet for packet in packets if packet.sender == sender]
    if len(mine) < len(packets):
        left_out["of another sender"] = len(packets) - len(mine)
    together: list[list[NexmonPacket]] = []
    for packet in mine:
        last = together[-1] if together else []
        fresh = not last or packet.sequence != last[0].sequence or packet.stream in [each.stream for each in last]
        if fresh or len(packet.amplitude) != len(last[0].amplitude):
            together.append([packet])
        else:
            last.append(packet)
    kept = same_shape(path, [(len(each), len(each[0].amplitude)) for each in together], antennas)
    chosen = [sorted(together[number], key=lambda packet: packet.stream) for number in kept]
    amplitude = np.stack([[packet.amplitude for packet in frame] for frame in chosen])
    time_s = np.array([frame[0].time_s for frame in chosen])
    return amplitude, require_order(path, time_s - time_s[0]), left_out


@dataclass(frozen=True)
class Nexmon:
    """Windows float32 [streams, subcarriers, W] of amplitudes, each frame scaled to a root mean square of 1.

    The gain of a frame is not recorded. Empty subcarriers (guard band and carrier) stay, since they depend on the
    bandwidth. The target is the label in the file's folder or name (see `labelled`); pre-training has none.
    `task.channels` is the number of cores and spatial streams. `task.options` may set fields of `Windows`.
    """

    name: str = "nexmon"
    """Name of the reader in a task file."""
    windows: Windows = field(default_factory=lambda: Windows(seconds=2.0))
    """Length and rate of the windows."""

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Every window below `root`; raises InputError for a labelled file without one."""
        paths = recordings(root, ".pcap")
        targets = labelled(paths, root, task.labels) if task.kind == "classification" else dict.fromkeys(paths)
        groups = sessions(targets)
        cutter = with_options(self.windows, task)
        for path, target in targets.items():
            amplitude, time_s, left_out = frames(path, task.channels)
            windows, n_left = cutter.cut(unit_power(amplitude, per_packet=True), time_s)
            log.info("%s: %d windows, %d packets in none, left out: %s", path, len(windows), n_left, left_out)
            if not windows and target is not None:
                found = f"{len(time_s)} frames, none fill a window"
                raise InputError(path, "length", found, f"{cutter.seconds} s without a gap")
            for i, window in enumerate(windows):
                yield Raw(window, target, f"{name_below(path, root)}[{i}]", groups[path])


READER = Nexmon()
