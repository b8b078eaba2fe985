# SPDX-License-Identifier: GPL-3.0-or-later
"""Recordings on trigger: a label, an unknown signal, a power or a time writes a window of the ring as SigMF."""

from __future__ import annotations

import logging
import re
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..band.types import Event
from ..errors import WavesfmError
from ..types import UNKNOWN, StreamTime
from .config import RecordConfig
from .extract import cut_window, window_recording
from .quota import PREFIX, make_room
from .session import LiveSession

log = logging.getLogger(__name__)

POLL_S = 0.1
MOST_WAITING = 16
FIRED_KEPT = 10_000  # emitters that a trigger remembers
META_BYTES = 1 << 16  # room for the metadata of a recording


@dataclass
class RecorderAccounts:
    """What became of the windows; requested = written + failed + dropped + waiting."""

    requested: int = 0
    """Windows that triggers asked for."""
    written: int = 0
    """Recordings on the disk."""
    failed: int = 0
    """Windows that could not be written, such as on a full disk."""
    dropped: int = 0
    """Windows for which too many others waited, or of which the ring had nothing any more."""
    waiting: int = 0
    """Windows whose end has not come yet, or that are being written."""
    deleted: int = 0
    """Recordings that were deleted for the quota."""
    last_error: str = ""
    """Text of the last fault."""

    def closes(self) -> bool:
        """Whether every window is accounted for."""
        return self.requested == self.written + self.failed + self.dropped + self.waiting


@dataclass(frozen=True)
class _Request:
    start: int
    stop: int
    at: int
    reason: str
    emitter: int | None


class TriggerRecorder:
    """Writes windows of a session's ring on a thread of its own.

    Each trigger fires once for an emitter; the triggers by time fire whatever is on the air. The window reaches from
    `before_s` before the event to `after_s` after it and ends at a gap or a retune. A recording is
    FOLDER/wavesfm_TIME_FREQUENCY_REASON.sigmf-meta with its samples in the format of the source.

    Parameters
    ----------
    session : LiveSession
        With a ring that is longer than the window.
    config : RecordConfig
        Triggers, window, folder and quota.
    """

    def __init__(self, session: LiveSession, config: RecordConfig) -> None:
        assert session.ring is not None
        self._session, self._ring, self._config = session, session.ring, config
        self._fired: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._boxes: deque[dict[str, Any]] = deque(maxlen=2000)
        self._next_s = [time.monotonic() + trigger.get("every_s", 0.0) for trigger in config.triggers]
        self._changed = threading.Condition()  # its lock guards the queue, the accounts and the flag
        self._queue: deque[_Request] = deque()
        self._accounts = RecorderAccounts()
        self._closed = False
        config.folder.mkdir(parents=True, exist_ok=True)
        session.on_events.append(self._take)
        self._thread = threading.Thread(target=self._work, name="wavesfm-recorder", daemon=True)
        self._thread.start()

    @property
    def accounts(self) -> RecorderAccounts:
        """A consistent copy."""
        with self._changed:
            return replace(self._accounts)

    def close(self) -> None:
        """Write the windows that wait, as far as their samples came, and end the thread; after the session's end."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._session.on_events.remove(self._take)

    def _take(self, events: list[Event]) -> None:
        """On the thread of the search."""
        for event in events:
            emitter = event.emitter
            if event.happening == "ended" and emitter.kind in ("signal", "whole"):
                self._boxes.append(emitter.as_dict())
            for number, trigger in enumerate(self._config.triggers):
                key = (number, emitter.number)
                reason = _reason(trigger, event)
                if not reason or key in self._fired:
                    continue
                self._fired[key] = None
                while len(self._fired) > FIRED_KEPT:
                    self._fired.popitem(last=False)
                self._request(event.sample, emitter.rate_hz, reason, emitter.number)

    def _request(self, at: int, rate_hz: float, reason: str, emitter: int | None) -> None:
        config = self._config
        start, stop = at - round(config.before_s * rate_hz), at + round(config.after_s * rate_hz)
        with self._changed:
            self._accounts.requested += 1
            if len(self._queue) >= MOST_WAITING:
                self._accounts.dropped += 1
                return
            self._accounts.waiting += 1
            self._queue.append(_Request(max(0, start), stop, at, reason, emitter))
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                if not self._closed:
                    self._changed.wait(POLL_S)
                closed = self._closed
                ready = [each for each in self._queue if closed or self._ring.span[1] >= each.stop]
            for request in ready:
                self._finish(request)
            if closed:
                return
            self._check_times()

    def _check_times(self) -> None:
        """Triggers by time."""
        now_s = time.monotonic()
        for number, trigger in enumerate(self._config.triggers):
            if "every_s" in trigger and now_s >= self._next_s[number]:
                self._next_s[number] = now_s + trigger["every_s"]
                if self._session.rate_hz:
                    self._request(self._session.position, self._session.rate_hz, "time", None)

    def _finish(self, request: _Request) -> None:
        try:
            values = self._write(request)
        except (WavesfmError, OSError) as error:
            is_gone = getattr(error, "where", "") == "ring"
            self._settle(request, failed=not is_gone, dropped=is_gone, error=str(error))
            self._session.warn(f"no recording of {request.reason}: {error}")
            return
        self._settle(request, written=True)
        self._session.bus.publish("recording", values)

    def _write(self, request: _Request) -> dict[str, Any]:
        """Write a window; returns the values of its record."""
        window = cut_window(self._ring, request.start, request.stop, request.at)
        active = [known.emitter.as_dict() for known in self._session.emitters.all() if known.is_active]
        boxes = [*list(self._boxes), *(each for each in active if each["kind"] in ("signal", "whole"))]
        recording = window_recording(window, boxes, f"recorded by gr-wavesfm: {request.reason}")
        capture = recording.captures[0]
        folder = self._config.folder
        deleted = make_room(folder, sum(map(len, recording.raw)) + META_BYTES, self._config.quota_bytes)
        with self._changed:
            self._accounts.deleted += len(deleted)
        path = recording.write(_free(folder, capture.time, capture.centre_hz, request.reason))
        n_samples = window.stop - window.start
        seconds = n_samples / recording.rate_hz
        facts = {"path": str(path), "reason": request.reason, "emitter": request.emitter, "n_samples": n_samples}
        return {**facts, "seconds": seconds, "centre_hz": capture.centre_hz, "annotations": len(recording.annotations)}

    def _settle(
        self, request: _Request, written: bool = False, failed: bool = False, dropped: bool = False, error: str = ""
    ) -> None:
        with self._changed:
            self._queue.remove(request)
            accounts = self._accounts
            accounts.waiting -= 1
            accounts.written += written
            accounts.failed += failed
            accounts.dropped += dropped
            accounts.last_error = error or accounts.last_error


def _reason(trigger: Mapping[str, Any], event: Event) -> str:
    """Why a trigger fires for an event; "" where it does not."""
    emitter = event.emitter
    if emitter.kind not in ("signal", "whole"):
        return ""
    if "label" in trigger and emitter.label == trigger["label"]:
        return str(emitter.label)
    if "unknown" in trigger and emitter.label == UNKNOWN:
        return UNKNOWN
    if "power_db" in trigger and emitter.power_db >= trigger["power_db"]:
        return "power"
    return ""


def _free(folder: Path, at: StreamTime | None, centre_hz: float | None, reason: str) -> Path:
    """A path without suffix at which nothing is."""
    text = (StreamTime(int(time.time()), time.time() % 1) if at is None else at).as_dict()["utc"]
    moment = re.sub(r"[-:]", "", str(text))[:19]
    place = "" if centre_hz is None else f"_{centre_hz / 1e6:.3f}MHz"
    name = f"{PREFIX}{moment}Z{place}_{re.sub(r'[^a-z0-9-]', '-', reason.lower())[:40]}"
    names: Sequence[str] = [name, *(f"{name}-{number}" for number in range(2, 1000))]
    return next(path for path in map(folder.joinpath, names) if not Path(f"{path}.sigmf-meta").exists())
