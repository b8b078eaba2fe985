// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>

#include <complex>
#include <cstddef>

namespace wavesfm {

//! Returns the mean of |row . mode|^2 (no conjugate) over rows and modes. Products are computed in single
//! precision, their powers are summed in double.
//!
//! \param rows   [n_rows, k], both at least 1
//! \param modes  [k, n_modes] in C order, n_modes at least 1
WAVESFM_API double projected_power(const std::complex<float>* rows, std::size_t n_rows, std::size_t k,
                                   const std::complex<float>* modes, std::size_t n_modes);

} // namespace wavesfm
