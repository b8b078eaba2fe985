# SPDX-License-Identifier: GPL-3.0-or-later
"""Precisions of a compiled model."""

RELATIVE_TOLERANCES = {"fp32": 0.0, "bf16": 0.05, "fp16": 0.01, "int8": 0.1}
"""By precision, the allowed difference from float32 outputs as a share of the largest output. A half type keeps 8
(bf16) or 11 bits of each number, int8 7 bits of the largest one."""

PRECISIONS = tuple(RELATIVE_TOLERANCES)
