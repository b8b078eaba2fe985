// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <fftw3.h>

#include <cstddef>

namespace wavesfm {

//! Forward single-precision plan for one frame, out of place, 64-byte aligned arrays; made once per size and
//! process, so that every tiler of a process transforms alike. Thread safe. Execute with fftwf_execute_dft().
fftwf_plan forward_plan(std::size_t fft_size);

//! The same, of a size that much is transformed with: planned by measuring, up to 32768 samples. That takes
//! tenths of a second, once per size and process, and the last bits of a result may differ between processes.
fftwf_plan measured_plan(std::size_t fft_size);

//! Backward plan, estimated, else as forward_plan().
fftwf_plan backward_plan(std::size_t fft_size);

} // namespace wavesfm
