// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/band_detector.h>

#include "fft_plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>
#include <string>

namespace wavesfm {

namespace {

void require(bool holds, const char* field, const char* expected) {
    if (!holds) {
        throw std::invalid_argument(std::string(field) + ": expected " + expected);
    }
}

const BandSettings& checked(const BandSettings& s) {
    const bool power_of_two = (s.fft_size & (s.fft_size - 1)) == 0;
    require(power_of_two && s.fft_size >= 128 && s.fft_size <= 65536, "fft_size",
            "a power of two, 128 to 65536");
    require(s.block_rows >= 8 && s.block_rows <= 4096, "block_rows", "8 to 4096");
    require(s.false_rate > 0 && s.false_rate < s.grow_rate, "false_rate",
            "more than 0 and less than grow_rate");
    require(s.grow_rate < 0.5, "grow_rate", "less than 0.5");
    require(s.opening > 0 && s.opening <= 1, "opening", "more than 0, at most 1");
    require(std::isfinite(s.floor_db), "floor_db", "a finite number");
    return s;
}

AlignedFloats hann(std::size_t n) { // unit mean power over n, each weight twice
    AlignedFloats twice(2 * n);
    const double scale = 1.0 / std::sqrt(0.375) / static_cast<double>(n);
    for (std::size_t i = 0; i < n; i++) {
        const double w = 0.5 - 0.5 * std::cos(2.0 * M_PI * static_cast<double>(i) / static_cast<double>(n));
        twice[2 * i] = twice[2 * i + 1] = static_cast<float>(w * scale);
    }
    return twice;
}

} // namespace

BandDetector::BandDetector(const BandSettings& settings)
    : settings_(checked(settings)), grow_z_(-normal_quantile(settings.grow_rate)),
      false_z_(-normal_quantile(settings.false_rate)), loops_(hot_loops()), cells_(band_loops()),
      plan_(measured_plan(settings.fft_size)), window_(hann(settings.fft_size)),
      frame_(2 * settings.fft_size), spectrum_(2 * settings.fft_size), power_(settings.fft_size, 0.0f),
      carry_(2 * settings.fft_size), powers_(settings.block_rows * settings.fft_size), mask_(powers_.size()),
      taken_(powers_.size()), codes_(settings.fft_size), padded_(settings.fft_size + 2 * box_margin),
      scratch_(settings.fft_size + 2 * box_margin), boxed_(settings.fft_size) {}

std::vector<BandBlock> BandDetector::push(const std::complex<float>* samples, std::size_t n) {
    const auto* in = reinterpret_cast<const float*>(samples);
    const std::size_t size = settings_.fft_size, hop = size / 2;
    std::vector<BandBlock> blocks;
    std::size_t at = 0; // where the next sample to look at lies in `in`
    while (carried_ + (n - at) >= size) {
        if (carried_ == 0) {
            frame(in + 2 * at);
            at += hop;
        } else {
            std::memcpy(carry_.data() + 2 * carried_, in + 2 * at, (size - carried_) * 2 * sizeof(float));
            at += size - carried_;
            frame(carry_.data());
            carried_ = size - hop;
            if (carried_ <= at) { // the rest of the frame's samples are in this chunk
                at -= carried_;
                carried_ = 0;
            } else {
                std::memmove(carry_.data(), carry_.data() + 2 * hop, carried_ * 2 * sizeof(float));
            }
        }
        if (n_rows_ == settings_.block_rows) {
            blocks.push_back(finish_block());
        }
    }
    if (n > at) {
        std::memcpy(carry_.data() + 2 * carried_, in + 2 * at, (n - at) * 2 * sizeof(float));
        carried_ += n - at;
    }
    return blocks;
}

std::optional<BandBlock> BandDetector::flush() {
    std::optional<BandBlock> block;
    if (n_rows_ > 0) {
        block = finish_block();
    }
    std::fill(power_.begin(), power_.end(), 0.0f);
    carried_ = frames_in_row_ = 0;
    rows_before_ = bad_ = 0;
    return block;
}

void BandDetector::frame(const float* samples) {
    const std::size_t size = settings_.fft_size;
    if (!loops_.window_frame(samples, window_.data(), frame_.data(), size)) {
        for (std::size_t i = 0; i < size; i++) {
            const float re = std::abs(samples[2 * i]), im = std::abs(samples[2 * i + 1]);
            if (!(re < sample_limit && im < sample_limit)) {
                frame_[2 * i] = frame_[2 * i + 1] = 0.0f;
                bad_ += i < size / 2; // of the frame's first half: each sample once
            }
        }
    }
    fftwf_execute_dft(plan_, reinterpret_cast<fftwf_complex*>(frame_.data()),
                      reinterpret_cast<fftwf_complex*>(spectrum_.data()));
    loops_.add_power(spectrum_.data(), power_.data(), size);
    if (++frames_in_row_ == 2) {
        finish_row();
    }
}

void BandDetector::finish_row() {
    const std::size_t size = settings_.fft_size, half = size / 2;
    float* to = row(n_rows_++);
    for (std::size_t i = 0; i < half; i++) {
        to[i] = 0.5f * power_[half + i];
        to[half + i] = 0.5f * power_[i];
    }
    std::fill(power_.begin(), power_.end(), 0.0f);
    frames_in_row_ = 0;
}

} // namespace wavesfm
