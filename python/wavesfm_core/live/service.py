# SPDX-License-Identifier: GPL-3.0-or-later
"""All parts of a live session together: source, outputs, recorder, server, monitor, and reloads."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ..errors import ConfigurationError, WavesfmError
from ..pipeline import Pipeline
from .block import Source, TunableSource
from .config import LEAST_TOKEN, LiveConfig, ModelConfig, read_secret
from .outputs.annotations import SigMFAnnotations
from .outputs.base import OutputWorker
from .outputs.opening import open_output
from .outputs.prometheus import Prometheus
from .recorder import TriggerRecorder
from .scan.plan import ScanPlan, load_plan
from .scan.scanner import Scanner
from .session import LiveSession
from .sources.opening import open_source
from .status import status_of
from .web.server import WebServer

log = logging.getLogger(__name__)

STATUS_S = 1.0
PAGE_S = 0.25  # from one table of emitters on the page to the next
OCCUPANCY_S = 60.0  # from one heat map to the next
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
        self._monitor: threading.Thread | None = None
        self.on_status: list[Callable[[dict[str, Any]], object]] = []
        self.outputs: list[OutputWorker] = []
        self.recorder: TriggerRecorder | None = None
        self.scanner: Scanner | None = None
        self.server: WebServer | None = None
        self._occupancy_s = self._status_s = time.monotonic()
        source = self._open_source(source)
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

    def _open_source(self, source: Source | None) -> Source:
        """The source of the session; with a plan it is the scanner."""
        config = self.config
        if config.scan is None:
            return source or open_source(config.source)
        plan: ScanPlan = load_plan(config.scan.plan)
        first = plan.tunings[0]
        tunable = source or open_source(config.source, (first.centre_hz, first.rate_hz))
        if not isinstance(tunable, TunableSource):
            tunable.close()
            raise ConfigurationError("scan", "source", tunable.description, "a source that can be tuned")
        self.scanner = Scanner(tunable, plan)
        return self.scanner

    def _open_parts(self) -> None:
        if self.scanner is not None:
            self.scanner.follow(self.session)
        if self.config.record is not None:
            self.recorder = TriggerRecorder(self.session, self.config.record)
        for options in self.config.outputs:
            output = open_output(options, self.session.stop)
            usual = QUEUE_RECORDS if self.session.source.is_live else HELD_BACK_RECORDS
            worker = OutputWorker(output, options.get("queue", usual))
            self.outputs.append(worker)
            self.session.bus.add(worker.take)
        if (web := self.config.web) is not None:
            token = None if web.token_file is None else read_secret(web.token_file, LEAST_TOKEN)
            found = [worker.output for worker in self.outputs if isinstance(worker.output, Prometheus)]
            self.server = WebServer(self.session, web, token, self.status, found[0] if found else None)
            self.on_status.append(self.server.take_status)

    def run(self) -> None:
        """Read the source to its end or until `stop`. Raises as the source does."""
        self.session.run()

    def stop(self) -> None:
        """End `run` soon; from any thread."""
        self.session.stop()

    def status(self) -> dict[str, Any]:
        """The present state: see `status_of`, with `recorder` and `scan` where there are these."""
        status = status_of(self.session, self.outputs, self._started_s)
        if self.recorder is not None:
            status["recorder"] = dataclasses.asdict(self.recorder.accounts)
        if self.server is not None:
            status["web"] = self.server.accounts
        if self.scanner is not None:
            status["scan"] = {"visits": self.scanner.visits, "places": len(self.scanner.memory.places)}
        return status

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
        if self._monitor is not None:
            self._monitor.join()
        if self.scanner is not None:
            self.scanner.finish()
            self._write_occupancy()
        if self.recorder is not None:
            self.recorder.close()
        if self.server is not None:
            self.server.close()
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

    def _write_occupancy(self) -> None:
        """Write the heat map, as a CSV and as a PNG."""
        self._occupancy_s = time.monotonic()
        if self.scanner is None or self.config.scan is None or self.config.scan.occupancy is None:
            return
        base = self.config.scan.occupancy
        try:
            self.scanner.occupancy.write_csv(base.with_name(base.name + ".csv"))
            self.scanner.occupancy.write_png(base.with_name(base.name + ".png"))
        except (OSError, WavesfmError) as error:
            self.session.warn(f"the heat map of the scan cannot be written: {error}")

    def _watch(self) -> None:
        while not self._closing.wait(PAGE_S):
            try:
                self.session.watch()
                self.session.refresh()
                status = self.status()
                for taker in list(self.on_status):
                    taker(status)
                if time.monotonic() - self._status_s >= STATUS_S:
                    self._status_s = time.monotonic()
                    self.session.bus.publish("status", status)
                if time.monotonic() - self._occupancy_s > OCCUPANCY_S:
                    self._write_occupancy()
            except Exception:
                log.exception("the monitor failed")
