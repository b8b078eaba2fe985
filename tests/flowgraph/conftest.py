"""Fixtures of the flowgraph tests; all are skipped where there is no GNU Radio."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gnuradio", reason="GNU Radio belongs to the other environment")
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture()
def fake_engine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """fake_engine(delay_s=0.0, failures=()) -> list of the FakeEngines that classifiers opened from here on run."""
    from wavesfm_core.engines.fake import FakeEngine

    opened: list[Any] = []

    def arrange(delay_s: float = 0.0, failures: Any = ()) -> list[Any]:
        def open_engine(bundle: Any, *_: Any) -> Any:
            opened.append(FakeEngine(bundle, delay_s, failures))
            return opened[-1]

        monkeypatch.setattr("wavesfm_core.pipeline.open_engine", open_engine)
        monkeypatch.setattr("wavesfm_core.pipeline.replay_golden", lambda bundle, engine: None)
        return opened

    return arrange
