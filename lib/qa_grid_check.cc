// SPDX-License-Identifier: GPL-3.0-or-later
// Bad elements are counted wherever they are, each once; the power is that of the pilots and of nothing else.
#include "qa.h"
#include <gnuradio/wavesfm/grid_check.h>

#include <cmath>
#include <limits>

using namespace wavesfm;

int main() {
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    std::vector<std::complex<float>> grid(2 * 3 * 4, {9.0f, 9.0f}); // 2 antennas, 3 symbols, 4 subcarriers
    const std::vector<std::size_t> symbols{0, 2}, subcarriers{1, 3};
    for (const std::size_t antenna : {0, 1}) {
        for (const auto symbol : symbols) {
            for (const auto subcarrier : subcarriers) {
                grid[(antenna * 3 + symbol) * 4 + subcarrier] = {3.0f, -4.0f};
            }
        }
    }
    GridFacts facts = check_grid(grid.data(), 2, 3, 4, symbols, subcarriers);
    REQUIRE(facts.n_bad == 0 && facts.pilot_power == 25.0 && facts.n_silent == 0);
    grid[0] = {nan, 1.0f};
    grid[6] = {1.0f, -inf};
    grid[23] = {inf, nan}; // a pilot
    facts = check_grid(grid.data(), 2, 3, 4, symbols, subcarriers);
    REQUIRE(facts.n_bad == 3 && !std::isfinite(facts.pilot_power));
    grid[23] = {1e25f, 0.0f}; // whose square single precision does not hold
    facts = check_grid(grid.data(), 2, 3, 4, symbols, subcarriers);
    REQUIRE(facts.n_bad == 2 && std::abs(facts.pilot_power / 1.25e49 - 1) < 1e-6);
    for (std::size_t i = 8; i < 12; i++) { // a pilot symbol of one antenna, and then of the other
        grid[i] = 0.0f;
    }
    REQUIRE(check_grid(grid.data(), 2, 3, 4, symbols, subcarriers).n_silent == 0);
    for (std::size_t i = 20; i < 24; i++) {
        grid[i] = 0.0f;
    }
    REQUIRE(check_grid(grid.data(), 2, 3, 4, symbols, subcarriers).n_silent == 1);
    return 0;
}
