# SPDX-License-Identifier: GPL-3.0-or-later
"""Reader of FeitCSI captures (.csi) of Intel AX200 and AX210 cards: a header of 272 bytes and int16 pairs each.

References
----------
FeitCSI's description of its file, https://feitcsi.kuskosoft.com/csi_format/
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import InputError

from .base import Raw
from .csi_windows import Windows, labelled, name_below, recordings, sessions, unit_power, unwrap_us, with_options
from .packets import require_order, same_shape

if TYPE_CHECKING:
    from ..tasks import Task

log = logging.getLogger(__name__)
HEADER = 272
_SIZES = struct.Struct("<I42xBB4xI")
"""Bytes of CSI; receive antennas and transmit streams at 46 and 47; subcarriers at 52."""
TIME_AT = 88
"""Byte of the microsecond counter, 32 bits, which wraps."""
ANTENNAS, SUBCARRIERS = 4, 2048
"""Most of each in a packet."""


@dataclass(frozen=True)
class FeitPacket:
    """CSI of one packet."""

    time_us: int
    """The card's 32-bit microsecond counter."""
    csi: NDArray[np.complex64]
    """[n_rx, n_tx, S], in the card's units and in ascending order of frequency."""


def read_packets(path: Path) -> list[FeitPacket]:
    """Packets of a capture in order. A last packet that is cut short is left out with a warning.

    Raises
    ------
    InputError : no packet, or a header whose sizes contradict each other, with its number.
    """
    data = path.read_bytes()
    packets: list[FeitPacket] = []
    at = 0
    while at + HEADER <= len(data):
        size, n_rx, n_tx, subcarriers = _SIZES.unpack_from(data, at)
        where = f"packet {len(packets)} (byte {at})"
        if not (1 <= n_rx <= ANTENNAS and 1 <= n_tx <= ANTENNAS and 1 <= subcarriers <= SUBCARRIERS):
            found = f"{n_rx} x {n_tx} antennas, {subcarriers} subcarriers"
            raise InputError(path, where, found, f"1 to {ANTENNAS} each, 1 to {SUBCARRIERS} subcarriers")
        if size != 4 * n_rx * n_tx * subcarriers:
            found = f"{size} bytes of CSI"
            raise InputError(path, where, found, f"{4 * n_rx * n_tx * subcarriers} for {n_rx} x {n_tx} x {subcarriers}")
        if at + HEADER + size > len(data):
            break
        (time_us,) = struct.unpack_from("<I", data, at + TIME_AT)
        pairs = (
            np.frombuffer(data, "<i2", size // 2, at + HEADER).astype(np.float32).reshape(n_rx, n_tx, subcarriers, 2)
        )
        packets.append(FeitPacket(time_us, (pairs[..., 0] + 1j * pairs[..., 1]).astype(np.complex64)))
        at += HEADER + size
    if not packets:
        raise InputError(path, "packets", f"none in {len(data)} bytes", f"headers of {HEADER} bytes, each with CSI")
    if at < len(data):
        log.warning("%s: a last packet that is cut short, of %d bytes, is left out", path, len(data) - at)
    return packets


@dataclass(frozen=True)
class FeitCsi:
    """Windows float32 [n_rx * n_tx, S, W] of amplitudes, each packet scaled to a root mean square of 1.

    The gain of a packet is not recorded. The target is the label in the file's folder or name (see `labelled`);
    pre-training has none. `task.channels` is n_rx * n_tx. `task.options` may set fields of `Windows`.
    """

    name: str = "feitcsi"
    """Name of the reader in a task file."""
    windows: Windows = field(default_factory=lambda: Windows(seconds=2.0))
    """Length and rate of the windows."""

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Every window below `root`; raises InputError for a labelled file without one."""
        paths = recordings(root, ".csi")
        targets = labelled(paths, root, task.labels) if task.kind == "classification" else dict.fromkeys(paths)
        groups = sessions(targets)
        cutter = with_options(self.windows, task)
        for path, target in targets.items():
            packets = [packet for packet in read_packets(path) if packet.csi.any()]
            streams = [packet.csi.reshape(-1, packet.csi.shape[-1]) for packet in packets]
            kept = same_shape(path, [stream.shape for stream in streams], task.channels)
            time_s = require_order(path, unwrap_us([packets[number].time_us for number in kept]))
            amplitude = np.abs(np.stack([streams[number] for number in kept])).astype(np.float32)
            windows, n_left = cutter.cut(unit_power(amplitude, per_packet=True), time_s)
            log.info("%s: %d windows, %d packets in none of them", path, len(windows), n_left)
            if not windows and target is not None:
                found = f"{len(kept)} packets, none fill a window"
                raise InputError(path, "length", found, f"{cutter.seconds} s without a gap")
            for i, window in enumerate(windows):
                yield Raw(window, target, f"{name_below(path, root)}[{i}]", groups[path])


READER = FeitCsi()
