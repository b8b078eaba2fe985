# SPDX-License-Identifier: GPL-3.0-or-later
"""The networks: encoder, masked autoencoder, adapters, task heads and their weights files."""
