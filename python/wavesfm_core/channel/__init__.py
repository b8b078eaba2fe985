# SPDX-License-Identifier: GPL-3.0-or-later
"""MIMO-OFDM channel estimation: numerology, slots out of streams, pilots, estimators; numpy and the kernels."""
