// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/zoom.h>

#include "fft_plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>

namespace wavesfm {

namespace {

constexpr double beta = 6.7555; // of a Kaiser window whose filters are 70 dB down
constexpr double transition =
    17.27; // times 1 / bins of the output rate, for a filter of a quarter of the transform

void require(bool holds, const char* field, const char* expected) {
    if (!holds) {
        throw std::invalid_argument(std::string(field) + ": expected " + expected);
    }
}

std::size_t checked(std::size_t size) {
    require((size & (size - 1)) == 0 && size >= 1024 && size <= (1u << 20), "fft_size",
            "a power of two, 1024 to 1048576");
    return size;
}

double bessel_i0(double x) {
    double term = 1.0, sum = 1.0;
    for (int k = 1; k < 60; k++) {
        term *= x / (2.0 * k) * (x / (2.0 * k));
        sum += term;
    }
    return sum;
}

// Kaiser window of size / 4 samples and one, its middle at index size / 8.
std::vector<double> window_of(std::size_t size) {
    const auto half = static_cast<std::int64_t>(size / 8);
    std::vector<double> window(2 * static_cast<std::size_t>(half) + 1);
    for (std::int64_t i = -half; i <= half; i++) {
        const double u = static_cast<double>(i) / static_cast<double>(half);
        window[static_cast<std::size_t>(i + half)] =
            bessel_i0(beta * std::sqrt(std::max(0.0, 1.0 - u * u))) / bessel_i0(beta);
    }
    return window;
}

// The frequency response of the low pass for `bins`, real, in the order of the inverse transform's input and
// scaled for it.
AlignedFloats response(std::size_t size, std::size_t bins, const std::vector<double>& window) {
    const auto half = static_cast<std::int64_t>(size / 8), whole = static_cast<std::int64_t>(size);
    const double n = static_cast<double>(size), share = static_cast<double>(bins) / n;
    const double cutoff = share * (0.5 - transition / static_cast<double>(bins) / 2.0); // of the input rate
    AlignedFloats taps(2 * size, 0.0f), out(2 * size);
    for (std::int64_t i = -half; i <= half; i++) {
        const double t = static_cast<double>(i);
        const double sinc = i == 0 ? 2.0 * cutoff : std::sin(2.0 * M_PI * cutoff * t) / (M_PI * t);
        taps[2 * static_cast<std::size_t>((i + whole) % whole)] =
            static_cast<float>(sinc * window[static_cast<std::size_t>(i + half)]);
    }
    fftwf_execute_dft(forward_plan(size), reinterpret_cast<fftwf_complex*>(taps.data()),
                      reinterpret_cast<fftwf_complex*>(out.data()));
    AlignedFloats real(bins);
    for (std::size_t i = 0; i < bins; i++) {
        real[i] = out[2 * (i < bins / 2 ? i : size - bins + i)] / static_cast<float>(size);
    }
    return real;
}

constexpr std::size_t most_kept = std::size_t{1} << 22; // floats of weights: 16 MiB

} // namespace

// Views of one width come again and again, and a response takes longer than many a view: kept for the
// process.
Zoom::Weights Zoom::weights(std::size_t fft_size, std::size_t bins) {
    static std::mutex mutex;
    static std::map<std::pair<std::size_t, std::size_t>, Weights> kept;
    static std::map<std::size_t, std::vector<double>> windows;
    static std::size_t total = 0;
    std::lock_guard<std::mutex> lock(mutex);
    Weights& found = kept[{fft_size, bins}];
    if (found) {
        return found;
    }
    std::vector<double>& window = windows[fft_size];
    if (window.empty()) {
        window = window_of(fft_size);
    }
    const auto made = std::make_shared<const AlignedFloats>(response(fft_size, bins, window));
    found = made;
    total += bins;
    if (total > most_kept) {
        kept.clear();
        total = 0;
    }
    return made;
}

Zoom::Zoom(std::size_t fft_size, const std::vector<ZoomChannel>& channels)
    : fft_size_(checked(fft_size)), overlap_(fft_size / 4), loops_(band_loops()),
      plan_(measured_plan(fft_size)), span_(2 * fft_size), spectrum_(2 * fft_size), part_(2 * fft_size),
      made_(2 * fft_size) {
    const auto half = static_cast<std::int64_t>(fft_size / 2);
    for (const ZoomChannel& channel : channels) {
        require(channel.bins % 8 == 0 && channel.bins >= 128 && channel.bins <= fft_size, "bins",
                "a multiple of 8, 128 to fft_size");
        require(channel.centre_bin > -half && channel.centre_bin < half, "centre_bin", "a bin of the band");
        channels_.push_back({channel, backward_plan(channel.bins), weights(fft_size, channel.bins)});
    }
    restart();
}

void Zoom::restart() {
    start_ = -static_cast<std::int64_t>(overlap_ / 2);
    filled_ = overlap_ / 2;
    taken_ = 0;
    std::fill(span_.begin(), span_.begin() + static_cast<std::ptrdiff_t>(2 * filled_), 0.0f);
}

void Zoom::push(const std::complex<float>* samples, std::size_t n,
                std::vector<std::vector<std::complex<float>>>& out) {
    taken_ += n;
    const std::size_t hops = (filled_ + n) / (fft_size_ - overlap_) + 1;
    for (std::size_t i = 0; i < channels_.size(); i++) {
        const std::size_t bins = channels_[i].of.bins;
        out[i].reserve(out[i].size() + hops * (bins - bins / 4));
    }
    while (n > 0) {
        const std::size_t take = std::min(n, fft_size_ - filled_);
        std::memcpy(span_.data() + 2 * filled_, samples, take * sizeof(*samples));
        filled_ += take;
        samples += take;
        n -= take;
        if (filled_ == fft_size_) {
            transform(out);
        }
    }
}

void Zoom::finish(std::vector<std::vector<std::complex<float>>>& out) {
    const std::uint64_t taken = taken_;
    const auto made_to = [&] { return start_ + static_cast<std::int64_t>(overlap_ / 2); };
    while (made_to() < static_cast<std::int64_t>(taken)) {
        std::fill(span_.begin() + static_cast<std::ptrdiff_t>(2 * filled_), span_.end(), 0.0f);
        transform(out);
    }
    for (std::size_t i = 0; i < channels_.size(); i++) { // what is made of zeros alone goes
        const std::uint64_t bins = channels_[i].of.bins, size = fft_size_;
        const std::uint64_t wanted = (taken * bins + size - 1) / size,
                            made = static_cast<std::uint64_t>(made_to()) * bins / size;
        out[i].resize(out[i].size() - static_cast<std::size_t>(made > wanted ? made - wanted : 0));
    }
    restart();
}

void Zoom::transform(std::vector<std::vector<std::complex<float>>>& out) {
    fftwf_execute_dft(plan_, reinterpret_cast<fftwf_complex*>(span_.data()),
                      reinterpret_cast<fftwf_complex*>(spectrum_.data()));
    for (std::size_t i = 0; i < channels_.size(); i++) {
        cut(channels_[i], out[i]);
    }
    std::memmove(span_.data(), span_.data() + 2 * (fft_size_ - overlap_), 2 * overlap_ * sizeof(float));
    filled_ = overlap_;
    start_ += static_cast<std::int64_t>(fft_size_ - overlap_);
}

void Zoom::cut(const Channel& channel, std::vector<std::complex<float>>& out) {
    const auto size = static_cast<std::int64_t>(fft_size_), centre = channel.of.centre_bin;
    const std::size_t bins = channel.of.bins;
    // The span's start turns the mixer to this phase.
    const std::int64_t turns = ((centre * start_) % size + size) % size;
    const double angle = -2.0 * M_PI * static_cast<double>(turns) / static_cast<double>(size);
    const auto c = static_cast<float>(std::cos(angle)), s = static_cast<float>(std::sin(angle));
    // Above the centre first, then below it; either may wrap around the band's end.
    for (std::size_t i = 0; i < bins;) {
        const std::int64_t bin =
            centre + static_cast<std::int64_t>(i) - (i < bins / 2 ? 0 : static_cast<std::int64_t>(bins));
        const auto from = static_cast<std::size_t>((bin + size) % size);
        const std::size_t count = std::min((i < bins / 2 ? bins / 2 : bins) - i, fft_size_ - from);
        loops_.weigh(spectrum_.data() + 2 * from, channel.weights->data() + i, c, s, part_.data() + 2 * i,
                     count);
        i += count;
    }
    fftwf_execute_dft(channel.plan, reinterpret_cast<fftwf_complex*>(part_.data()),
                      reinterpret_cast<fftwf_complex*>(made_.data()));
    const auto* made = reinterpret_cast<const std::complex<float>*>(made_.data());
    out.insert(out.end(), made + bins / 8, made + bins / 8 + (bins - bins / 4));
}

} // namespace wavesfm
