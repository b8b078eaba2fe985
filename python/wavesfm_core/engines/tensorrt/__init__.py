# SPDX-License-Identifier: GPL-3.0-or-later
"""TensorRT and TensorRT-RTX: compilation, plans on disk, sessions on the GPU."""
