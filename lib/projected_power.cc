// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/projected_power.h>

#include <algorithm>
#include <vector>

namespace wavesfm {

double projected_power(const std::complex<float>* rows, std::size_t n_rows, std::size_t k,
                       const std::complex<float>* modes, std::size_t n_modes) {
    // real and imaginary parts apart, so that the inner loop runs over neighbours
    std::vector<float> parts(2 * k * n_modes), sums(2 * n_modes);
    float *real = parts.data(), *imag = real + k * n_modes;
    for (std::size_t i = 0; i < k * n_modes; i++) {
        real[i] = modes[i].real();
        imag[i] = modes[i].imag();
    }
    float *sum_real = sums.data(), *sum_imag = sum_real + n_modes;
    double power = 0.0;
    for (std::size_t row = 0; row < n_rows; row++) {
        std::fill(sums.begin(), sums.end(), 0.0f);
        for (std::size_t i = 0; i < k; i++) {
            const float a = rows[row * k + i].real(), b = rows[row * k + i].imag();
            const float *x = real + i * n_modes, *y = imag + i * n_modes;
            for (std::size_t mode = 0; mode < n_modes; mode++) {
                sum_real[mode] += a * x[mode] - b * y[mode];
                sum_imag[mode] += a * y[mode] + b * x[mode];
            }
        }
        for (const float sum : sums) {
            power += static_cast<double>(sum) * sum;
        }
    }
    return power / static_cast<double>(n_rows * n_modes);
}

} // namespace wavesfm
