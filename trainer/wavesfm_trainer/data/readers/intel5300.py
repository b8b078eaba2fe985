# SPDX-License-Identifier: GPL-3.0-or-later
"""Reader of Intel 5300 .dat files: beamforming reports logged by the Linux 802.11n CSI Tool.

csiread decodes the reports. It does not check its input, so every record's sizes are checked before.
"""

from __future__ import annotations

import logging
import struct
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import csiread
import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import InputError

from .base import Raw
from .csi_windows import Windows, labelled, name_below, recordings, sessions, unwrap_us, with_options
from .packets import require_order

if TYPE_CHECKING:
    from ..tasks import Task

log = logging.getLogger(__name__)

SUBCARRIERS = 30
BFEE = 0xBB
_SIZES = struct.Struct("<8xBB5xBH2x")  # of a report's header: n_rx, n_tx, antenna selection, bytes of CSI
RSSI_OFFSET_DB = 44
UNKNOWN_NOISE_DBM = -127
USUAL_NOISE_DBM = -92


@dataclass(frozen=True)
class Report:
    """One beamforming report: the CSI of one packet."""

    time_us: int
    """The card's 32-bit microsecond counter, which wraps."""
    antennas: tuple[int, ...]
    """Physical antennas (0 to 2) of the receive chains, ascending."""
    rssi_db: tuple[int, int, int]
    """RSSI of antennas a, b, c in dB; 0 where switched off."""
    noise_dbm: int
    """Noise floor in dBm; -127 unknown."""
    agc_db: int
    """Receiver gain in dB."""
    csi: NDArray[np.complex64]
    """complex64 [n_tx, n_rx, 30] in the card's units, receive chains in the order of `antennas`."""

    def scaled(self) -> NDArray[np.complex64]:
        """CSI whose squared magnitude is the signal-to-noise ratio of a subcarrier, noise and quantisation included.

        The power is the RSSI summed over the antennas, minus 44 dB and the AGC, in dBm, spread over the 30 subcarriers
        in proportion to |csi|^2. The noise is the card's, or -92 dBm if unknown, plus one quantisation step of every
        stream. A transmitter splits its power over several streams: factor 2 for two, 4.5 dB for three.

        Returns
        -------
        complex64 [n_tx, n_rx, 30], zero where the packet has no power.
        """
        n_tx, n_rx, _ = self.csi.shape
        power = float(np.sum(np.abs(self.csi).astype(np.float64) ** 2))
        rssi_mw = sum(10 ** (rssi / 10) for rssi in self.rssi_db if rssi)
        if power == 0 or rssi_mw == 0:
            return np.zeros_like(self.csi)
        scale = rssi_mw * 10 ** (-(RSSI_OFFSET_DB + self.agc_db) / 10) / (power / SUBCARRIERS)
        noise_dbm = USUAL_NOISE_DBM if self.noise_dbm == UNKNOWN_NOISE_DBM else self.noise_dbm
        noise = 10 ** (noise_dbm / 10) + scale * n_tx * n_rx
        streams = {1: 1.0, 2: 2.0, 3: 10**0.45}[n_tx]
        return (self.csi * np.sqrt(scale / noise * streams)).astype(np.complex64)


def read_reports(path: Path) -> list[Report]:
    """All beamforming reports of a .dat file in order.

    The file is a sequence of records: big-endian length, code, body. Records with another code than 0xBB (frames logged
    beside the CSI) are skipped. A truncated last record is dropped with a warning.

    Raises
    ------
    InputError : no report, a record of length 0, or a report whose sizes contradict each other, with its number.
    """
    data = path.read_bytes()
    decoder = csiread.Intel(None, nrxnum=3, ntxnum=3, if_report=False)
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
            reports.append(_report(path, where, data[position + 2 : position + 2 + length], decoder))
        position += 2 + length
        number += 1
    if not reports:
        raise InputError(path, "records", f"no CSI report in {len(data)} bytes", "records of code 0xBB")
    if position < len(data):
        log.warning("%s: a truncated last record of %d bytes is dropped", path, len(data) - position)
    return reports


def _report(path: Path, where: str, record: bytes, decoder: csiread.Intel) -> Report:
    """Check and decode a record: its code and body."""
    body_bytes = len(record) - 1
    if body_bytes < _SIZES.size:
        raise InputError(path, where, f"{body_bytes} bytes", f"a report of at least {_SIZES.size}")
    n_rx, n_tx, selection, size = _SIZES.unpack_from(record, 1)
    if not (1 <= n_rx <= 3 and 1 <= n_tx <= 3):
        raise InputError(path, where, f"{n_rx} x {n_tx} antennas", "1 to 3 x 1 to 3")
    bits = 3 + 16 * n_rx * n_tx  # of one subcarrier: padding, then real and imaginary part of each stream
    expected = (SUBCARRIERS * bits + 7) // 8
    if size != expected or body_bytes - _SIZES.size != size:
        found = f"{size} bytes announced, {body_bytes - _SIZES.size} present"
        raise InputError(path, where, found, f"{expected} for {n_rx} x {n_tx} antennas")
    # Two bits for every chain select its antenna, which changes from packet to packet.
    antennas = sorted({selection >> 2 * chain & 3 for chain in range(n_rx)})
    if len(antennas) != n_rx or antennas[-1] > 2:
        raise InputError(path, where, f"antenna selection {selection:#04x}", f"{n_rx} different antennas of three")
    decoder.pmsg(record)
    csi = decoder.csi[0][:, antennas, :n_tx].transpose(2, 1, 0).astype(np.complex64)
    time_us, a, b, c, noise, agc = (
        int(getattr(decoder, name)[0]) for name in ("timestamp_low", "rssi_a", "rssi_b", "rssi_c", "noise", "agc")
    )
    return Report(time_us, tuple(antennas), (a, b, c), noise, agc, csi)


@dataclass(frozen=True)
class Intel5300:
    """Windows float32 [n_tx * n_rx, 30, W] of scaled amplitudes, receive antennas of one transmit stream together.

    The target is the label found in the file's folder or name (see `labelled`); pre-training has none and uses every
    file. Recordings of one target made within a minute of each other are one group. `task.channels` is n_tx * n_rx;
    reports of another number of streams are dropped with a warning, and a labelled file without a window is an
    InputError. A card that uses two of its three antennas may change the pair; a channel is then the first or the
    second antenna of the pair. `task.options` may set fields of `Windows`.
    """

    name: str = "intel5300"
    """Name of the reader in a task file."""
    windows: Windows = field(default_factory=lambda: Windows(seconds=1.5))
    """Length and rate of the windows."""

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Every window below `root`; raises InputError as the class says."""
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
    def _windows(path: Path, cutter: Windows, channels: int, is_labelled: bool) -> list[NDArray[np.float32]]:
        """The windows of one file; InputError if it is labelled and has none."""
        reports = read_reports(path)
        amplitudes = [np.abs(report.scaled()).reshape(-1, SUBCARRIERS) for report in reports]
        kept = [i for i, a in enumerate(amplitudes) if len(a) == channels and a.any()]
        if len(kept) < len(reports):
            counts = Counter(len(a) for a in amplitudes)
            log.warning(
                "%s: %d of %d reports dropped (streams: %s, %d expected, or no power)",
                *(path, len(reports) - len(kept), len(reports), dict(counts), channels),
            )
        windows: list[NDArray[np.float32]] = []
        if kept:
            time_s = require_order(path, unwrap_us([reports[i].time_us for i in kept]))
            windows, n_unused = cutter.cut(np.stack([amplitudes[i] for i in kept]), time_s)
            log.info("%s: %d windows, %d packets in none of them", path, len(windows), n_unused)
        if not windows and is_labelled:
            found = f"{len(kept)} reports of {channels} streams, none fill a window"
            raise InputError(path, "length", found, f"{cutter.seconds} s without a gap")
        return windows


READER = Intel5300()
