# SPDX-License-Identifier: GPL-3.0-or-later
"""Outputs of a live session: one class for each kind of peer behind `Output`, each on a thread of its own."""
