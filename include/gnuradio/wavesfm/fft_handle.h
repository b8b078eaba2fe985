// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

//! FFTW's opaque plan as fftw3.h declares it, so that programs with these headers need none of FFTW's.
struct fftwf_plan_s;
using fftwf_plan = struct fftwf_plan_s*;
