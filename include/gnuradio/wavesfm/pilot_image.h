// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>

#include <complex>
#include <cstddef>
#include <vector>

namespace wavesfm {

//! Writes the input of the paper's channel estimator: image [2, 1 + antennas, P * Fp] of real and imaginary
//! parts; row 0 holds the transmitted pilots, row 1 + a those received by antenna a, pilot symbol after pilot
//! symbol.
//!
//! \param grid               received grid [antennas, symbols, subcarriers]
//! \param pilots             transmitted pilots [P, Fp]
//! \param pilot_symbols      P indices below symbols, checked by the caller
//! \param pilot_subcarriers  Fp indices below subcarriers, checked by the caller
//! \param image              output
WAVESFM_API void pilot_image(const std::complex<float>* grid, std::size_t antennas, std::size_t symbols,
                             std::size_t subcarriers, const std::complex<float>* pilots,
                             const std::vector<std::size_t>& pilot_symbols,
                             const std::vector<std::size_t>& pilot_subcarriers, float* image);

} // namespace wavesfm
