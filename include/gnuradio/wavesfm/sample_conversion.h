// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/hot_loops.h>

#include <complex>
#include <cstddef>
#include <string>

namespace wavesfm {

//! Bytes of one sample of "cu8", "cs8", "cs16" or "cf32" (interleaved I and Q, little-endian); throws
//! std::invalid_argument for any other name.
WAVESFM_API std::size_t sample_bytes(const std::string& sample_format);

//! Converts n samples: cu8 (x - 127.5) / 127.5, cs8 x / 128, cs16 x / 32768, cf32 as it is. Any alignment of
//! raw.
WAVESFM_API void to_complex(const void* raw, std::size_t n, const std::string& sample_format,
                            std::complex<float>* out, const HotLoops& loops = hot_loops());

} // namespace wavesfm
