# SPDX-License-Identifier: GPL-3.0-or-later
"""Trained runs read back, and what they reach on held-back data."""
