// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/aligned.h>
#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/hot_loops.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace wavesfm {

//! One axis of a bicubic antialiased resize (a = -0.5, half-pixel centres, edges cut and every row normalised
//! to 1), as PIL's BICUBIC and torch's interpolate(mode="bicubic", antialias=True) have it.
struct WAVESFM_API ResizeMatrix {
    std::size_t n_in, n_out;
    std::size_t taps;                 //!< stored per output, a multiple of 8; unused ones are 0
    std::vector<std::uint32_t> first; //!< [n_out] first input of each output
    std::vector<std::uint32_t> count; //!< [n_out] inputs that count
    AlignedFloats weights;            //!< [n_out, taps]

    ResizeMatrix(std::size_t n_in, std::size_t n_out);
};

//! Resizes both axes of `channels` planes of finite floats: in [channels, n_rows, n_columns], out [channels,
//! height, width]; columns first. Every size is at least 1.
WAVESFM_API void resize_image(const float* in, std::size_t channels, std::size_t n_rows,
                              std::size_t n_columns, std::size_t height, std::size_t width, float* out,
                              const HotLoops& loops = hot_loops());

} // namespace wavesfm
