# SPDX-License-Identifier: GPL-3.0-or-later
"""Speed of training against a plain loop, and comparisons of tile geometries."""
