// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/slot_synchronisation.h>
#include <gnuradio/wavesfm/waveform_correlation.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>

namespace wavesfm {

namespace {

constexpr double pi = 3.14159265358979323846;
constexpr double search_false_alarm = 1e-12; // of each sample: once in a week of noise at 1.44 MS/s
constexpr double track_false_alarm = 1e-3;   // of each slot
constexpr std::size_t terms_limit = 256;
constexpr double earlier = 0.3;          // a path before the start counts from this share of the strongest on
constexpr double later = 0.1;            // the start moves later when all paths up to it are below this share
constexpr double part_of_usual = 0.5;    // a slot has its pilots from this share of the mean metric on
constexpr std::size_t stretches = 8;     // most successive searches whose metrics are averaged
constexpr double memory = 0.9;           // of the running means from slot to slot, about ten slots
constexpr double offset_memory = 0.99;   // an oscillator drifts slowly, and a slot has few prefixes
constexpr std::size_t offset_slots = 70; // before an offset counts as settled: half of the running mean
constexpr double offset_coherence = 0.02; // least one of a settled offset; at low SNR it is the SNR

// Samples of the pilot symbol: the inverse DFT of its pilots.
std::vector<std::complex<float>> waveform(const SlotLayout& layout, std::size_t row) {
    const std::size_t size = layout.fft_size, carriers = layout.pilot_carriers.size();
    const auto bins = layout.bins();
    std::vector<std::complex<double>> turns(size), sums(size);
    for (std::size_t i = 0; i < size; i++) {
        turns[i] = std::polar(1.0, 2.0 * pi * static_cast<double>(i) / static_cast<double>(size));
    }
    for (std::size_t k = 0; k < carriers; k++) {
        const std::complex<double> pilot = layout.pilots[row * carriers + k];
        const std::size_t bin = bins[layout.pilot_carriers[k]];
        for (std::size_t n = 0, at = 0; n < size; n++, at = (at + bin) % size) {
            sums[n] += pilot * turns[at];
        }
    }
    std::vector<std::complex<float>> samples(size);
    for (std::size_t n = 0; n < size; n++) {
        samples[n] = std::complex<float>(sums[n] / static_cast<double>(size));
    }
    return samples;
}

double median(std::vector<double> values) {
    const std::size_t middle = values.size() / 2;
    std::nth_element(values.begin(), values.begin() + middle, values.end());
    if (values.size() % 2) {
        return values[middle];
    }
    return (values[middle] + *std::max_element(values.begin(), values.begin() + middle)) / 2.0;
}

std::size_t largest(const std::vector<double>& values) {
    return std::max_element(values.begin(), values.end()) - values.begin();
}

} // namespace

double threshold_over_mean(std::size_t terms, double false_alarm) {
    terms = std::min(terms, terms_limit);
    double low = 0.0,
           high = static_cast<double>(terms) + 100.0 + 40.0 * std::sqrt(static_cast<double>(terms));
    std::vector<double> factorials(terms);
    double factorial = 0.0; // its logarithm
    for (std::size_t k = 0; k < terms; k++) {
        factorial += k ? std::log(static_cast<double>(k)) : 0.0;
        factorials[k] = factorial;
    }
    for (int i = 0; i < 60; i++) {
        const double middle = (low + high) / 2.0, log = std::log(middle);
        double tail = 0.0;
        for (std::size_t k = 0; k < terms; k++) {
            tail += std::exp(static_cast<double>(k) * log - middle - factorials[k]);
        }
        (tail > false_alarm ? low : high) = middle;
    }
    return high / static_cast<double>(terms);
}

std::size_t reach_samples(const SlotLayout& layout) {
    std::size_t prefix = layout.fft_size;
    for (const auto symbol : layout.pilot_symbols) {
        prefix = std::min(prefix, layout.prefix_samples[symbol]);
    }
    const auto& carriers = layout.pilot_carriers;
    const std::size_t step = carriers.size() > 1 ? carriers[1] - carriers[0] : layout.subcarriers();
    const std::size_t period = layout.fft_size / step; // of the comb's response
    return std::min(prefix, period ? (period - 1) / 2 : 0);
}

// ---- PilotSearch

PilotSearch::PilotSearch(const SlotLayout& layout)
    : antennas_(layout.antennas), fft_size_(layout.fft_size), reach_(reach_samples(layout)) {
    layout.check();
    const auto starts = layout.symbol_starts();
    for (std::size_t row = 0; row < layout.pilot_symbols.size(); row++) {
        waveforms_.push_back(waveform(layout, row));
        starts_.push_back(starts[layout.pilot_symbols[row]]);
    }
    terms_ = antennas_ * starts_.size();
    // noise in the band only, as behind a receiver's filter: fewer dimensions than samples
    const std::size_t carriers = layout.subcarriers();
    mean_of_noise_ = carriers > 1 ? 1.0 / static_cast<double>(carriers - 1) : 1.0;
    for (std::size_t n = 1; n <= stretches; n++) {
        lowest_.push_back(mean_of_noise_ * over_mean(n * terms_));
    }
    threshold_ = lowest_.front();
    span_samples_ = starts_.back() + fft_size_;
}

std::optional<std::size_t> PilotSearch::find(const std::complex<float>* samples, std::size_t stride,
                                             std::size_t n) {
    auto metric = measure(samples, stride, n);
    if (!recent_.empty() && recent_.back().size() != metric.size()) {
        recent_.clear();
    }
    recent_.push_back(std::move(metric));
    if (recent_.size() > stretches) {
        recent_.pop_front();
    }
    for (const std::size_t count : {recent_.size(), std::size_t{1}}) {
        std::vector<double> mean(recent_.back().size(), 0.0);
        for (std::size_t k = recent_.size() - count; k < recent_.size(); k++) {
            for (std::size_t i = 0; i < mean.size(); i++) {
                mean[i] += recent_[k][i];
            }
        }
        for (auto& value : mean) {
            value /= static_cast<double>(count);
        }
        const std::size_t peak = largest(mean);
        metric_ = mean[peak];
        threshold_ = lowest_[count - 1];
        if (metric_ >= threshold_) {
            threshold_ = scattered_threshold(mean, peak, count * terms_);
        }
        if (metric_ >= threshold_) {
            recent_.clear();
            return first_path(mean, peak);
        }
        if (recent_.size() == 1) {
            break;
        }
    }
    return std::nullopt;
}

std::vector<double> PilotSearch::measure(const std::complex<float>* samples, std::size_t stride,
                                         std::size_t n) const {
    const std::size_t starts = n - span_samples_ + 1;
    std::vector<double> metric(starts, 0.0);
    std::vector<float> share(starts);
    for (std::size_t row = 0; row < starts_.size(); row++) {
        waveform_correlation(samples + starts_[row], antennas_, stride, starts + fft_size_ - 1,
                             waveforms_[row].data(), fft_size_, share.data());
        for (std::size_t i = 0; i < starts; i++) {
            metric[i] += share[i];
        }
    }
    for (auto& value : metric) {
        value /= static_cast<double>(starts_.size());
    }
    return metric;
}

double PilotSearch::scattered_threshold(const std::vector<double>& metric, std::size_t peak,
                                        std::size_t terms) {
    double sum = 0.0, squares = 0.0;
    std::size_t count = 0;
    for (std::size_t i = 0; i < metric.size(); i++) {
        const std::size_t distance = i > peak ? i - peak : peak - i;
        // the start of the next slot is one slot away
        if (std::min(distance, metric.size() - distance) > fft_size_) {
            sum += metric[i];
            squares += metric[i] * metric[i];
            count++;
        }
    }
    const double mean = count ? sum / static_cast<double>(count) : 0.0;
    double variance = 0.0;
    for (std::size_t i = 0; i < metric.size() && count; i++) {
        const std::size_t distance = i > peak ? i - peak : peak - i;
        if (std::min(distance, metric.size() - distance) > fft_size_) {
            variance += (metric[i] - mean) * (metric[i] - mean) / static_cast<double>(count);
        }
    }
    std::size_t independent = terms;
    if (variance != 0.0) {
        independent = static_cast<std::size_t>(
            std::min(static_cast<double>(terms), std::max(1.0, std::floor(mean * mean / variance))));
    }
    return std::max(mean, mean_of_noise_) * over_mean(independent);
}

std::size_t PilotSearch::first_path(const std::vector<double>& metric, std::size_t peak) const {
    const double level = median(metric), least = earlier * (metric[peak] - level);
    std::size_t at = peak > reach_ ? peak - reach_ : 0;
    while (at < peak && metric[at] - level < least) {
        at++;
    }
    return at;
}

double PilotSearch::over_mean(std::size_t terms) {
    terms = std::min(terms, terms_limit);
    auto found = over_mean_.find(terms);
    if (found == over_mean_.end()) {
        found = over_mean_.emplace(terms, threshold_over_mean(terms, search_false_alarm)).first;
    }
    return found->second;
}

// ---- PilotTracker

PilotTracker::PilotTracker(const SlotLayout& layout) : layout_(layout), reach_(reach_samples(layout)) {
    const std::size_t delays = 2 * reach_ + 1, carriers = layout.pilot_carriers.size();
    for (const auto carrier : layout.pilot_carriers) {
        for (std::size_t d = 0; d < delays; d++) {
            const double delay = static_cast<double>(d) - static_cast<double>(reach_);
            const double turn = static_cast<double>(layout.frequencies[carrier]) * delay;
            const auto value = std::polar(1.0, 2.0 * pi * turn / static_cast<double>(layout.fft_size));
            real_.push_back(static_cast<float>(value.real()));
            imag_.push_back(static_cast<float>(value.imag()));
        }
    }
    const double over = threshold_over_mean(layout.antennas * layout.pilot_symbols.size(),
                                            track_false_alarm / static_cast<double>(delays));
    // with few pilots even a perfect channel would not reach it
    const double freedom = carriers > 2 ? static_cast<double>(carriers - 1) : 1.0;
    threshold_ = lowest_ = std::min(0.9, over / freedom);
}

bool PilotTracker::hit(const std::complex<float>* grid) {
    const std::size_t delays = 2 * reach_ + 1, carriers = layout_.pilot_carriers.size();
    const std::size_t rows = layout_.antennas * layout_.pilot_symbols.size();
    std::vector<double> profile(delays, 0.0);
    std::vector<float> sums(2 * delays);
    float *re = sums.data(), *im = re + delays;
    for (std::size_t antenna = 0; antenna < layout_.antennas; antenna++) {
        for (std::size_t p = 0; p < layout_.pilot_symbols.size(); p++) {
            const auto* row =
                grid + (antenna * layout_.symbols() + layout_.pilot_symbols[p]) * layout_.subcarriers();
            double power = 0.0;
            std::fill(sums.begin(), sums.end(), 0.0f);
            for (std::size_t k = 0; k < carriers; k++) {
                const auto x = row[layout_.pilot_carriers[k]] * std::conj(layout_.pilots[p * carriers + k]);
                power += std::norm(std::complex<double>(x));
                const float *real = real_.data() + k * delays, *imag = imag_.data() + k * delays;
                for (std::size_t d = 0; d < delays; d++) {
                    re[d] += x.real() * real[d] - x.imag() * imag[d];
                    im[d] += x.real() * imag[d] + x.imag() * real[d];
                }
            }
            if (power > 0.0) {
                const double all = power * static_cast<double>(carriers) * static_cast<double>(rows);
                for (std::size_t d = 0; d < delays; d++) {
                    profile[d] +=
                        (static_cast<double>(re[d]) * re[d] + static_cast<double>(im[d]) * im[d]) / all;
                }
            }
        }
    }
    metric_ = *std::max_element(profile.begin(), profile.end());
    if (metric_ < threshold_) {
        return false;
    }
    const double kept = profile_.empty() ? 0.0 : memory;
    profile_.resize(delays, 0.0);
    for (std::size_t d = 0; d < delays; d++) {
        profile_[d] = kept * profile_[d] + (1.0 - kept) * profile[d];
    }
    usual_ = kept * usual_ + (1.0 - kept) * metric_;
    threshold_ = std::max(lowest_, part_of_usual * usual_);
    return true;
}

int PilotTracker::step() {
    if (profile_.empty() || reach_ == 0) {
        return 0;
    }
    std::vector<double> sorted(profile_);
    const auto quarter = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 4);
    std::nth_element(sorted.begin(), quarter, sorted.end());
    const double floor = *quarter, strongest = *std::max_element(profile_.begin(), profile_.end()) - floor;
    bool is_early = false, is_empty = true;
    for (std::size_t d = 0; d <= reach_; d++) {
        is_early = is_early || (d < reach_ && profile_[d] - floor > earlier * strongest);
        is_empty = is_empty && profile_[d] - floor < later * strongest;
    }
    if (is_early) {
        std::rotate(profile_.begin(), profile_.end() - 1, profile_.end());
        return -1;
    }
    if (is_empty) {
        std::rotate(profile_.begin(), profile_.begin() + 1, profile_.end());
        return 1;
    }
    return 0;
}

// ---- CarrierOffset

CarrierOffset::CarrierOffset(const SlotLayout& layout)
    : antennas_(layout.antennas), fft_size_(layout.fft_size), spacing_hz_(layout.spacing_hz),
      prefix_samples_(layout.prefix_samples), symbol_starts_(layout.symbol_starts()) {}

void CarrierOffset::take(const std::complex<float>* samples, std::size_t stride) {
    double before = 0.0, after = 0.0, real = 0.0, imag = 0.0;
    for (std::size_t antenna = 0; antenna < antennas_; antenna++) {
        for (std::size_t symbol = 0; symbol < symbol_starts_.size(); symbol++) {
            const auto* x = samples + antenna * stride + symbol_starts_[symbol] - prefix_samples_[symbol];
            const auto* y = x + fft_size_;
            for (std::size_t i = 0; i < prefix_samples_[symbol]; i++) {
                const double a = x[i].real(), b = x[i].imag(), c = y[i].real(), d = y[i].imag();
                before += a * a + b * b;
                after += c * c + d * d;
                real += a * c + b * d;
                imag += a * d - b * c;
            }
        }
    }
    const double power = std::sqrt(before) * std::sqrt(after);
    if (power > 0.0) {
        mean_ = offset_memory * mean_ + (1.0 - offset_memory) * std::complex<double>(real, imag) / power;
        slots_++;
    }
}

void CarrierOffset::correct(std::complex<float>* samples, std::size_t stride, std::size_t n) {
    const auto offset = hz();
    if (!offset) {
        return;
    }
    const double per_sample = -2.0 * pi * *offset / (spacing_hz_ * static_cast<double>(fft_size_));
    turns_.resize(n);
    for (std::size_t i = 0; i < n; i++) {
        const double angle = per_sample * static_cast<double>(i);
        turns_[i] = {static_cast<float>(std::cos(angle)), static_cast<float>(std::sin(angle))};
    }
    for (std::size_t antenna = 0; antenna < antennas_; antenna++) {
        auto* x = samples + antenna * stride;
        for (std::size_t i = 0; i < n; i++) {
            const float a = x[i].real(), b = x[i].imag(), c = turns_[i].real(), d = turns_[i].imag();
            x[i] = {a * c - b * d, a * d + b * c};
        }
    }
}

void CarrierOffset::reset() {
    mean_ = 0.0;
    slots_ = 0;
}

std::optional<double> CarrierOffset::hz() const {
    if (mean_ == std::complex<double>(0.0)) {
        return std::nullopt;
    }
    return std::arg(mean_) / (2.0 * pi) * spacing_hz_;
}

bool CarrierOffset::settled() const {
    const double whole =
        1.0 - std::pow(offset_memory, static_cast<double>(slots_)); // the mean of a constant 1
    return slots_ >= offset_slots && std::abs(mean_) >= offset_coherence * whole;
}

} // namespace wavesfm
