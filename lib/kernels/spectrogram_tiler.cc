// SPDX-License-Identifier: GPL-3.0-or-later
#include "spectrogram_tiler.h"

#include "fft_plan.h"
#include "order_statistics.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

namespace wavesfm {

namespace {

void require(bool holds, const char* field, const char* expected) {
    if (!holds) {
        throw std::invalid_argument(std::string(field) + ": expected " + expected);
    }
}

const TilerSettings& checked(const TilerSettings& s) {
    require(s.fft_size >= 2 && s.fft_size % 2 == 0 && s.fft_size <= (1u << 20), "fft_size",
            "even, 2 to 1048576");
    require(s.hop_samples >= 1 && s.hop_samples <= s.fft_size, "hop_samples", "1 to fft_size");
    require(s.frames_averaged >= 1, "frames_averaged", "at least 1");
    require(s.rows_per_tile >= 1, "rows_per_tile", "at least 1");
    require(s.min_rows >= 1 && s.min_rows <= s.rows_per_tile, "min_rows", "1 to rows_per_tile");
    require(s.height >= 1 && s.width >= 1, "height and width", "at least 1");
    require(s.reference == "median" || s.reference == "full_scale", "reference", "median or full_scale");
    require(std::isfinite(s.floor_db), "floor_db", "a finite number");
    require(std::isfinite(s.low_db) && std::isfinite(s.high_db) && s.low_db < s.high_db, "high_db",
            "more than low_db");
    require(std::isfinite(s.mean), "mean", "a finite number");
    require(std::isfinite(s.std) && s.std > 0, "std", "a positive number");
    return s;
}

// Periodic windows, a0 - a1 cos + a2 cos 2.
double window_at(const std::string& name, double phase) {
    if (name == "hann") {
        return 0.5 - 0.5 * std::cos(phase);
    }
    if (name == "hamming") {
        return 0.54 - 0.46 * std::cos(phase);
    }
    if (name == "blackman") {
        return 0.42 - 0.5 * std::cos(phase) + 0.08 * std::cos(2.0 * phase);
    }
    require(name == "rectangular", "window", "hann, hamming, blackman or rectangular");
    return 1.0;
}

AlignedFloats scaled_window(const std::string& name, std::size_t n) {
    std::vector<double> w(n);
    double power = 0.0;
    for (std::size_t i = 0; i < n; i++) {
        w[i] = window_at(name, 2.0 * M_PI * static_cast<double>(i) / static_cast<double>(n));
        power += w[i] * w[i];
    }
    const double scale = 1.0 / std::sqrt(power / static_cast<double>(n)) / static_cast<double>(n);
    AlignedFloats twice(2 * n);
    for (std::size_t i = 0; i < n; i++) {
        twice[2 * i] = twice[2 * i + 1] = static_cast<float>(w[i] * scale);
    }
    return twice;
}

} // namespace

SpectrogramTiler::SpectrogramTiler(const TilerSettings& settings, const HotLoops& loops)
    : settings_(checked(settings)), loops_(loops), plan_(forward_plan(settings.fft_size)),
      width_matrix_(settings.fft_size, settings.width),
      window_(scaled_window(settings.window, settings.fft_size)), frame_(2 * settings.fft_size),
      spectrum_(2 * settings.fft_size), power_(settings.fft_size),
      db_(settings.fft_size + width_matrix_.taps), // banded_dots reads on, with weight zero
      carry_(2 * settings.fft_size) {}

std::vector<TilerOutput> SpectrogramTiler::push(const std::complex<float>* samples, std::size_t n) {
    const auto* in = reinterpret_cast<const float*>(samples);
    const std::size_t size = settings_.fft_size, hop = settings_.hop_samples;
    const std::size_t frames_per_tile = settings_.frames_averaged * settings_.rows_per_tile;
    std::vector<TilerOutput> tiles;
    taken_ += n;
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
            if (carried_ <=
                at) { // the rest of the frame's samples are in this chunk: go on from there without copies
                at -= carried_;
                carried_ = 0;
            } else {
                std::memmove(carry_.data(), carry_.data() + 2 * hop, carried_ * 2 * sizeof(float));
            }
        }
        if (frames_ == frames_per_tile) {
            tiles.push_back(finish_tile(false));
        }
    }
    if (n > at) {
        std::memcpy(carry_.data() + 2 * carried_, in + 2 * at, (n - at) * 2 * sizeof(float));
        carried_ += n - at;
    }
    return tiles;
}

std::optional<TilerOutput> SpectrogramTiler::flush() {
    std::optional<TilerOutput> tile;
    if (frames_ >= settings_.min_rows * settings_.frames_averaged) {
        if (frames_in_row_ > 0) {
            finish_row();
        }
        tile = finish_tile(true);
    }
    start_tile();
    std::fill(power_.begin(), power_.end(), 0.0f);
    frames_in_row_ = carried_ = 0;
    taken_ = tile_start_ = 0;
    return tile;
}

void SpectrogramTiler::frame(const float* samples) {
    const std::size_t size = settings_.fft_size;
    bad_in_tail_ = 0;
    if (!loops_.window_frame(samples, window_.data(), frame_.data(), size)) {
        for (std::size_t i = 0; i < size; i++) {
            const float re = std::abs(samples[2 * i]), im = std::abs(samples[2 * i + 1]);
            if (!(re < sample_limit && im < sample_limit)) {
                frame_[2 * i] = frame_[2 * i + 1] = 0.0f;
                (i < settings_.hop_samples ? bad_in_hops_ : bad_in_tail_)++;
            }
        }
    }
    fftwf_execute_dft(plan_, reinterpret_cast<fftwf_complex*>(frame_.data()),
                      reinterpret_cast<fftwf_complex*>(spectrum_.data()));
    loops_.add_power(spectrum_.data(), power_.data(), size);
    frames_++;
    if (++frames_in_row_ == settings_.frames_averaged) {
        finish_row();
    }
}

void SpectrogramTiler::finish_row() {
    const std::size_t half = settings_.fft_size / 2, width = settings_.width;
    const float scale = 1.0f / static_cast<float>(frames_in_row_);
    const auto floor_db = static_cast<float>(settings_.floor_db);
    loops_.power_to_db(power_.data() + half, scale, floor_db, db_.data(), half);
    loops_.power_to_db(power_.data(), scale, floor_db, db_.data() + half, half);
    if (rows_.size() < (n_rows_ + 1) * width) {
        rows_.resize(std::min(std::max<std::size_t>(2 * n_rows_, 64), settings_.rows_per_tile) * width);
    }
    loops_.banded_dots(db_.data(), width_matrix_.first.data(), width_matrix_.weights.data(),
                       width_matrix_.taps, rows_.data() + n_rows_ * width, width);
    n_rows_++;
    frames_in_row_ = 0;
    std::fill(power_.begin(), power_.end(), 0.0f);
}

TilerOutput SpectrogramTiler::finish_tile(bool partial) {
    const std::size_t width = settings_.width, n = settings_.height * width;
    TilerOutput tile{std::vector<float>(n), tile_start_, 0, partial, 0.0f, 0.0f, bad_in_hops_ + bad_in_tail_};
    tile.n_samples = (frames_ - 1) * settings_.hop_samples + settings_.fft_size;
    const ResizeMatrix& matrix = height_matrix(n_rows_);
    for (std::size_t y = 0; y < settings_.height; y++) {
        loops_.weighted_rows(rows_.data() + matrix.first[y] * width, matrix.weights.data() + y * matrix.taps,
                             matrix.count[y], width, tile.data.data() + y * width);
    }
    const FloorAndPeak levels = floor_and_peak(tile.data.data(), n);
    tile.floor_db = levels.floor;
    tile.peak_db = levels.peak;
    // The median is the receiver's noise in most tiles; where it is silence (squelch, a file cut around
    // bursts), the reference rises until the peak fits the range.
    const float reference = settings_.reference == "median"
                                ? std::max(levels.floor, levels.peak - static_cast<float>(settings_.high_db))
                                : 0.0f;
    loops_.map_range(tile.data.data(), n, reference + static_cast<float>(settings_.low_db),
                     static_cast<float>(1.0 / (settings_.high_db - settings_.low_db)),
                     static_cast<float>(settings_.mean), static_cast<float>(1.0 / settings_.std));
    tile_start_ += frames_ * settings_.hop_samples;
    start_tile();
    return tile;
}

void SpectrogramTiler::start_tile() {
    frames_ = n_rows_ = 0;
    bad_in_hops_ = bad_in_tail_ = 0;
}

const ResizeMatrix& SpectrogramTiler::height_matrix(std::size_t n_rows) {
    return height_matrices_.try_emplace(n_rows, n_rows, settings_.height).first->second;
}

} // namespace wavesfm
