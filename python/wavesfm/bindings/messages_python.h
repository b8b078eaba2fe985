// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <pybind11/pybind11.h>

//! Message and publish in the module `_runtime`.
void bind_messages(pybind11::module_& m);
