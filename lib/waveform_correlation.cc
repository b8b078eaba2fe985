// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/waveform_correlation.h>

#include "fft_plan.h"
#include <gnuradio/wavesfm/aligned.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace wavesfm {

namespace {

constexpr double empty_window = 1e-9;

double power(const std::complex<float>& x) {
    return static_cast<double>(x.real()) * x.real() + static_cast<double>(x.imag()) * x.imag();
}

void transform(fftwf_plan plan, AlignedFloats& from, AlignedFloats& to) {
    fftwf_execute_dft(plan, reinterpret_cast<fftwf_complex*>(from.data()),
                      reinterpret_cast<fftwf_complex*>(to.data()));
}

// sums[m] = power of x[m .. m + k - 1], from partial sums of blocks of k without subtraction, which would
// carry the rounding of a strong sample into later windows.
void window_powers(const std::complex<float>* x, std::size_t n, std::size_t k, std::vector<double>& sums) {
    const std::size_t windows = n - k + 1;
    for (std::size_t start = 0; start < windows; start += k) {
        const std::size_t here = std::min(k, windows - start);
        double sum = 0.0;
        for (std::size_t i = k; i-- > 0;) {
            sum += power(x[start + i]);
            if (i < here) {
                sums[start + i] = sum;
            }
        }
        sum = 0.0;
        for (std::size_t i = 1; i < here; i++) {
            sum += power(x[start + k + i - 1]);
            sums[start + i] += sum;
        }
    }
}

// to = conj(a) b, element by element.
void conjugate_product(const AlignedFloats& a, const AlignedFloats& b, AlignedFloats& to) {
    for (std::size_t i = 0; i < to.size(); i += 2) {
        to[i] = a[i] * b[i] + a[i + 1] * b[i + 1];
        to[i + 1] = a[i] * b[i + 1] - a[i + 1] * b[i];
    }
}

} // namespace

void waveform_correlation(const std::complex<float>* samples, std::size_t antennas, std::size_t stride,
                          std::size_t n, const std::complex<float>* waveform, std::size_t k, float* out) {
    std::size_t size = 64;
    while (size < 4 * k) {
        size *= 2;
    }
    const fftwf_plan plan = forward_plan(size);
    AlignedFloats frame(2 * size), spectrum(2 * size), shape(2 * size);
    double unit = 0.0;
    for (std::size_t i = 0; i < k; i++) {
        frame[2 * i] = waveform[i].real();
        frame[2 * i + 1] = waveform[i].imag();
        unit += power(waveform[i]);
    }
    transform(plan, frame, shape);

    const std::size_t windows = n - k + 1, step = size - k + 1;
    std::vector<double> sums(windows);
    std::fill(out, out + windows, 0.0f);
    for (std::size_t antenna = 0; antenna < antennas; antenna++) {
        const auto* x = samples + antenna * stride;
        window_powers(x, n, k, sums);
        for (std::size_t start = 0; start < windows; start += step) {
            const std::size_t there = std::min(size, n - start), here = std::min(step, windows - start);
            double around = 0.0;
            for (std::size_t i = 0; i < there; i++) {
                around += power(x[start + i]);
            }
            if (around == 0.0) {
                continue;
            }
            const double scale = 1.0 / std::sqrt(around); // prevents overflow
            std::fill(frame.begin(), frame.end(), 0.0f);
            for (std::size_t i = 0; i < there; i++) {
                frame[2 * i] = static_cast<float>(x[start + i].real() * scale);
                frame[2 * i + 1] = static_cast<float>(x[start + i].imag() * scale);
            }
            transform(plan, frame, spectrum);
            conjugate_product(spectrum, shape, frame);
            transform(plan, frame,
                      spectrum); // the correlation, conjugated, times size: there is no inverse plan
            const double per = scale * scale * static_cast<double>(size) * static_cast<double>(size) * unit;
            for (std::size_t i = 0; i < here; i++) {
                const double sum = sums[start + i];
                if (sum > empty_window * around) {
                    const double re = spectrum[2 * i], im = spectrum[2 * i + 1];
                    out[start + i] += static_cast<float>(std::min(1.0, (re * re + im * im) / (per * sum)));
                }
            }
        }
    }
    const float mean = 1.0f / static_cast<float>(antennas);
    for (std::size_t i = 0; i < windows; i++) {
        out[i] *= mean;
    }
}

} // namespace wavesfm
