# SPDX-License-Identifier: GPL-3.0-or-later
"""From a user's own labelled recordings to a classifier in minutes."""
