// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <pybind11/pybind11.h>

//! SampleClock and TileStream in the module `_kernels`.
void bind_streams(pybind11::module_& m);
