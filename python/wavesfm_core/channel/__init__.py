# SPDX-License-Identifier: GPL-3.0-or-later
"""MIMO-OFDM channel estimation: slots from streams, synchronisation, estimators, back-off."""
