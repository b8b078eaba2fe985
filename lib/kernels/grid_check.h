// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <complex>
#include <cstddef>
#include <vector>

namespace wavesfm {

//! What decides whether a slot's grid can be used: n_bad elements are NaN or infinite, pilot_power is the
//! mean |x|^2 of the elements at the pilots, summed in double, and n_silent pilot symbols are all zero at the
//! pilots of all antennas.
struct GridFacts {
    std::size_t n_bad;
    double pilot_power;
    std::size_t n_silent;
};

//! grid: antennas x symbols x subcarriers, in C order; the pilots are at each pilot symbol's pilot
//! subcarriers, at least one, all within the grid.
GridFacts check_grid(const std::complex<float>* grid, std::size_t antennas, std::size_t symbols,
                     std::size_t subcarriers, const std::vector<std::size_t>& pilot_symbols,
                     const std::vector<std::size_t>& pilot_subcarriers);

} // namespace wavesfm
