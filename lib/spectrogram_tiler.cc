// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/spectrogram_tiler.h>

#include "fft_plan.h"
#include "order_statistics.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
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

// Whether a sample was not received: exactly zero, or not finite.
bool is_missing(const float* sample) {
    const float re = std::abs(sample[0]), im = std::abs(sample[1]);
    return (re == 0.0f && im == 0.0f) || !(re < sample_limit && im < sample_limit);
}

constexpr std::size_t gap_part = 16;  // of a frame: a run of missing samples so long makes it a gap
constexpr std::size_t short_part = 4; // of a frame: shorter runs within it may be those of a rounded signal
constexpr std::size_t long_gap_part = 4;   // of a full tile's frames: a gap so long ends the tile
constexpr std::size_t rounded_frames = 64; // frames that look like gaps, after one that shows rounding
constexpr std::size_t most_island = 4;     // samples between two runs of zeros
constexpr std::size_t rounded_part =
    4; // of the samples that can be judged: so many zeros are a rounded signal's

} // namespace

SpectrogramTiler::SpectrogramTiler(const TilerSettings& settings, const HotLoops& loops)
    : settings_(checked(settings)), loops_(loops), plan_(forward_plan(settings.fft_size)),
      width_matrix_(settings.fft_size, settings.width),
      window_(scaled_window(settings.window, settings.fft_size)), frame_(2 * settings.fft_size),
      spectrum_(2 * settings.fft_size), power_(settings.fft_size),
      db_(settings.fft_size + width_matrix_.taps), // banded_dots reads on, with weight zero
      carry_(2 * settings.fft_size) {
    if (settings.remove_dc) {
        direct_current_ = make_direct_current();
    }
}

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
        } else if (frames_ > 0 && gap_frames_ >= std::max<std::size_t>(frames_per_tile / long_gap_part, 1)) {
            const std::uint64_t from = std::max(tile_start_, tiled_end_);
            const std::uint64_t received = last_end_ > from ? last_end_ - from - tile_gap_ : 0;
            if (auto tile = end_early()) {
                tiles.push_back(std::move(*tile));
            } else {
                counts_.discarded += received;
            }
        }
    }
    if (n > at) {
        std::memcpy(carry_.data() + 2 * carried_, in + 2 * at, (n - at) * 2 * sizeof(float));
        carried_ += n - at;
    }
    return tiles;
}

std::optional<TilerOutput> SpectrogramTiler::flush() {
    std::optional<TilerOutput> tile = end_early();
    carried_ = 0;
    taken_ = tile_start_ = position_ = covered_ = last_end_ = tiled_end_ = 0;
    gap_frames_ = 0;
    rounded_ = 0;
    return tile;
}

// The partial tile of what there is if it has min_rows, and the start of another either way.
std::optional<TilerOutput> SpectrogramTiler::end_early() {
    std::optional<TilerOutput> tile;
    counts_.silent_cut += open_gap_;
    open_gap_ = open_gap_bad_ = 0;
    if (frames_ >= settings_.min_rows * settings_.frames_averaged) {
        if (frames_in_row_ > 0) {
            finish_row();
        }
        tile = finish_tile(true);
    } else {
        counts_.silent_cut += tile_gap_;
        start_tile();
    }
    std::fill(power_.begin(), power_.end(), 0.0f);
    frames_in_row_ = 0;
    return tile;
}

bool SpectrogramTiler::is_gap(const float* samples) {
    const std::size_t size = settings_.fft_size, run = std::max<std::size_t>(size / gap_part, 1),
                      short_run = size / short_part;
    bool suspect = false; // a run of that length has one of these samples
    for (std::size_t i = run - 1; i < size; i += run) {
        suspect = suspect || is_missing(samples + 2 * i);
    }
    if (!suspect) {
        return false;
    }
    std::size_t longest = 0, length = 0, before = 0, island = 0, islands = 0, scattered = 0, judged = 0;
    for (std::size_t i = 0; i <= size; i++) {
        if (i < size && is_missing(samples + 2 * i)) {
            // a few samples between zeros: the last bit of a rounded signal
            islands += length == 0 && island > 0 && island <= most_island && before >= 2 * most_island;
            island = length == 0 ? 0 : island;
            length++;
            continue;
        }
        judged += i < size;
        if (length > 0) {
            longest = std::max(longest, length);
            // a run at the frame's edge may be the end of a longer one
            const bool inside = length < short_run && length < i && i < size;
            const bool zero = samples[2 * i - 2] == 0.0f && samples[2 * i - 1] == 0.0f;
            judged += inside ? length : 0;
            scattered += inside && zero ? length : 0;
            before = zero ? length : 0;
            length = 0;
        }
        island++;
    }
    if (islands >= 2 || (judged > size / short_part && scattered * rounded_part >= judged)) {
        rounded_ = rounded_frames;
    } else if (islands == 0 && judged > size / short_part) {
        rounded_ -= rounded_ > 0;
    }
    return longest >= run && rounded_ == 0;
}

void SpectrogramTiler::skip_frame(std::uint64_t bad) {
    const std::uint64_t next = position_ + settings_.hop_samples;
    const std::uint64_t silent = next > covered_ ? next - covered_ : 0;
    counts_.silent += silent;
    covered_ += silent;
    gap_frames_++;
    if (frames_ > 0) {
        open_gap_ += silent;
        open_gap_bad_ += bad;
    } else {
        counts_.silent_cut += silent;
    }
}

void SpectrogramTiler::frame(const float* samples) {
    const std::size_t size = settings_.fft_size;
    std::uint64_t bad_in_hop = 0, bad_in_tail = 0;
    const bool finite = loops_.window_frame(samples, window_.data(), frame_.data(), size);
    if (!finite) {
        for (std::size_t i = 0; i < size; i++) {
            const float re = std::abs(samples[2 * i]), im = std::abs(samples[2 * i + 1]);
            if (!(re < sample_limit && im < sample_limit)) {
                frame_[2 * i] = frame_[2 * i + 1] = 0.0f;
                (i < settings_.hop_samples ? bad_in_hop : bad_in_tail)++;
            }
        }
    }
    counts_.nonfinite += bad_in_hop;
    if (is_gap(samples)) {
        skip_frame(bad_in_hop);
        position_ += settings_.hop_samples;
        return;
    }
    tile_start_ = frames_ > 0 ? tile_start_ : position_;
    tile_gap_ += open_gap_;
    bad_in_hops_ += open_gap_bad_ + bad_in_hop;
    bad_in_tail_ = bad_in_tail;
    open_gap_ = open_gap_bad_ = 0;
    gap_frames_ = 0;
    fftwf_execute_dft(plan_, reinterpret_cast<fftwf_complex*>(frame_.data()),
                      reinterpret_cast<fftwf_complex*>(spectrum_.data()));
    loops_.add_power(spectrum_.data(), power_.data(), size);
    if (direct_current_) {
        keep_direct_current(samples, finite);
    }
    covered_ = last_end_ = position_ + size;
    position_ += settings_.hop_samples;
    frames_++;
    if (++frames_in_row_ == settings_.frames_averaged) {
        finish_row();
    }
}

void SpectrogramTiler::finish_row() {
    const std::size_t half = settings_.fft_size / 2, width = settings_.width;
    const float scale = 1.0f / static_cast<float>(frames_in_row_);
    auto floor_db = static_cast<float>(settings_.floor_db);
    if (settings_.reference == "median") {
        const float mean = loops_.sum_power(power_.data(), 2 * half) / static_cast<float>(2 * half) * scale;
        const double mean_db = 10.0 * std::log10(std::max(mean, std::numeric_limits<float>::min()));
        floor_db = std::min(floor_db, static_cast<float>(mean_db - (settings_.high_db - settings_.low_db)));
    }
    loops_.power_to_db(power_.data() + half, scale, floor_db, db_.data(), half);
    loops_.power_to_db(power_.data(), scale, floor_db, db_.data() + half, half);
    if (rows_.size() < (n_rows_ + 1) * width) {
        rows_.resize(std::min(std::max<std::size_t>(2 * n_rows_, 64), settings_.rows_per_tile) * width);
    }
    loops_.banded_dots(db_.data(), width_matrix_.first.data(), width_matrix_.weights.data(),
                       width_matrix_.taps, rows_.data() + n_rows_ * width, width);
    if (direct_current_) {
        keep_row(floor_db);
    }
    n_rows_++;
    frames_in_row_ = 0;
    std::fill(power_.begin(), power_.end(), 0.0f);
}

TilerOutput SpectrogramTiler::finish_tile(bool partial) {
    const std::size_t width = settings_.width, n = settings_.height * width;
    TilerOutput tile{std::vector<float>(n),       tile_start_, 0, partial, 0.0f, 0.0f,
                     bad_in_hops_ + bad_in_tail_, tile_gap_};
    tile.n_samples = last_end_ - tile_start_;
    tiled_end_ = last_end_;
    if (direct_current_) {
        remove_direct_current();
    }
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
    start_tile();
    return tile;
}

void SpectrogramTiler::start_tile() {
    frames_ = n_rows_ = 0;
    bad_in_hops_ = bad_in_tail_ = 0;
    tile_gap_ = 0;
    if (direct_current_) {
        auto& dc = *direct_current_;
        dc.spectra.clear();
        dc.rows_db.clear();
        dc.frames.clear();
        dc.floor_db.clear();
        dc.sum[0] = dc.sum[1] = dc.tail[0] = dc.tail[1] = 0.0;
        dc.count = dc.tail_count = 0;
    }
}

SpectrogramTiler::DirectCurrent SpectrogramTiler::make_direct_current() const {
    constexpr double rounding = 1e-6; // of the window's largest bin
    constexpr std::size_t furthest = 3;
    const std::size_t size = settings_.fft_size, half = size / 2, taps = width_matrix_.taps;
    DirectCurrent dc;
    const auto window_bin = [&](std::ptrdiff_t k) {
        std::complex<double> sum = 0.0;
        for (std::size_t i = 0; i < size; i++) {
            const double phase =
                -2.0 * M_PI * static_cast<double>(k) * static_cast<double>(i) / static_cast<double>(size);
            sum += static_cast<double>(window_[2 * i]) * std::polar(1.0, phase);
        }
        return sum;
    };
    const double largest = std::abs(window_bin(0));
    dc.reach = 0;
    for (std::size_t k = 1; k <= std::min(furthest, half - 1); k++) {
        dc.reach = std::abs(window_bin(static_cast<std::ptrdiff_t>(k))) > rounding * largest ? k : dc.reach;
    }
    const auto reach = static_cast<std::ptrdiff_t>(dc.reach);
    for (std::ptrdiff_t k = -reach; k <= reach; k++) {
        dc.window_bins.push_back(window_bin(k));
    }
    const auto touches = [&](std::size_t column) {
        const std::size_t first = width_matrix_.first[column];
        return first <= half + dc.reach && first + taps > half - dc.reach;
    };
    dc.first_column = 0;
    while (!touches(dc.first_column)) {
        dc.first_column++;
    }
    dc.first_bin = std::min<std::size_t>(width_matrix_.first[dc.first_column], half - dc.reach);
    for (std::size_t c = dc.first_column; c < settings_.width && touches(c); c++) {
        dc.first.push_back(width_matrix_.first[c] - static_cast<std::uint32_t>(dc.first_bin));
    }
    dc.columns = dc.first.size();
    dc.bins_kept = std::max<std::size_t>(dc.first.back() + taps, half + dc.reach + 1 - dc.first_bin);
    return dc;
}

void SpectrogramTiler::keep_direct_current(const float* samples, bool finite) {
    auto& dc = *direct_current_;
    const std::size_t size = settings_.fft_size, hop = settings_.hop_samples;
    dc.tail[0] = dc.tail[1] = 0.0;
    dc.count += hop;
    dc.tail_count = size - hop;
    if (finite) {
        loops_.add_samples(samples, hop, dc.sum);
        loops_.add_samples(samples + 2 * hop, size - hop, dc.tail);
    } else {
        for (std::size_t i = 0; i < size; i++) {
            if (std::abs(samples[2 * i]) < sample_limit && std::abs(samples[2 * i + 1]) < sample_limit) {
                double* sum = i < hop ? dc.sum : dc.tail;
                sum[0] += samples[2 * i];
                sum[1] += samples[2 * i + 1];
            } else {
                (i < hop ? dc.count : dc.tail_count)--;
            }
        }
    }
    const auto* bins = reinterpret_cast<const std::complex<float>*>(spectrum_.data());
    dc.spectra.insert(dc.spectra.end(), bins + size - dc.reach, bins + size); // negative frequencies
    dc.spectra.insert(dc.spectra.end(), bins, bins + dc.reach + 1);
}

void SpectrogramTiler::keep_row(float floor_db) {
    auto& dc = *direct_current_;
    const float* from = db_.data() + dc.first_bin;
    dc.rows_db.insert(dc.rows_db.end(), from, from + dc.bins_kept);
    dc.frames.push_back(static_cast<std::uint32_t>(frames_in_row_));
    dc.floor_db.push_back(floor_db);
}

void SpectrogramTiler::remove_direct_current() {
    auto& dc = *direct_current_;
    const std::size_t n_bins = 2 * dc.reach + 1, taps = width_matrix_.taps;
    const double count = static_cast<double>(dc.count + dc.tail_count);
    const std::complex<double> mean =
        count > 0.0 ? std::complex<double>((dc.sum[0] + dc.tail[0]) / count, (dc.sum[1] + dc.tail[1]) / count)
                    : 0.0;
    std::vector<std::complex<float>> line(n_bins);
    for (std::size_t k = 0; k < n_bins; k++) {
        line[k] = std::complex<float>(mean * dc.window_bins[k]);
    }
    const std::complex<float>* spectrum = dc.spectra.data();
    std::vector<float> power(n_bins);
    for (std::size_t row = 0; row < n_rows_; row++) {
        std::fill(power.begin(), power.end(), 0.0f);
        for (std::uint32_t f = 0; f < dc.frames[row]; f++, spectrum += n_bins) {
            for (std::size_t k = 0; k < n_bins; k++) {
                power[k] += std::norm(spectrum[k] - line[k]);
            }
        }
        float* db = dc.rows_db.data() + row * dc.bins_kept;
        loops_.power_to_db(power.data(), 1.0f / static_cast<float>(dc.frames[row]), dc.floor_db[row],
                           db + settings_.fft_size / 2 - dc.reach - dc.first_bin, n_bins);
        loops_.banded_dots(db, dc.first.data(), width_matrix_.weights.data() + dc.first_column * taps, taps,
                           rows_.data() + row * settings_.width + dc.first_column, dc.columns);
    }
}

const ResizeMatrix& SpectrogramTiler::height_matrix(std::size_t n_rows) {
    return height_matrices_.try_emplace(n_rows, n_rows, settings_.height).first->second;
}

} // namespace wavesfm
