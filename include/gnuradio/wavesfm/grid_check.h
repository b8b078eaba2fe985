// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>

#include <complex>
#include <cstddef>
#include <vector>

namespace wavesfm {

//! Facts that decide whether the grid of a slot can be used.
struct GridFacts {
    std::size_t n_bad;    //!< elements that are NaN or infinite
    double pilot_power;   //!< mean |x|^2 of the pilots, summed in double
    std::size_t n_silent; //!< pilot symbols that are zero at the pilots of all antennas
};

//! Examines a grid.
//!
//! \param grid               [antennas, symbols, subcarriers] in C order
//! \param pilot_symbols      indices of the pilot symbols, at least one, all below symbols
//! \param pilot_subcarriers  indices of the pilots in each, at least one, all below subcarriers
WAVESFM_API GridFacts check_grid(const std::complex<float>* grid, std::size_t antennas, std::size_t symbols,
                                 std::size_t subcarriers, const std::vector<std::size_t>& pilot_symbols,
                                 const std::vector<std::size_t>& pilot_subcarriers);

} // namespace wavesfm
