// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <fftw3.h>

#include <cstddef>

namespace wavesfm {

//! Forward single-precision plan for one frame, out of place, 64-byte aligned arrays; made once per size and
//! process, so that every tiler of a process transforms alike. Thread safe. Execute with fftwf_execute_dft().
fftwf_plan forward_plan(std::size_t fft_size);

} // namespace wavesfm
