# SPDX-License-Identifier: GPL-3.0-or-later
"""Inference on a server of the KServe v2 protocol: address, transports, engine, model repository for Triton."""
