// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>

#include <cstddef>
#include <cstdint>

namespace wavesfm {

//! Zeros before and after the values that `box` reads: half of the widest box.
constexpr std::size_t box_margin = 32;

//! The band detector's loops over cells, once per instruction set; every pointer is filled.
struct BandLoops {
    //! values[i] *= factors[i].
    void (*multiply)(float* values, const float* factors, std::size_t n);
    //! sum[i] += values[i].
    void (*add)(const float* values, float* sum, std::size_t n);
    //! lowest[r * n + i], r < rank: the rank smallest of values[i] and of what was there, rising with r.
    void (*keep_lowest)(const float* values, float* lowest, std::size_t rank, std::size_t n);
    //! out[i] = values[i], or 1 where taken[i].
    void (*untaken)(const float* values, const std::uint8_t* taken, float* out, std::size_t n);
    //! out[i] = sum of the `width` values from i - width / 2 on; width 3, 5 or 32; `values` and `scratch`
    //! have box_margin before and after.
    void (*box)(const float* values, float* scratch, std::size_t width, float* out, std::size_t n);
    //! codes[i] = 0, 1 above low, 3 above high; whether any is above high.
    bool (*compare)(const float* values, float low, float high, std::uint8_t* codes, std::size_t n);
    //! out[i] |= in[i - 2] | ... | in[i + 2], what lies outside is 0.
    void (*spread)(const std::uint8_t* in, std::uint8_t* out, std::size_t n);
    //! Sum of n values, in eight lanes.
    float (*total)(const float* values, std::size_t n);
    //! out[i] = bins[i] * weights[i] * (re + j im), of n complex values as pairs.
    void (*weigh)(const float* bins, const float* weights, float re, float im, float* out, std::size_t n);
};

//! The widest set that this processor has; chosen once, as `hot_loops` does.
WAVESFM_API const BandLoops& band_loops();

} // namespace wavesfm
