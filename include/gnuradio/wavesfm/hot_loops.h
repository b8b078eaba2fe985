// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace wavesfm {

//! Magnitude of a part (I or Q) from which a sample counts as not finite: its power would overflow further
//! on.
constexpr float sample_limit = 1e15f;

//! The loops that take the time, once per instruction set; every pointer is filled.
struct HotLoops {
    const char* name;

    //! out[i] = x[i] * window[i] for 2n floats (window holds each weight twice); false when a part is NaN or
    //! >= limit.
    bool (*window_frame)(const float* x, const float* window, float* out, std::size_t n);
    //! sum[0] and sum[1] grow by the sums of the real and the imaginary parts of n samples, within 1e-6 of
    //! the sum of magnitudes.
    void (*add_samples)(const float* x, std::size_t n, double* sum);
    //! The sum of n powers, within 1e-6 of it.
    float (*sum_power)(const float* power, std::size_t n);
    //! power[i] += |spectrum[i]|^2 for n interleaved complex values.
    void (*add_power)(const float* spectrum, float* power, std::size_t n);
    //! db[i] = max(10 log10(power[i] * scale), floor_db), within 1e-4 dB.
    void (*power_to_db)(const float* power, float scale, float floor_db, float* db, std::size_t n);
    //! out[o] = sum over t < taps of weights[o * taps + t] * in[first[o] + t]; taps is a multiple of 8.
    void (*banded_dots)(const float* in, const std::uint32_t* first, const float* weights, std::size_t taps,
                        float* out, std::size_t n_out);
    //! out[c] = sum over r < n_rows of weights[r] * rows[r * width + c].
    void (*weighted_rows)(const float* rows, const float* weights, std::size_t n_rows, std::size_t width,
                          float* out);
    //! x[i] = (clip((x[i] - low) * per_db, 0, 1) - mean) * per_std, in place.
    void (*map_range)(float* x, std::size_t n, float low, float per_db, float mean, float per_std);
    //! n values (two per sample) to float: (x - 127.5) / 127.5, x / 128, x / 32768.
    void (*from_u8)(const std::uint8_t* x, float* out, std::size_t n);
    void (*from_s8)(const std::int8_t* x, float* out, std::size_t n);
    void (*from_s16)(const unsigned char* x, float* out, std::size_t n); //!< little-endian, any alignment
};

//! The widest set that this processor has; chosen once.
WAVESFM_API const HotLoops& hot_loops();

//! Every set that this processor has, narrowest first (for the tests).
WAVESFM_API std::vector<const HotLoops*> available_hot_loops();

} // namespace wavesfm
