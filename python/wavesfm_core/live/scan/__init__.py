# SPDX-License-Identifier: GPL-3.0-or-later
"""Scans over several tunings: plan, order of the visits, what is known of each tuning, occupancy."""
