# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything in the band: what is where and when, each signal zoomed in on and named."""
