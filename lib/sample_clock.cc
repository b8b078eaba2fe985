// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/sample_clock.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace wavesfm {

namespace {

constexpr double tolerance_default_s = 5e-6; // or one sample where that is longer
constexpr double jitters = 6.0;              // a jump is more than this many times the jitter measured so far
constexpr double jitter_weight = 0.1;        // of one report in the running mean square of the deviations
constexpr double most_widened = 10.0;        // times the tolerance to which jitter may widen it
constexpr double drift_before = 20e-6;       // standard deviation before any report, as a part of the rate
constexpr double drift_walk = 1e-9;          // by which the drift may wander in a second

} // namespace

StreamTime StreamTime::advanced(double seconds) const {
    const double whole = std::floor(frac_s + seconds);
    return {full_s + static_cast<std::int64_t>(whole), frac_s + seconds - whole};
}

double StreamTime::seconds_after(const StreamTime& earlier) const {
    return static_cast<double>(full_s - earlier.full_s) + (frac_s - earlier.frac_s);
}

SampleClock::SampleClock(double rate_hz, std::optional<StreamTime> time, std::int64_t sample,
                         std::optional<double> tolerance_s)
    : rate_hz_(rate_hz), tolerance_s_(tolerance_s) {
    if (tolerance_s && !(std::isfinite(*tolerance_s) && *tolerance_s >= 0.0)) {
        throw std::invalid_argument("tolerance_s: expected seconds, 0 or more, or none");
    }
    set_time(time, sample);
}

void SampleClock::set_time(std::optional<StreamTime> time, std::int64_t sample) {
    time_ = time;
    sample_ = sample;
    jitter_power_ = offset_power_ = base_s() / 2 * (base_s() / 2);
    cross_power_ = 0.0;
    drift_power_ = drift_before * drift_before;
}

void SampleClock::set_rate(double rate_hz, std::int64_t sample) {
    const auto time = time_of(sample);
    rate_hz_ = rate_hz;
    drift_ = 0.0;
    set_time(time, sample);
}

std::optional<StreamTime> SampleClock::time_of(std::int64_t sample) const {
    if (!time_ || sample == sample_) {
        return time_;
    }
    if (rate_hz_ == 0.0) {
        return std::nullopt;
    }
    return time_->advanced(static_cast<double>(sample - sample_) / rate_hz_ * (1 + drift_));
}

std::optional<double> SampleClock::jump_s(const StreamTime& time, std::int64_t sample) {
    const auto expected = time_of(sample);
    if (!expected) {
        return std::nullopt;
    }
    const double ahead_s = time.seconds_after(*expected);
    if (std::abs(ahead_s) > limit_s()) {
        return ahead_s;
    }
    correct(*expected, ahead_s, sample);
    return 0.0;
}

double SampleClock::limit_s() const {
    const double widened_s = std::min(jitters * std::sqrt(jitter_power_), most_widened * base_s());
    return std::max(base_s(), widened_s) * (1 + 1e-9);
}

double SampleClock::base_s() const {
    return tolerance_s_ ? *tolerance_s_ : std::max(tolerance_default_s, rate_hz_ != 0.0 ? 1 / rate_hz_ : 0.0);
}

//! One step of the filter.
void SampleClock::correct(const StreamTime& expected, double ahead_s, std::int64_t sample) {
    const double passed_s = rate_hz_ != 0.0 ? static_cast<double>(sample - sample_) / rate_hz_ : 0.0;
    const double drift_power = drift_power_ + drift_walk * drift_walk * std::abs(passed_s);
    const double offset_power =
        offset_power_ + 2 * passed_s * cross_power_ + passed_s * passed_s * drift_power;
    const double cross_power = cross_power_ + passed_s * drift_power;
    const double deviation_power = offset_power + jitter_power_ + 1e-24;
    const double offset_gain = offset_power / deviation_power, drift_gain = cross_power / deviation_power;
    time_ = expected.advanced(offset_gain * ahead_s);
    sample_ = sample;
    drift_ += drift_gain * ahead_s;
    offset_power_ = (1 - offset_gain) * offset_power;
    cross_power_ = (1 - offset_gain) * cross_power;
    drift_power_ = drift_power - drift_gain * cross_power;
    jitter_power_ += jitter_weight * (ahead_s * ahead_s - jitter_power_);
}

} // namespace wavesfm
