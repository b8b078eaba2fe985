// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <complex>
#include <cstddef>
#include <vector>

namespace wavesfm {

//! The pilots of a grid beside those sent, as the paper's channel estimator sees them: image [2, 1 +
//! antennas, P * Fp] of the real and the imaginary parts, row 0 what was sent, row 1 + a what antenna a
//! received; pilot symbol after pilot symbol.
//!
//! grid: [antennas, symbols, subcarriers]; pilots: [P, Fp]; pilot_symbols: P indices below symbols;
//! pilot_subcarriers: Fp indices below subcarriers (the caller has checked both).
void pilot_image(const std::complex<float>* grid, std::size_t antennas, std::size_t symbols,
                 std::size_t subcarriers, const std::complex<float>* pilots,
                 const std::vector<std::size_t>& pilot_symbols,
                 const std::vector<std::size_t>& pilot_subcarriers, float* image);

} // namespace wavesfm
