# SPDX-License-Identifier: GPL-3.0-or-later
"""From samples, arrays and resource grids to the tile that an engine takes."""
