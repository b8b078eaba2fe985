// SPDX-License-Identifier: GPL-3.0-or-later
#include "qa.h"
#include <gnuradio/wavesfm/pilot_image.h>

using namespace wavesfm;

int main() {
    // an element says where it is: antenna, symbol and subcarrier in the real part, the same below zero in
    // the other
    constexpr std::size_t antennas = 3, symbols = 4, subcarriers = 5;
    std::vector<std::complex<float>> grid;
    for (std::size_t i = 0; i < antennas * symbols * subcarriers; i++) {
        grid.emplace_back(static_cast<float>(i), -static_cast<float>(i));
    }
    const std::vector<std::size_t> pilot_symbols{1, 3}, pilot_subcarriers{0, 2, 4};
    std::vector<std::complex<float>> pilots;
    for (int i = 0; i < 6; i++) {
        pilots.emplace_back(static_cast<float>(1000 + i), static_cast<float>(2000 + i));
    }
    constexpr std::size_t width = 6, rows = 1 + antennas;
    std::vector<float> image(2 * rows * width, -1.0f);
    pilot_image(grid.data(), antennas, symbols, subcarriers, pilots.data(), pilot_symbols, pilot_subcarriers,
                image.data());
    for (std::size_t i = 0; i < width; i++) {
        REQUIRE(image[i] == 1000.0f + static_cast<float>(i));
        REQUIRE(image[rows * width + i] == 2000.0f + static_cast<float>(i));
        for (std::size_t antenna = 0; antenna < antennas; antenna++) {
            const std::size_t symbol = i < 3 ? 1 : 3, subcarrier = 2 * (i % 3);
            const auto at = static_cast<float>((antenna * symbols + symbol) * subcarriers + subcarrier);
            REQUIRE(image[(1 + antenna) * width + i] == at);
            REQUIRE(image[(rows + 1 + antenna) * width + i] == -at);
        }
    }
    return 0;
}
