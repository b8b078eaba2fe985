// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/slot_stream.h>

#include <gnuradio/wavesfm/hot_loops.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <stdexcept>

namespace wavesfm {

namespace {

constexpr std::size_t misses_allowed = 8; // successive slots without pilots before sync is lost
constexpr double offset_limit = 0.01;     // of the subcarrier spacing, from which on an offset is a fault
constexpr std::uint64_t unmarked_allowed = 20; // slots of samples without any mark before that is a fault

template <typename... Values>
std::string formatted(const char* format, Values... values) {
    char text[256];
    std::snprintf(text, sizeof text, format, values...);
    return text;
}

bool is_finite(const std::complex<float>& x) {
    return std::abs(x.real()) < sample_limit && std::abs(x.imag()) < sample_limit; // false for NaN
}

// Whether all of n samples are finite, in a form that compilers vectorise.
bool all_finite(const std::complex<float>* samples, std::size_t n) {
    const auto* x = reinterpret_cast<const float*>(samples);
    int good = 1;
    for (std::size_t i = 0; i < 2 * n; i++) {
        good &=
            static_cast<int>(x[i] < sample_limit) & static_cast<int>(x[i] > -sample_limit); // false for NaN
    }
    return good;
}

std::size_t count_bad(const std::complex<float>* x, std::size_t n) {
    return all_finite(x, n) ? 0 : n - static_cast<std::size_t>(std::count_if(x, x + n, is_finite));
}

} // namespace

SlotStream::SlotStream(const SlotLayout& layout, const SlotStreamOptions& options)
    : layout_((layout.check(), layout)), n_(layout.slot_samples()), correct_offset_(options.correct_offset),
      rate_hz_(options.rate_hz == 0.0 ? layout.rate_hz() : options.rate_hz),
      demodulator_(layout.fft_size, layout.prefix_samples, layout.bins(), layout.antennas),
      allocator_(std::make_shared<HeapGrids>()), offset_(layout),
      capacity_(4 * n_), // a search keeps less than 2
      first_(options.start_sample), next_(options.start_sample), covered_to_(options.start_sample),
      segment_start_(options.start_sample), segment_time_(options.time) {
    if (options.by_pilots) {
        search_ = std::make_unique<PilotSearch>(layout);
        if (search_->threshold() >= 1.0) {
            throw std::invalid_argument("slots: too few pilots to be found");
        }
    }
    data_.resize(layout_.antennas * capacity_);
}

void SlotStream::set_allocator(std::shared_ptr<GridAllocator> allocator) {
    allocator_ = std::move(allocator);
}

void SlotStream::push(const std::vector<const std::complex<float>*>& streams, std::size_t n,
                      const std::vector<std::uint64_t>& marks, std::optional<double> arrived_s,
                      std::vector<Slot>& slots) {
    if (streams.size() != layout_.antennas) {
        throw std::invalid_argument("slots: one stream for each antenna expected");
    }
    arrived_s_ = arrived_s;
    for (const auto sample : marks) {
        mark(sample);
    }
    for (std::size_t done = 0; done < n;) {
        const std::size_t count = std::min(n_, n - done); // bounds the buffer
        counts_.samples_in += count;
        append(streams, done, count);
        done += count;
        complete(slots);
    }
}

void SlotStream::mark(std::uint64_t sample) {
    was_marked_ = true;
    if (sample < end()) {
        counts_.marks_late++;
        return;
    }
    const auto place = std::lower_bound(marks_.begin(), marks_.end(), sample);
    if (place == marks_.end() || *place != sample) {
        marks_.insert(place, sample);
    }
}

void SlotStream::retune(std::optional<double> rate_hz, std::optional<StreamTime> time,
                        std::vector<Slot>& slots) {
    finish(slots);
    if (time) {
        segment_time_ = time;
    }
    if (rate_hz) {
        rate_hz_ = *rate_hz == 0.0 ? layout_.rate_hz() : *rate_hz;
    }
}

void SlotStream::finish(std::vector<Slot>& slots) {
    if (search_ && !tracker_ && next_ < end() && end() - next_ >= n_) { // too few samples for a whole search
        search(end() - next_ - n_ + search_->span_samples());
        if (tracker_) {
            complete(slots);
        }
    }
    const std::uint64_t position = end();
    while (!marks_.empty() && marks_.front() < position) {
        marks_.pop_front();
        counts_.slots_cut++;
    }
    // a difference of one sample is a step of the tracker
    counts_.slots_cut += tracker_ && next_ + 1 < position;
    segment_time_ = time_of(position);
    segment_start_ = position;
    tracker_.reset();
    next_ = position;
    misses_ = failed_in_row_ = 0;
    if (search_) {
        search_->restart();
    }
    skip_to(position);
}

SlotStreamStatus SlotStream::status() const {
    SlotStreamStatus status = counts_;
    status.samples_pending = end() - covered_to_;
    status.searching = search_ && !tracker_;
    status.sync_metric = metric_;
    status.sync_threshold = threshold();
    status.cfo_hz = offset_.hz();
    status.fault = fault();
    return status;
}

std::optional<double> SlotStream::threshold() const {
    if (tracker_) {
        return tracker_->threshold();
    }
    return search_ ? std::optional<double>(search_->threshold()) : std::nullopt;
}

std::string SlotStream::fault() const {
    if (!silence_.empty()) {
        return "slots: pilots: found all zero in " + silence_ + ", expected a signal";
    }
    if (search_ && !tracker_ && failed_in_row_) {
        return formatted(
            "slots: sync: found no start in %zu slots of samples (metric %.3f), expected more than %.3f",
            failed_in_row_, metric_.value_or(0.0), threshold().value_or(0.0));
    }
    if (misses_) {
        return formatted("slots: pilots: found %zu slots in a row without, expected them in each", misses_);
    }
    const std::uint64_t unmarked = counts_.samples_in / n_;
    if (!search_ && !was_marked_ && unmarked >= unmarked_allowed) {
        return formatted(
            "slots: sync: found no mark of a slot's start in %llu slots of samples, expected some",
            static_cast<unsigned long long>(unmarked));
    }
    const double hz = offset_.hz().value_or(0.0), limit = offset_limit * layout_.spacing_hz;
    if (!correct_offset_ && offset_.settled() && std::abs(hz) > limit) {
        return formatted("slots: carrier offset: found %.0f Hz, expected at most %.0f Hz, or its correction",
                         hz, limit);
    }
    return "";
}

void SlotStream::append(const std::vector<const std::complex<float>*>& streams, std::size_t first,
                        std::size_t n) {
    if (filled_ + n > capacity_) {
        const std::size_t kept = filled_ - begin_;
        for (std::size_t antenna = 0; antenna < layout_.antennas; antenna++) {
            auto* row = data_.data() + antenna * capacity_;
            std::memmove(row, row + begin_, kept * sizeof *row);
        }
        first_ += begin_;
        begin_ = 0;
        filled_ = kept;
    }
    for (std::size_t antenna = 0; antenna < layout_.antennas; antenna++) {
        std::memcpy(data_.data() + antenna * capacity_ + filled_, streams[antenna] + first,
                    n * sizeof(std::complex<float>));
    }
    filled_ += n;
}

void SlotStream::drop_to(std::uint64_t sample) {
    const std::uint64_t ahead =
        sample > first_ ? sample - first_ : 0; // the sample may lie ahead of the buffer
    begin_ =
        static_cast<std::size_t>(std::min<std::uint64_t>(std::max<std::uint64_t>(ahead, begin_), filled_));
}

void SlotStream::complete(std::vector<Slot>& slots) {
    if (!search_) {
        marked_slots(slots);
        return;
    }
    for (;;) {
        const std::uint64_t needed = tracker_ ? n_ : n_ - 1 + search_->span_samples();
        if (next_ + needed > end()) {
            return;
        }
        tracker_ ? tracked_slot(slots) : search(needed);
    }
}

void SlotStream::marked_slots(std::vector<Slot>& slots) {
    while (!marks_.empty() && marks_.front() < end()) {
        const std::uint64_t start = marks_.front();
        if (marks_.size() > 1 && marks_[1] < start + n_) {
            counts_.slots_cut++;
        } else if (start + n_ > end()) {
            break;
        } else {
            const std::complex<float>* samples = nullptr;
            std::size_t stride = 0;
            const std::size_t n_bad = take_finite(start, n_, samples, stride);
            offset_.take(samples, stride);
            emit(start, grid_of(samples, stride), n_bad, std::nullopt, slots);
        }
        marks_.pop_front();
    }
    skip_to(marks_.empty() ? end() : std::min(end(), marks_.front()));
}

void SlotStream::tracked_slot(std::vector<Slot>& slots) {
    const std::uint64_t start = next_;
    const std::complex<float>* samples = nullptr;
    std::size_t stride = 0;
    const std::size_t n_bad = take_finite(start, n_, samples, stride);
    if (correct_offset_ && !offset_.hz()) {
        offset_.take(samples, stride);
    }
    const Grid grid = grid_of(samples, stride);
    const bool is_hit = tracker_->hit(grid.data);
    metric_ = tracker_->metric();
    misses_ = is_hit ? 0 : misses_ + 1;
    const bool is_emitted = emit(start, grid, n_bad, metric_, slots);
    next_ += n_;
    if (is_hit) {
        offset_.take(samples, stride);
        next_ += static_cast<std::uint64_t>(static_cast<std::int64_t>(tracker_->step()));
    } else {
        counts_.slots_missed += is_emitted;
    }
    if (misses_ >= misses_allowed) {
        tracker_.reset();
        misses_ = 0;
        offset_.reset(); // the next transmitter may be another one
        counts_.lost_sync++;
    }
    drop_to(next_);
}

void SlotStream::search(std::uint64_t n) {
    const std::complex<float>* samples = nullptr;
    std::size_t stride = 0;
    take_finite(next_, n, samples, stride);
    const auto start = search_->find(samples, stride, n);
    metric_ = search_->metric();
    if (start) {
        next_ += *start;
        tracker_ = std::make_unique<PilotTracker>(layout_);
        failed_in_row_ = 0;
        counts_.syncs++;
    } else {
        next_ += n - search_->span_samples() + 1;
        counts_.searches_failed++;
        failed_in_row_++;
    }
    skip_to(next_);
}

// Points to samples of each antenna without those that are no finite numbers; returns how many these were.
std::size_t SlotStream::take_finite(std::uint64_t start, std::size_t n, const std::complex<float>*& samples,
                                    std::size_t& stride) {
    samples = at(start);
    stride = capacity_;
    std::size_t n_bad = 0;
    for (std::size_t antenna = 0; antenna < layout_.antennas; antenna++) {
        n_bad += count_bad(samples + antenna * stride, n);
    }
    if (n_bad) {
        scratch_.resize(layout_.antennas * n);
        for (std::size_t antenna = 0; antenna < layout_.antennas; antenna++) {
            for (std::size_t i = 0; i < n; i++) {
                const auto& x = samples[antenna * stride + i];
                scratch_[antenna * n + i] = is_finite(x) ? x : std::complex<float>(0.0f);
            }
        }
        samples = scratch_.data();
        stride = n;
    }
    return n_bad;
}

Grid SlotStream::grid_of(const std::complex<float>* samples, std::size_t stride) {
    Grid grid = allocator_->allocate(layout_.grid_size());
    if (correct_offset_ && offset_.hz()) {
        corrected_.resize(layout_.antennas * n_);
        for (std::size_t antenna = 0; antenna < layout_.antennas; antenna++) {
            std::copy_n(samples + antenna * stride, n_, corrected_.data() + antenna * n_);
        }
        offset_.correct(corrected_.data(), n_, n_);
        samples = corrected_.data();
        stride = n_;
    }
    demodulator_.demodulate(samples, stride, grid.data);
    return grid;
}

bool SlotStream::emit(std::uint64_t start, Grid grid, std::size_t n_bad, std::optional<double> metric,
                      std::vector<Slot>& slots) {
    counts_.n_nonfinite += n_bad;
    bool is_dropped = false;
    silence_ = silence_of(grid.data, is_dropped);
    if (is_dropped) {
        counts_.slots_zero_pilots++;
        return false;
    }
    counts_.slots_silent_antenna += !silence_.empty();
    counts_.slots++;
    skip_to(start);
    covered_to_ = start + n_;
    slots.push_back({std::move(grid), start, n_, rate_hz_, time_of(start), n_bad, metric, arrived_s_});
    return true;
}

// The first pilot symbol that is zero on all antennas, or the antennas with a pilot symbol of zeros, or "".
std::string SlotStream::silence_of(const std::complex<float>* grid, bool& is_dropped) const {
    std::vector<bool> is_silent(layout_.antennas, false);
    for (const auto symbol : layout_.pilot_symbols) {
        bool is_heard = false;
        for (std::size_t antenna = 0; antenna < layout_.antennas; antenna++) {
            const auto* row = grid + (antenna * layout_.symbols() + symbol) * layout_.subcarriers();
            const bool any =
                std::any_of(layout_.pilot_carriers.begin(), layout_.pilot_carriers.end(),
                            [row](std::size_t k) { return row[k] != std::complex<float>(0.0f); });
            is_heard = is_heard || any;
            is_silent[antenna] = is_silent[antenna] || !any;
        }
        if (!is_heard) {
            is_dropped = true;
            return "symbol " + std::to_string(symbol);
        }
    }
    std::string text;
    for (std::size_t antenna = 0; antenna < layout_.antennas; antenna++) {
        if (is_silent[antenna]) {
            text += (text.empty() ? "antenna " : ", ") + std::to_string(antenna);
        }
    }
    return text;
}

void SlotStream::skip_to(std::uint64_t sample) {
    if (sample > covered_to_) { // the samples before it belong to no slot
        counts_.samples_skipped += sample - covered_to_;
        covered_to_ = sample;
    }
    drop_to(sample);
}

std::optional<StreamTime> SlotStream::time_of(std::uint64_t sample) const {
    if (!segment_time_ || sample == segment_start_) {
        return segment_time_;
    }
    const double seconds = static_cast<double>(static_cast<std::int64_t>(sample - segment_start_)) / rate_hz_;
    return segment_time_->advanced(seconds);
}

} // namespace wavesfm
