// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstddef>

namespace wavesfm {

struct FloorAndPeak {
    float floor; //!< lower median: item (n - 1) / 2 in order
    float peak;  //!< 99.9 % quantile by nearest rank: item ceil(0.999 n) - 1 in order
};

//! Exact order statistics of n >= 1 finite values.
FloorAndPeak floor_and_peak(const float* values, std::size_t n);

} // namespace wavesfm
