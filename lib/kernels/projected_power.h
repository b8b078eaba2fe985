// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <complex>
#include <cstddef>

namespace wavesfm {

//! The mean of |row . mode|^2 over rows and modes, without a conjugate.
//!
//! rows: n_rows of k samples each; modes: k x n_modes, in C order; all at least 1. Each product is taken in
//! single precision, their powers are summed in double.
double projected_power(const std::complex<float>* rows, std::size_t n_rows, std::size_t k,
                       const std::complex<float>* modes, std::size_t n_modes);

} // namespace wavesfm
