// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <pybind11/pybind11.h>

//! TileSignature, SignatureTolerances, tile_signature and alike in the module `_kernels`.
void bind_signature(pybind11::module_& m);
