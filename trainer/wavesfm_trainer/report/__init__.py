# SPDX-License-Identifier: GPL-3.0-or-later
"""Tables, figures and pages of a study."""
