// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/slot.h>

#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>

namespace wavesfm {

namespace {

void require(bool holds, const char* field, const char* expected) {
    if (!holds) {
        throw std::invalid_argument(std::string("slot layout: ") + field + ": expected " + expected);
    }
}

bool below(const std::vector<std::size_t>& indices, std::size_t limit) {
    for (const auto index : indices) {
        if (index >= limit) {
            return false;
        }
    }
    return !indices.empty();
}

} // namespace

std::size_t SlotLayout::slot_samples() const {
    return std::accumulate(prefix_samples.begin(), prefix_samples.end(), symbols() * fft_size);
}

std::vector<std::size_t> SlotLayout::symbol_starts() const {
    std::vector<std::size_t> starts;
    std::size_t at = 0;
    for (const auto prefix : prefix_samples) {
        starts.push_back(at + prefix);
        at += prefix + fft_size;
    }
    return starts;
}

std::vector<std::size_t> SlotLayout::bins() const {
    const auto size = static_cast<std::int64_t>(fft_size);
    std::vector<std::size_t> bins;
    for (const auto frequency : frequencies) {
        bins.push_back(static_cast<std::size_t>((frequency % size + size) % size));
    }
    return bins;
}

void SlotLayout::check() const {
    require(antennas >= 1, "antennas", "1 or more");
    require(fft_size >= 2, "fft_size", "2 or more");
    require(symbols() >= 1, "prefix_samples", "one for each symbol");
    require(subcarriers() >= 1 && subcarriers() <= fft_size, "frequencies", "1 to fft_size");
    require(spacing_hz > 0.0 && std::isfinite(spacing_hz), "spacing_hz", "a positive number");
    require(below(pilot_symbols, symbols()), "pilot_symbols", "indices of symbols");
    require(below(pilot_carriers, subcarriers()), "pilot_carriers", "indices of subcarriers");
    require(pilots.size() == pilot_symbols.size() * pilot_carriers.size(), "pilots", "one for each pilot");
    for (const auto prefix : prefix_samples) {
        require(prefix <= fft_size, "prefix_samples", "0 to fft_size");
    }
}

GridAllocator::~GridAllocator() = default;

Grid HeapGrids::allocate(std::size_t n) {
    std::shared_ptr<std::complex<float>> memory(new std::complex<float>[n],
                                                std::default_delete<std::complex<float>[]>());
    return {memory.get(), memory};
}

} // namespace wavesfm
