// SPDX-License-Identifier: GPL-3.0-or-later
// The grid is what a DFT in double arithmetic gives, wherever the slot lies in memory, and bad sizes are
// refused.
#include "qa.h"
#include <gnuradio/wavesfm/ofdm_demodulator.h>

#include <cmath>
#include <random>
#include <stdexcept>
#include <string>

using namespace wavesfm;

namespace {

using Complex = std::complex<float>;

void check(std::size_t fft_size, const std::vector<std::size_t>& prefixes,
           const std::vector<std::size_t>& bins, std::size_t antennas) {
    const OFDMDemodulator demodulator(fft_size, prefixes, bins, antennas);
    const std::size_t n = demodulator.slot_samples();
    std::mt19937 generator(1);
    std::normal_distribution<float> normal;
    std::vector<Complex> samples(antennas * n + 1);
    for (auto& x : samples) {
        x = {normal(generator), normal(generator)};
    }
    std::vector<Complex> grid(antennas * prefixes.size() * bins.size()), moved(grid.size());
    demodulator.demodulate(samples.data() + 1, grid.data());
    std::size_t g = 0;
    for (std::size_t antenna = 0; antenna < antennas; antenna++) {
        std::size_t start = 1 + antenna * n;
        for (const auto prefix : prefixes) {
            start += prefix;
            for (const auto bin : bins) {
                std::complex<double> sum = 0.0;
                for (std::size_t i = 0; i < fft_size; i++) {
                    const double turns =
                        static_cast<double>(bin * i % fft_size) / static_cast<double>(fft_size);
                    sum += std::complex<double>(samples[start + i]) * std::polar(1.0, -2.0 * M_PI * turns);
                }
                sum /= std::sqrt(static_cast<double>(fft_size));
                REQUIRE(std::abs(std::complex<double>(grid[g++]) - sum) <= 5e-6);
            }
            start += fft_size;
        }
    }
    REQUIRE(g == grid.size());
    std::vector<Complex> aside(samples.begin() + 1, samples.end());
    demodulator.demodulate(aside.data(), moved.data());
    REQUIRE(moved == grid);
}

void refused(const char* name, std::size_t fft_size, std::vector<std::size_t> prefixes,
             std::vector<std::size_t> bins, std::size_t antennas) {
    try {
        OFDMDemodulator(fft_size, std::move(prefixes), std::move(bins), antennas);
    } catch (const std::invalid_argument& error) {
        REQUIRE(std::string(error.what()).find(name) == 0);
        return;
    }
    REQUIRE(false);
}

} // namespace

int main() {
    check(48, {6, 6, 6}, {24, 47, 0, 23}, 2);
    check(64, {10, 0, 4}, {63, 1}, 1);
    check(7, {7}, {0, 1, 2, 3, 4, 5, 6}, 3);
    refused("fft_size", 1, {0}, {0}, 1);
    refused("fft_size", 65537, {0}, {0}, 1);
    refused("antennas", 8, {0}, {0}, 0);
    refused("symbols", 8, {}, {0}, 1);
    refused("subcarriers", 8, {0}, {}, 1);
    refused("prefix_samples", 8, {9}, {0}, 1);
    refused("bins", 8, {0}, {8}, 1);
    return 0;
}
