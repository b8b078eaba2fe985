# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP server of a live session: page, WebSocket, downloads, metrics, health."""
