# SPDX-License-Identifier: GPL-3.0-or-later
"""The command `wavesfm live`: sources of samples, the live session, outputs, web page, recorder, scanner and service."""
