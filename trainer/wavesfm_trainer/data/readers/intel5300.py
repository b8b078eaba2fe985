# SPDX-License-Identifier: GPL-3.0-or-later
"""Reader of Intel 5300 .dat files, the beamforming reports that the Linux 802.11n CSI Tool logs."""

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
from .csi_windows import Windows, labelled, name_below, recordings, sessions, unwrap_us, with_options

if TYPE_CHECKING:
    from ..tasks import Task

log = logging.getLogger(__name__)

SUBCARRIERS = 30
BFEE = 0xBB
_HEADER = struct.Struct("<IHHBBBBBbBBHH")
RSSI_OFFSET_DB = 44
NO_NOISE_DBM = -127
USUAL_NOISE_DBM = -92


@dataclass(frozen=True)
class Report:
    """One beamforming report: CSI of one packet.

    time_us: 32-bit counter of the card, wraps; antennas: physical antennas (0 to 2) of the receive chains, ascending.
    rssi_db: of antennas a, b, c, 0 where off; noise_dbm: -127 unknown; agc_db: receiver gain.
    csi: complex64 [n_tx, n_rx, 30] as the card gives it, receive chains in the order of `antennas`.
    """

    time_us: int
    antennas: tuple[int, ...]
    rssi_db: tuple[int, int, int]
    noise_dbm: int
    agc_db: int
    csi: NDArray[np.complex64]

    def scaled(self) -> NDArray[np.complex64]:
        """CSI [n_tx, n_rx, 30] such that |.|^2 is the signal-to-noise ratio (noise and quantisation) of a subcarrier.

        Power: RSSI over the antennas minus 44 dB minus AGC in dBm, spread over the 30 subcarriers in proportion to
        |csi|^2; noise: the card's, -92 dBm where it has none, plus one quantisation step of every stream; times the
        power that the transmitter takes from each of several streams (2 for two, 4.5 dB for three). All zero where the
        packet has no power.
        """
        n_tx, n_rx, _ = self.csi.shape
        power = float(np.sum(np.abs(self.csi).astype(np.float64) ** 2))
        rssi_mw = sum(10 ** (rssi / 10) for rssi in self.rssi_db if rssi)
        if power == 0 or rssi_mw == 0:
            return np.zeros_like(self.csi)
        scale = rssi_mw * 10 ** (-(RSSI_OFFSET_DB + self.agc_db) / 10) / (power / SUBCARRIERS)
        noise_dbm = USUAL_NOISE_DBM if self.noise_dbm == NO_NOISE_DBM else self.noise_dbm
        noise = 10 ** (noise_dbm / 10) + scale * n_tx * n_rx
        streams = {1: 1.0, 2: 2.0, 3: 10**0.45}[n_tx]
        return (self.csi * np.sqrt(scale / noise * streams)).astype(np.complex64)


def read_reports(path: Path) -> list[Report]:
    """All beamforming reports of a .dat file in order.

    The file is a sequence of records: big-endian length, code, body; other codes than 0xBB (frames logged beside
    the CSI) are passed over. A last record that is cut off is left out with a warning. InputError: no report at
    all, a length of zero, or a report whose sizes contradict each other, with the record's number.
    """
    data = path.read_bytes()
    reports: list[Report] = []
    position, number = 0, 0
    while position + 3 <= len(data):
        length, code = struct.unpack_from(">HB", data, position)
        where = f"record {number} (byte {position})"
        if length == 0:
            raise InputError(path, where, "a length of 0", "1 to 65535 bytes")
        if position + 2 + length > len(data):
            break
        if code == BFEE:
            reports.append(_parse_report(path, where, data[position + 3 : position + 2 + length]))
        position += 2 + length
        number += 1
    if not reports:
        raise InputError(path, "records", f"no CSI report in {len(data)} bytes", "records of code 0xBB")
    if position < len(data):
        log.warning("%s: %d bytes of a last record that is cut off are left out", path, len(data) - position)
    return reports


def _parse_report(path: Path, where: str, body: bytes) -> Report:
    if len(body) < _HEADER.size:
        raise InputError(path, where, f"{len(body)} bytes", f"a report of at least {_HEADER.size}")
    time_us, _count, _, n_rx, n_tx, *rest = _HEADER.unpack_from(body)
    rssi_a, rssi_b, rssi_c, noise, agc, selection, size, _rate = rest
    if not (1 <= n_rx <= 3 and 1 <= n_tx <= 3):
        raise InputError(path, where, f"{n_rx} x {n_tx} antennas", "1 to 3 x 1 to 3")
    bits = 3 + 16 * n_rx * n_tx  # of one subcarrier: three of padding, then real and imaginary part of each stream
    expected = (SUBCARRIERS * bits + 7) // 8
    if size != expected or len(body) - _HEADER.size != size:
        found = f"{size} bytes announced, {len(body) - _HEADER.size} there"
        raise InputError(path, where, found, f"{expected} for {n_rx} x {n_tx} antennas")
    stream = np.unpackbits(np.frombuffer(body, np.uint8, size, _HEADER.size), bitorder="little")
    octets = np.packbits(stream[: SUBCARRIERS * bits].reshape(SUBCARRIERS, bits)[:, 3:], axis=1, bitorder="little")
    parts = octets.view(np.int8).reshape(SUBCARRIERS, n_rx, n_tx, 2).astype(np.float32)
    csi = (parts[..., 0] + 1j * parts[..., 1]).transpose(2, 1, 0).astype(np.complex64)
    # two bits for every chain: the antenna that it is switched to; it changes from packet to packet
    antennas = np.array([selection >> 2 * chain & 3 for chain in range(n_rx)])
    if len(set(antennas)) != n_rx or antennas.max() > 2:
        raise InputError(path, where, f"antenna selection {selection:#04x}", f"{n_rx} different antennas of three")
    order = np.argsort(antennas)
    return Report(time_us, tuple(int(a) for a in antennas[order]), (rssi_a, rssi_b, rssi_c), noise, agc, csi[:, order])


@dataclass(frozen=True)
class Intel5300:
    """Windows float32 [n_tx * n_rx, 30, W] of scaled amplitudes, the receive antennas of a transmit stream together.

    Target: the label of the task in the file's folder or name (see `labelled`), none in pre-training, which takes every
    file. Group: recordings of one target made within a minute of each other. task.channels is n_tx * n_rx; reports of
    another number are left out with a warning, a labelled file that fills no window is an InputError. A card that hears
    with two of its three antennas may change the pair; a channel is then the first or the second of the pair.
    task.options may set fields of `Windows`.
    """

    name: str = "intel5300"
    windows: Windows = field(default_factory=lambda: Windows(seconds=1.5))

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Every window under root; see the class."""
        paths = recordings(root, ".dat")
        targets = labelled(paths, root, task.labels) if task.kind == "classification" else dict.fromkeys(paths)
        groups = sessions(targets)
        cutter, n_windows = with_options(self.windows, task), 0
        for path, target in targets.items():
            for i, window in enumerate(self._windows(path, cutter, task.channels, target is not None)):
                n_windows += 1
                yield Raw(window, target, f"{name_below(path, root)}[{i}]", groups[path])
        if not n_windows:
            raise InputError(root, "channels", f"no window of {task.channels} streams", "another number of channels")

    @staticmethod
    def _windows(path: Path, cutter: Windows, channels: int, labelled_file: bool) -> list[NDArray[np.float32]]:
        reports = read_reports(path)
        amplitudes = [np.abs(report.scaled()).reshape(-1, SUBCARRIERS) for report in reports]
        kept = [i for i, a in enumerate(amplitudes) if len(a) == channels and a.any()]
        if len(kept) < len(reports):
            counts = Counter(len(a) for a in amplitudes)
            log.warning(
                "%s: %d of %d reports left out (streams: %s, %d expected, or no power)",
                *(path, len(reports) - len(kept), len(reports), dict(counts), channels),
            )
        windows: list[NDArray[np.float32]] = []
        if kept:
            time_s = unwrap_us([reports[i].time_us for i in kept])
            windows, n_left = cutter.cut(np.stack([amplitudes[i] for i in kept]), time_s)
            log.info("%s: %d windows, %d packets in none of them", path, len(windows), n_left)
        if not windows and labelled_file:
            found = f"{len(kept)} reports of {channels} streams, none fill a window"
            raise InputError(path, "length", found, f"{cutter.seconds} s without a gap")
        return windows


READER = Intel5300()
