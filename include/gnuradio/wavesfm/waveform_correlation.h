// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>

#include <complex>
#include <cstddef>

namespace wavesfm {

//! Computes the share of the power of each window that has a known waveform, 0 to 1, as the mean over
//! antennas: out[m] = mean over a of |sum over k of x[a][m + k] conj(w[k])|^2 / (|w|^2 sum over k of |x[a][m
//! + k]|^2). A window with less than 1e-9 of the power around it counts as empty (0), below single precision.
//!
//! \param samples   finite samples; the n of antenna a begin at samples + a * stride
//! \param waveform  k samples, 1 <= k <= n, not all zero
//! \param out       n - k + 1 values
WAVESFM_API void waveform_correlation(const std::complex<float>* samples, std::size_t antennas,
                                      std::size_t stride, std::size_t n, const std::complex<float>* waveform,
                                      std::size_t k, float* out);

} // namespace wavesfm
