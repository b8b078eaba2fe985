# SPDX-License-Identifier: GPL-3.0-or-later
"""IQ recordings: raw files and SigMF, their metadata and annotations."""
