# SPDX-License-Identifier: GPL-3.0-or-later
"""Windows for live streams: numpy models without Qt, and the widgets that show them."""
