# SPDX-License-Identifier: GPL-3.0-or-later
"""Labelled IQ for 20 signal classes, deterministic from (seed, index)."""

from importlib import import_module

from .base import Emission, SignalClass, View

MODULES = (
    "noise", "ads_b", "cellular", "gsm", "wifi", "bluetooth", "zigbee", "lora", "ook_ism", "fsk_ism",
    "wbfm", "nfm_voice", "am_voice", "dab", "dvb_t", "ais", "dmr", "pocsag", "ax25_packet", "radiosonde",
)  # fmt: skip

CLASSES: dict[str, SignalClass] = {}
for _name in MODULES:
    _signal = import_module(f"{__name__}.classes.{_name}").SIGNAL
    CLASSES[_signal.label] = _signal
LABELS: tuple[str, ...] = tuple(CLASSES)

__all__ = ["CLASSES", "LABELS", "Emission", "SignalClass", "View"]
