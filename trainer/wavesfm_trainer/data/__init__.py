# SPDX-License-Identifier: GPL-3.0-or-later
"""Data sets: readers of raw layouts, splits, and prepared caches that training reads whole into memory."""
