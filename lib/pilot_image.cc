// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/pilot_image.h>

namespace wavesfm {

void pilot_image(const std::complex<float>* grid, std::size_t antennas, std::size_t symbols,
                 std::size_t subcarriers, const std::complex<float>* pilots,
                 const std::vector<std::size_t>& pilot_symbols,
                 const std::vector<std::size_t>& pilot_subcarriers, float* image) {
    const std::size_t width = pilot_symbols.size() * pilot_subcarriers.size();
    float* re = image;
    float* im = image + (1 + antennas) * width;
    for (std::size_t i = 0; i < width; i++) {
        *re++ = pilots[i].real();
        *im++ = pilots[i].imag();
    }
    for (std::size_t antenna = 0; antenna < antennas; antenna++) {
        for (const auto symbol : pilot_symbols) {
            const auto* row = grid + (antenna * symbols + symbol) * subcarriers;
            for (const auto subcarrier : pilot_subcarriers) {
                *re++ = row[subcarrier].real();
                *im++ = row[subcarrier].imag();
            }
        }
    }
}

} // namespace wavesfm
