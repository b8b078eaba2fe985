// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <pybind11/pybind11.h>

//! BandDetector and Zoom in the module `_kernels`.
void bind_band(pybind11::module_& m);
