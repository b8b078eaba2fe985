// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <pybind11/pybind11.h>

//! Adds slots, their streams and their synchronisation to the module.
void bind_slots(pybind11::module_& m);
//! Adds observations, estimators and the pipeline of channels to the module; after bind_slots.
void bind_channels(pybind11::module_& m);
