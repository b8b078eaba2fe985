// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/ofdm_demodulator.h>

#include "fft_plan.h"
#include <gnuradio/wavesfm/aligned.h>

#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace wavesfm {

namespace {

constexpr std::size_t fft_limit = 65536, symbols_limit = 1024, antennas_limit = 1024;

void require(const char* name, std::size_t found, std::size_t low, std::size_t high) {
    if (found < low || found > high) {
        throw std::invalid_argument(std::string(name) + ": found " + std::to_string(found) + ", expected " +
                                    std::to_string(low) + " to " + std::to_string(high));
    }
}

} // namespace

OFDMDemodulator::OFDMDemodulator(std::size_t fft_size, std::vector<std::size_t> prefix_samples,
                                 std::vector<std::size_t> bins, std::size_t antennas)
    : fft_size_(fft_size), antennas_(antennas), prefix_samples_(std::move(prefix_samples)),
      bins_(std::move(bins)) {
    require("fft_size", fft_size, 2, fft_limit);
    require("antennas", antennas, 1, antennas_limit);
    require("symbols", symbols(), 1, symbols_limit);
    require("subcarriers", subcarriers(), 1, fft_size);
    for (const auto prefix : prefix_samples_) {
        require("prefix_samples", prefix, 0, fft_size);
        slot_samples_ += prefix + fft_size;
    }
    for (const auto bin : bins_) {
        require("bins", bin, 0, fft_size - 1);
    }
    plan_ = forward_plan(fft_size);
}

void OFDMDemodulator::demodulate(const std::complex<float>* samples, std::size_t stride,
                                 std::complex<float>* grid) const {
    AlignedFloats frame(2 * fft_size_), spectrum(2 * fft_size_);
    const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(fft_size_)));
    for (std::size_t antenna = 0; antenna < antennas_; antenna++) {
        const auto* x = samples + antenna * stride;
        for (const auto prefix : prefix_samples_) {
            // copied, because the plan needs aligned arrays and the result must not depend on the alignment
            std::memcpy(frame.data(), x + prefix, fft_size_ * sizeof *x);
            x += prefix + fft_size_;
            fftwf_execute_dft(plan_, reinterpret_cast<fftwf_complex*>(frame.data()),
                              reinterpret_cast<fftwf_complex*>(spectrum.data()));
            for (const auto bin : bins_) {
                *grid++ = {scale * spectrum[2 * bin], scale * spectrum[2 * bin + 1]};
            }
        }
    }
}

} // namespace wavesfm
