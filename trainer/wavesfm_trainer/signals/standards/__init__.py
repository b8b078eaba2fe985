# SPDX-License-Identifier: GPL-3.0-or-later
"""Waveforms of standards that signal classes are built from: frames, cells and their reference signals."""
