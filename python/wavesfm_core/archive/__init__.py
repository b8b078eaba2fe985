# SPDX-License-Identifier: GPL-3.0-or-later
"""Many recordings by many processes: each once, its result written whole, and resumable at any moment."""
