# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundle: its specification, its files on disk, golden inputs and outputs, and archives of arrays."""
