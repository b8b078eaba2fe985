# SPDX-License-Identifier: GPL-3.0-or-later
"""Readers of raw data sets, one module per layout."""
