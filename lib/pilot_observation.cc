// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/pilot_observation.h>

#include "split_matrix.h"

#include <gnuradio/wavesfm/grid_check.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace wavesfm {

namespace {

constexpr double low_snr = 1e-4, high_snr = 1e8;       // limits of the measured SNR, -40 and 80 dB
constexpr double low_power = 1e-30, high_power = 1e30; // mean power of the pilots that single precision holds

double power(const std::complex<float>& x) {
    return static_cast<double>(x.real()) * x.real() + static_cast<double>(x.imag()) * x.imag();
}

double mean_power(const std::complex<float>* values, std::size_t n) {
    double sum = 0.0;
    for (std::size_t i = 0; i < n; i++) {
        sum += power(values[i]);
    }
    return sum / static_cast<double>(n);
}

std::string short_number(double value) {
    char text[32];
    std::snprintf(text, sizeof text, "%.3g", value);
    return text;
}

} // namespace

double Observation::snr_db(std::size_t slot) const {
    return 10.0 * std::log10(signal_power[slot] / noise_power[slot]);
}

PilotObserver::PilotObserver(const SlotLayout& layout, const std::complex<float>* noise_modes,
                             std::size_t n_modes)
    : layout_((layout.check(), layout)),
      modes_(std::make_unique<SplitMatrix>(noise_modes, layout.pilot_carriers.size(), n_modes)),
      n_modes_(n_modes) {}

PilotObserver::~PilotObserver() = default;

std::optional<Refusal> PilotObserver::refuse(const std::complex<float>* grid) const {
    const auto facts = check_grid(grid, layout_.antennas, layout_.symbols(), layout_.subcarriers(),
                                  layout_.pilot_symbols, layout_.pilot_carriers);
    if (facts.n_bad) {
        const std::string count = std::to_string(facts.n_bad), size = std::to_string(layout_.grid_size());
        return Refusal{"grid", "NaN or infinity in " + count + " of " + size + " elements", "finite numbers"};
    }
    const std::size_t n_symbols = layout_.pilot_symbols.size();
    if (0 < facts.n_silent && facts.n_silent < n_symbols) {
        const std::string silent = std::to_string(facts.n_silent), all = std::to_string(n_symbols);
        return Refusal{"pilots received", "all zero in " + silent + " of " + all + " symbols",
                       "a signal in each"};
    }
    if (facts.pilot_power >= low_power && facts.pilot_power <= high_power) {
        return std::nullopt;
    }
    const std::string found = facts.n_silent == n_symbols
                                  ? "all " + std::to_string(layout_.pilot_size()) + " zero"
                                  : "a mean power of " + short_number(facts.pilot_power);
    return Refusal{"pilots received", found, "a mean power of 1e-30 to 1e+30"};
}

Observation PilotObserver::observe(const std::vector<const std::complex<float>*>& grids) const {
    const std::size_t carriers = layout_.pilot_carriers.size(), n_symbols = layout_.pilot_symbols.size();
    const std::size_t rows = layout_.antennas * n_symbols;
    Observation seen;
    seen.ls.resize(grids.size() * rows * carriers);
    SplitMatrix split(rows, carriers), projected(rows, n_modes_);
    auto* out = seen.ls.data();
    for (const auto* grid : grids) {
        const auto* ls = out;
        for (std::size_t row = 0; row < rows; row++) {
            const std::size_t antenna = row / n_symbols, p = row % n_symbols;
            const auto* y =
                grid + (antenna * layout_.symbols() + layout_.pilot_symbols[p]) * layout_.subcarriers();
            const auto* sent = layout_.pilots.data() + p * carriers;
            for (std::size_t k = 0; k < carriers; k++, out++) {
                const float a = y[layout_.pilot_carriers[k]].real(), b = y[layout_.pilot_carriers[k]].imag();
                const float c = sent[k].real(), d = -sent[k].imag(); // pilots have unit power
                *out = {a * c - b * d, a * d + b * c};
                split.set(row, k, *out);
            }
        }
        multiply(split, *modes_, projected);
        double noise = 0.0;
        for (std::size_t i = 0; i < projected.real.size(); i++) { // beyond n_modes_ are zeros
            noise += static_cast<double>(projected.real[i]) * projected.real[i] +
                     static_cast<double>(projected.imag[i]) * projected.imag[i];
        }
        const double total = mean_power(ls, rows * carriers);
        noise = std::max(noise / static_cast<double>(rows * n_modes_), total / high_snr);
        seen.noise_power.push_back(noise);
        seen.signal_power.push_back(std::max(total - noise, noise * low_snr));
    }
    return seen;
}

double PilotObserver::residual(const std::complex<float>* channel, const Observation& seen,
                               std::size_t slot) const {
    const std::size_t carriers = layout_.pilot_carriers.size();
    const auto* ls = seen.ls.data() + slot * layout_.pilot_size();
    double sum = 0.0;
    for (std::size_t antenna = 0; antenna < layout_.antennas; antenna++) {
        for (const auto symbol : layout_.pilot_symbols) {
            const auto* h = channel + (antenna * layout_.symbols() + symbol) * layout_.subcarriers();
            for (std::size_t k = 0; k < carriers; k++, ls++) {
                sum += power(*ls - h[layout_.pilot_carriers[k]]);
            }
        }
    }
    return sum / static_cast<double>(layout_.pilot_size()) / seen.noise_power[slot];
}

float least_squares_tile(const std::complex<float>* ls, std::size_t antennas, std::size_t pilot_symbols,
                         std::size_t pilot_carriers, float* tile) {
    const auto root =
        static_cast<float>(std::sqrt(mean_power(ls, antennas * pilot_symbols * pilot_carriers)));
    const float scale = 1.0f / root;
    for (std::size_t antenna = 0; antenna < antennas; antenna++) {
        for (std::size_t p = 0; p < pilot_symbols; p++) {
            float* real = tile + (2 * p * antennas + antenna) * pilot_carriers;
            float* imag = real + antennas * pilot_carriers;
            for (std::size_t k = 0; k < pilot_carriers; k++, ls++) {
                real[k] = scale * ls->real();
                imag[k] = scale * ls->imag();
            }
        }
    }
    return root;
}

} // namespace wavesfm
