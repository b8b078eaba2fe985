// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <pybind11/pybind11.h>

//! Engine and EngineFailure in the module `_kernels`.
void bind_engine(pybind11::module_& m);
