// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/zoom.h>

#include "fft_plan.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>

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

// The frequency response of the low pass for `bins`, real, at all bins of the transform from 0 on; scaled for
// the inverse. The part for negative frequencies lies at its end.
std::vector<float> response(std::size_t size, std::size_t bins) {
    const auto half = static_cast<std::int64_t>(size / 8);
    const double n = static_cast<double>(size), share = static_cast<double>(bins) / n;
    const double cutoff = share * (0.5 - transition / static_cast<double>(bins) / 2.0); // of the input rate
    AlignedFloats taps(2 * size, 0.0f), out(2 * size);
    for (std::int64_t i = -half; i <= half; i++) {
        const double t = static_cast<double>(i), u = t / static_cast<double>(half);
        const double sinc = i == 0 ? 2.0 * cutoff : std::sin(2.0 * M_PI * cutoff * t) / (M_PI * t);
        const double w = bessel_i0(beta * std::sqrt(std::max(0.0, 1.0 - u * u))) / bessel_i0(beta);
        taps[2 * static_cast<std::size_t>((i + static_cast<std::int64_t>(size)) %
                                          static_cast<std::int64_t>(size))] = static_cast<float>(sinc * w);
    }
    fftwf_execute_dft(forward_plan(size), reinterpret_cast<fftwf_complex*>(taps.data()),
                      reinterpret_cast<fftwf_complex*>(out.data()));
    std::vector<float> real(size);
    for (std::size_t i = 0; i < size; i++) {
        real[i] = out[2 * i] / static_cast<float>(size);
    }
    return real;
}

} // namespace

Zoom::Zoom(std::size_t fft_size, const std::vector<ZoomChannel>& channels)
    : fft_size_(checked(fft_size)), overlap_(fft_size / 4), plan_(forward_plan(fft_size)),
      span_(2 * fft_size), spectrum_(2 * fft_size), part_(2 * fft_size), made_(2 * fft_size) {
    const auto half = static_cast<std::int64_t>(fft_size / 2);
    std::map<std::size_t, std::vector<float>> responses;
    for (const ZoomChannel& channel : channels) {
        require(channel.bins % 8 == 0 && channel.bins >= 128 && channel.bins <= fft_size, "bins",
                "a multiple of 8, 128 to fft_size");
        require(channel.centre_bin > -half && channel.centre_bin < half, "centre_bin", "a bin of the band");
        auto found = responses.find(channel.bins);
        if (found == responses.end()) {
            found = responses.emplace(channel.bins, response(fft_size, channel.bins)).first;
        }
        AlignedFloats weights(channel.bins);
        for (std::size_t i = 0; i < channel.bins; i++) {
            weights[i] = found->second[i < channel.bins / 2 ? i : fft_size - channel.bins + i];
        }
        channels_.push_back({channel, forward_plan(channel.bins), std::move(weights)});
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
    const std::int64_t from = made_to();
    while (made_to() < static_cast<std::int64_t>(taken)) {
        std::fill(span_.begin() + static_cast<std::ptrdiff_t>(2 * filled_), span_.end(), 0.0f);
        transform(out);
    }
    for (std::size_t i = 0; i < channels_.size(); i++) { // what is made of zeros alone goes
        const std::uint64_t bins = channels_[i].of.bins, size = fft_size_;
        const std::uint64_t wanted = (taken * bins + size - 1) / size,
                            made = static_cast<std::uint64_t>(made_to()) * bins / size;
        (void)from;
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
    // The span's start turns the mixer to this phase; the forward transform gives the inverse's output
    // backwards.
    const std::int64_t turns = ((centre * start_) % size + size) % size;
    const double angle = -2.0 * M_PI * static_cast<double>(turns) / static_cast<double>(size);
    const auto c = static_cast<float>(std::cos(angle)), s = static_cast<float>(std::sin(angle));
    std::size_t from = static_cast<std::size_t>((centre + size) % size);
    for (std::size_t i = 0; i < bins; i++) {
        if (i == bins / 2) {
            from = static_cast<std::size_t>((centre - static_cast<std::int64_t>(bins / 2) + size) % size);
        }
        const float w = channel.weights[i], re = spectrum_[2 * from] * w, im = spectrum_[2 * from + 1] * w;
        part_[2 * i] = re * c - im * s;
        part_[2 * i + 1] = re * s + im * c;
        from = from + 1 == fft_size_ ? 0 : from + 1;
    }
    fftwf_execute_dft(channel.plan, reinterpret_cast<fftwf_complex*>(part_.data()),
                      reinterpret_cast<fftwf_complex*>(made_.data()));
    const std::size_t first = bins / 8, count = bins - bins / 4;
    const std::size_t at = out.size();
    out.resize(at + count);
    for (std::size_t i = 0; i < count; i++) {
        const std::size_t k = bins - (first + i);
        out[at + i] = {made_[2 * k], made_[2 * k + 1]};
    }
}

} // namespace wavesfm
