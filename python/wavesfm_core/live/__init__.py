# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `wavesfm live`: sources, session, outputs, web page, recorder, scanner and service."""
