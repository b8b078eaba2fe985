// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/grid_check.h>

#include <cmath>
#include <limits>

namespace wavesfm {

GridFacts check_grid(const std::complex<float>* grid, std::size_t antennas, std::size_t symbols,
                     std::size_t subcarriers, const std::vector<std::size_t>& pilot_symbols,
                     const std::vector<std::size_t>& pilot_subcarriers) {
    const std::size_t size = antennas * symbols * subcarriers;
    const auto* parts = reinterpret_cast<const float*>(grid);
    int good = 1; // in a form that compilers vectorise; most grids are good
    for (std::size_t i = 0; i < 2 * size; i++) {
        good &= static_cast<int>(std::abs(parts[i]) <= std::numeric_limits<float>::max()); // false for NaN
    }
    std::size_t n_bad = 0;
    for (std::size_t i = 0; i < size && !good; i++) {
        n_bad += !(std::isfinite(grid[i].real()) && std::isfinite(grid[i].imag()));
    }
    double total = 0.0;
    std::size_t n_silent = 0;
    for (const std::size_t symbol : pilot_symbols) {
        double power = 0.0;
        for (std::size_t antenna = 0; antenna < antennas; antenna++) {
            const auto* row = grid + (antenna * symbols + symbol) * subcarriers;
            for (const std::size_t subcarrier : pilot_subcarriers) {
                power += std::norm(std::complex<double>(row[subcarrier]));
            }
        }
        total += power;
        n_silent += power == 0.0;
    }
    const std::size_t pilots = antennas * pilot_symbols.size() * pilot_subcarriers.size();
    return {n_bad, total / static_cast<double>(pilots), n_silent};
}

} // namespace wavesfm
