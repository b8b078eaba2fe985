# SPDX-License-Identifier: GPL-3.0-or-later
"""The signal classes, one module each, ending in `SIGNAL = SignalClass(...)`."""
