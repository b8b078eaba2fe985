# SPDX-License-Identifier: GPL-3.0-or-later
"""Offline training of WavesFM models: signals, data sets, the ViT, the loop, evaluation and export."""
