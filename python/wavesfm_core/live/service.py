# SPDX-License-Identifier: GPL-3.0-or-later
"""All parts of a live session together: source, outputs, recorder, server, monitor, and reloads."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import WavesfmError
from ..pipeline import Pipeline
from .block import Source
from .config import LiveConfig, ModelConfig
from .outputs.annotations import SigMFAnnotations
from .outputs.base import OutputWorker
from .outputs.opening import open_output
from .session import LiveSession
from .sources.opening import open_source
from .status import status_of

log = logging.getLogger(__name__)

STATUS_S = 1.0
QUEUE_RECORDS = 1000
HELD_BACK_RECORDS = 100_000  # of lines of a source that can be held back, faster than a radio


def open_pipeline(model: ModelConfig) -> Pipeline:
    """The pipeline of a configuration. Raises WavesfmError."""
    return Pipeline.open(model.bundle, model.device, None, None, model.threads, precision=model.precision, shared=True)


class LiveService:
    """A live session as its configuration describes it; a context manager that closes everything.

    Parameters
    ----------
    config : LiveConfig
        A checked one.
    source : Source or None
        Instead of the one of the configuration.

    Raises
    ------
    WavesfmError
        A part cannot be opened; those that were opened are closed again.
    """

    def __init__(self, config: LiveConfig, source: Source | None = None) -> None:
        self.config = config
        self._started_s = time.monotonic()
        self._closing = threading.Event()
        self.on_status: list[Callable[[dict[str, Any]], object]] = []
        source = source or open_source(config.source)
        self.outputs: list[OutputWorker] = []
        try:
            opener = partial(open_pipeline, config.model)
            self.session = LiveSession(source, opener, config.band, config.ring_s, config.hang_s)
        except BaseException:
            source.close()
            raise
        try:
            self._open_parts()
        except BaseException:
            self.close()
            raise
        self._monitor = threading.Thread(target=self._watch, name="wavesfm-monitor", daemon=True)
        self._monitor.start()

    def _open_parts(self) -> None:
        for options in self.config.outputs:
            output = open_output(options, self.session.stop)
            usual = QUEUE_RECORDS if self.session.source.is_live else HELD_BACK_RECORDS
            worker = OutputWorker(output, options.get("queue", usual))
            self.outputs.append(worker)
            self.session.bus.add(worker.take)

    def run(self) -> None:
        """Read the source to its end or until `stop`. Raises as the source does."""
        self.session.run()

    def stop(self) -> None:
        """End `run` soon; from any thread."""
        self.session.stop()

    def status(self) -> dict[str, Any]:
        """The present state, see `status_of`."""
        return status_of(self.session, self.outputs, self._started_s)

    def reload(self, model: ModelConfig) -> bool:
        """Go over to another model, or to the same one opened anew; False, with a warning, where that fails."""
        try:
            self.session.reload(partial(open_pipeline, model))
        except WavesfmError as error:
            self.session.warn(f"the old model goes on: {error}")
            return False
        return True

    def close(self) -> None:
        """Close everything in the order in which samples pass; a second call does nothing."""
        if self._closing.is_set():
            return
        self._closing.set()
        self.session.close()
        if hasattr(self, "_monitor"):
            self._monitor.join()
        self.session.bus.publish("status", self.status())
        for worker in self.outputs:
            self.session.bus.remove(worker.take)
            if not worker.close():
                log.warning("%s does not return and is left", worker.output.name)
            elif isinstance(worker.output, SigMFAnnotations):
                self._finalise(worker.output)

    def __enter__(self) -> LiveService:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _finalise(self, output: SigMFAnnotations) -> None:
        try:
            output.finalise()
        except (OSError, WavesfmError) as error:
            log.warning("%s: the journal stays: %s", output.name, error)

    def _watch(self) -> None:
        while not self._closing.wait(STATUS_S):
            try:
                self.session.watch()
                self.session.refresh()
                status = self.status()
                self.session.bus.publish("status", status)
                for taker in list(self.on_status):
                    taker(status)
            except Exception:
                log.exception("the monitor failed")
