# SPDX-License-Identifier: GPL-3.0-or-later
"""What several tests share: small models, bundles, data sets, flowgraphs and oracles."""
