# SPDX-License-Identifier: GPL-3.0-or-later
"""Reader of .csv files of the ESP32 CSI tool: one line per packet, CSI as a list of int8 in brackets.

The reader of csiread 1.4.1 is no substitute: it refuses files with a header line and does not count damaged lines.
"""

from __future__ import annotations

import csv
import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from wavesfm_core.errors import InputError

from .base import Raw
from .csi_windows import Windows, labelled, name_below, recordings, sessions, unit_power, unwrap_us, with_options
from .packets import require_order

if TYPE_CHECKING:
    from ..tasks import Task

log = logging.getLogger(__name__)

BINS = 64
# Used subcarriers of the legacy long training field. 0 is empty, and the chip overwrites 0 and 1.
SUBCARRIERS = np.r_[-26:0, 2:27]
_COLUMNS = ("mac", "local_timestamp", "secondary_channel", "len", "CSI_DATA")
TOOL_COLUMNS = (
    "type", "role", "mac", "rssi", "rate", "sig_mode", "mcs", "bandwidth", "smoothing", "not_sounding", "aggregation",
    "stbc", "fec_coding", "sgi", "noise_floor", "ampdu_cnt", "channel", "secondary_channel", "local_timestamp", "ant",
    "sig_len", "rx_state", "real_time_set", "real_timestamp", "len", "CSI_DATA",
)  # fmt: skip
"""Columns of the ESP32 CSI tool, for logs that were begun after its header."""


@dataclass(frozen=True)
class Esp32Recording:
    """The packets of one sender."""

    amplitude: NDArray[np.float32]
    """float32 [P, 1, 51], amplitude over SUBCARRIERS in the chip's units."""
    time_s: NDArray[np.float64]
    """[P], reception time of the packets in seconds."""
    left_out: dict[str, int]
    """Number of dropped packets by reason (another sender, an unreadable line)."""


def read_recording(path: Path) -> Esp32Recording:
    """Packets of the most frequent sender, timed by the chip's microsecond counter.

    Of CSI_DATA (imaginary, real part of each bin) the first 64 bins are read: the legacy training field, which every
    packet has. With a secondary channel they are in ascending order, without one in FFT order. Unreadable lines (cut
    short, numbers outside int8) are counted in `left_out`, and so are the messages that the chip prints as it starts. A
    log without a header has the tool's columns. UTF-16, which PowerShell writes, is read too.

    Raises
    ------
    InputError : a header without the columns, or no readable packet.
    """
    left_out: Counter[str] = Counter()
    packets: list[tuple[str, int, NDArray[np.float32]]] = []
    try:
        with path.open(newline="", encoding=_encoding(path), errors="replace") as file:
            names, rows, n_before = _table(path, file)
            if n_before:
                left_out["before the table"] = n_before
            lines: csv.DictReader[str] = csv.DictReader(rows, names, skipinitialspace=True)
            for line in lines:
                packet = _parse(line)
                if isinstance(packet, str):
                    left_out[packet] += 1
                else:
                    packets.append(packet)
    except csv.Error as error:
        raise InputError(path, "file", error, "comma-separated lines") from None
    if not packets:
        found = ", ".join(f"{n} {reason}" for reason, n in left_out.items()) or "a header and no line"
        raise InputError(path, "lines", found, f"CSI of {BINS} bins or more")
    sender = Counter(mac for mac, _, _ in packets).most_common(1)[0][0]
    kept = [packet for packet in packets if packet[0] == sender]
    if len(kept) < len(packets):
        left_out["of another sender"] = len(packets) - len(kept)
    return Esp32Recording(
        np.stack([a for _, _, a in kept])[:, None], unwrap_us([t for _, t, _ in kept]), dict(left_out)
    )


def _encoding(path: Path) -> str:
    """Of the text, by its first bytes."""
    with path.open("rb") as file:
        first = file.read(2)
    return "utf-16" if first in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"


def _table(path: Path, file: Iterable[str]) -> tuple[list[str], Iterator[str], int]:
    """Column names, the lines below them, and the number of lines before; raises InputError without a table."""
    first = ""
    lines = iter(file)
    for n_before, line in enumerate(lines):
        names = [name.strip() for name in line.split(",")]
        if all(column in names for column in _COLUMNS):
            return names, lines, n_before
        if names[0] == "CSI_DATA":
            return list(TOOL_COLUMNS), chain([line], lines), n_before
        if "CSI_DATA" in names:
            first = line
            break
        first = first or line.strip()
    found = ", ".join(name.strip() for name in first.split(","))[:120] or "an empty file"
    missing = [column for column in _COLUMNS if column not in found.split(", ")]
    raise InputError(path, "columns", found, ", ".join(missing) + " among them")


def _parse(line: dict[str, str | None]) -> tuple[str, int, NDArray[np.float32]] | str:
    """(mac, microseconds, amplitude [51]) of a line, or why it is dropped."""
    try:
        length, ticks, secondary = (int(line[key] or "") for key in ("len", "local_timestamp", "secondary_channel"))
        text = (line["CSI_DATA"] or "").strip()
        values = np.array(text[1:-1].split(), dtype=np.int64)
    except (ValueError, TypeError, OverflowError):
        return "that are no numbers"
    # The chip may measure three training fields (len 384) while the tool prints only the first.
    if not (text.startswith("[") and text.endswith("]")) or len(values) not in (length, min(length, 2 * BINS)):
        return "cut short"
    if len(values) < 2 * BINS:
        return f"of fewer than {BINS} bins"
    if not 0 <= ticks < 1 << 32 or np.abs(values + 0.5).max() > 128:
        return "with numbers out of range"
    bins = np.hypot(values[1 : 2 * BINS : 2], values[0 : 2 * BINS : 2]).astype(np.float32)
    bins = np.fft.fftshift(bins) if secondary == 0 else bins
    amplitude = bins[SUBCARRIERS + BINS // 2]
    return (line["mac"] or "", ticks, amplitude) if amplitude.any() else "without power"


@dataclass(frozen=True)
class Esp32:
    """Windows float32 [1, 51, W] of amplitudes, each packet scaled to a root mean square of 1.

    The gain of a packet is not recorded. The target is the label found in the file's folder or name (see `labelled`);
    pre-training has none. Recordings of one target made within a minute of each other are one group, if their names
    tell the time. `task.options` may set fields of `Windows`.
    """

    name: str = "esp32"
    """Name of the reader in a task file."""
    windows: Windows = field(default_factory=lambda: Windows(seconds=2.0))
    """Length and rate of the windows."""

    def read(self, root: Path, task: Task) -> Iterator[Raw]:
        """Every window below `root`; raises InputError for a labelled file without one."""
        if task.channels != 1:
            raise InputError(root, "channels", task.channels, "1, the antenna of an ESP32")
        paths = recordings(root, ".csv")
        targets = labelled(paths, root, task.labels) if task.kind == "classification" else dict.fromkeys(paths)
        groups = sessions(targets)
        cutter, n_windows = with_options(self.windows, task), 0
        for path, target in targets.items():
            capture = read_recording(path)
            time_s = require_order(path, capture.time_s)
            windows, n_left = cutter.cut(unit_power(capture.amplitude, per_packet=True), time_s)
            if capture.left_out:
                log.warning("%s: lines left out: %s", path, capture.left_out)
            log.info("%s: %d windows, %d packets in none of them", path, len(windows), n_left)
            if not windows and target is not None:
                found = f"{len(capture.time_s)} packets, none fill a window"
                raise InputError(path, "length", found, f"{cutter.seconds} s without a gap")
            for i, window in enumerate(windows):
                n_windows += 1
                yield Raw(window, target, f"{name_below(path, root)}[{i}]", groups[path])
        if not n_windows:
            raise InputError(root, "length", "no window", f"{cutter.seconds} s without a gap in some file")


READER = Esp32()
