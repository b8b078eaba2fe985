# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures of the flowgraph tests; all are skipped where there is no GNU Radio."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("gnuradio", reason="GNU Radio belongs to the other environment")


@pytest.fixture(autouse=True)
def no_engine_of_another_test() -> Iterator[None]:
    """Blocks share engines, and a block of an earlier test may still exist."""
    yield
    from wavesfm_core.engines.shared import close_all

    close_all()


@pytest.fixture()
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """fake_engine(delay_s=0.0, failures=(), go=None) -> list of the FakeEngines that classifiers opened from here on.
    With `go` each run ends when that event is set."""
    from support.waiting import LONG_S
    from wavesfm_core.engines.fake import FakeEngine

    opened: list[Any] = []

    class HeldEngine(FakeEngine):
        def __init__(self, bundle: Any, delay_s: float, failures: Any, go: Any) -> None:
            super().__init__(bundle, delay_s, failures)
            self._go = go

        def run(self, inputs: Any) -> Any:
            outputs = super().run(inputs)
            assert self._go is None or self._go.wait(LONG_S)
            return outputs

    def arrange(delay_s: float = 0.0, failures: Any = (), go: Any = None) -> list[Any]:
        def open_engine(bundle: Any, *_: Any) -> Any:
            opened.append(HeldEngine(bundle, delay_s, failures, go))
            return opened[-1]

        monkeypatch.setattr("wavesfm_core.pipeline.open_engine", open_engine)
        monkeypatch.setattr("wavesfm_core.pipeline.verify_engine", lambda bundle, engine: engine)
        return opened

    return arrange


@pytest.fixture()
def standby(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """standby(failures=(), refused=None, allow=None) -> list of the pairs (CPU's, GPU's) of engines that blocks opened
    from here on run. The GPU's is made, or refused with that error, once the event `allow` is set, at once without."""
    from support.known_engines import KnownEngine
    from wavesfm_core.engines.standby import StandbyEngine

    opened: list[Any] = []

    def arrange(failures: Any = (), refused: Exception | None = None, allow: Any = None) -> list[Any]:
        def open_engine(bundle: Any, device: str, threads: int, precision: str, device_id: int, on_change: Any) -> Any:
            cpu = KnownEngine(bundle, "cpu engine")
            gpu = KnownEngine(bundle, f"{device} {precision} on GPU {device_id}", failures=failures)
            opened.append((cpu, gpu))

            def make() -> Any:
                assert allow is None or allow.wait(300)
                if refused is not None:
                    raise refused
                return gpu

            return StandbyEngine(bundle, cpu, make, on_change)

        for module in ("wavesfm_core.pipeline", "wavesfm_core.channel.pipeline"):
            monkeypatch.setattr(f"{module}.open_engine", open_engine)
            monkeypatch.setattr(f"{module}.verify_engine", lambda bundle, engine: engine)
        return opened

    return arrange
