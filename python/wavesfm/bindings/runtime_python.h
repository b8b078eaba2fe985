// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <pybind11/pybind11.h>

//! Adds the paths of slots and channels through a flowgraph to the module.
void bind_grids(pybind11::module_& m);
