# SPDX-License-Identifier: GPL-3.0-or-later
"""Back-off: entered and left at different thresholds, by either of two measures."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wavesfm_core.channel.backoff import BackOff
from wavesfm_core.errors import ConfigurationError


def states(backoff: BackOff, *slots: tuple[float, float]) -> str:
    return "".join("B" if backoff.update(*slot) else "." for slot in slots)


def test_by_snr_with_hysteresis() -> None:
    backoff = BackOff(enter_db=13, leave_db=11)
    snrs = (10, 12.9, 13, 12, 11, 10.9, 12.9, 14)
    assert states(backoff, *[(snr, 1.0) for snr in snrs]) == "..BBB..B"
    assert backoff.switches == 3


def test_by_residual_with_hysteresis() -> None:
    backoff = BackOff(residual_enter=2, residual_leave=1.5)
    residuals = (1, 1.9, 2, 1.6, 1.5, 1.49, 1.9, 50)
    assert states(backoff, *[(60.0, residual) for residual in residuals]) == "..BBB..B"


def test_it_comes_back_when_both_say_so() -> None:
    backoff = BackOff(enter_db=13, leave_db=11, residual_enter=2, residual_leave=1.5)
    assert states(backoff, (14, 3), (10, 3), (12, 1), (14, 1), (10, 1)) == "BBBB."


def test_the_default_knows_no_snr() -> None:
    assert states(BackOff(), (80, 1.0), (80, 1.8), (80, 1.5), (80, 1.3)) == ".BB."


def test_reset_forgets_the_state_but_not_the_count() -> None:
    backoff = BackOff()
    backoff.update(0, 9)
    backoff.reset()
    assert (backoff.active, backoff.switches) == (False, 1)


@pytest.mark.parametrize(
    "values",
    [
        {"enter_db": 13, "leave_db": 13},
        {"enter_db": 13},
        {"leave_db": float("nan"), "enter_db": 3},
        {"residual_enter": 1, "residual_leave": 1.4},
    ],
)
def test_thresholds_the_wrong_way_round_are_named(values: dict) -> None:
    with pytest.raises(ConfigurationError, match=r"back-off: (leave_db|residual_leave): found .*, expected less than"):
        BackOff(**values)


@given(st.lists(st.tuples(st.floats(-40, 80), st.floats(0, 10)), max_size=60))
def test_between_the_thresholds_nothing_changes(slots: list) -> None:
    backoff, before = BackOff(13, 11, 2, 1.5), False
    for snr_db, residual in slots:
        now = backoff.update(snr_db, residual)
        if snr_db < 13 and residual < 2 and not (snr_db < 11 and residual < 1.5):
            assert now == before
        before = now
