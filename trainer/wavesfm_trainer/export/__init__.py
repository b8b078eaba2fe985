# SPDX-License-Identifier: GPL-3.0-or-later
"""From a training run to a bundle."""
