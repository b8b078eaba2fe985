// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/sample_conversion.h>

#include <cstring>
#include <stdexcept>

namespace wavesfm {

std::size_t sample_bytes(const std::string& sample_format) {
    if (sample_format == "cu8" || sample_format == "cs8") {
        return 2;
    }
    if (sample_format == "cs16") {
        return 4;
    }
    if (sample_format == "cf32") {
        return 8;
    }
    throw std::invalid_argument("sample_format: found " + sample_format +
                                ", expected cu8, cs8, cs16 or cf32");
}

void to_complex(const void* raw, std::size_t n, const std::string& sample_format, std::complex<float>* out,
                const HotLoops& loops) {
    auto* parts = reinterpret_cast<float*>(out);
    if (sample_format == "cu8") {
        loops.from_u8(static_cast<const std::uint8_t*>(raw), parts, 2 * n);
    } else if (sample_format == "cs8") {
        loops.from_s8(static_cast<const std::int8_t*>(raw), parts, 2 * n);
    } else if (sample_format == "cs16") {
        loops.from_s16(static_cast<const unsigned char*>(raw), parts, 2 * n);
    } else if (n > 0) {
        std::memcpy(parts, raw, n * sample_bytes(sample_format));
    }
}

} // namespace wavesfm
