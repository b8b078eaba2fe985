// SPDX-License-Identifier: GPL-3.0-or-later
// What is known of the rows of Gaussian noise.
#include <gnuradio/wavesfm/band_detector.h>

#include <algorithm>
#include <cmath>

namespace wavesfm {

double noise_freedom(std::size_t rows, std::size_t bins) {
    constexpr double across[] = {1.0, 4.0 / 9.0,
                                 1.0 / 36.0}; // power correlation of Hann bins 0, 1 and 2 apart
    constexpr double overlapped = 1.0 / 36.0; // and of frames half a frame apart
    const double frames = 2.0 * static_cast<double>(rows), n = static_cast<double>(bins);
    double sum = 1.0;
    for (std::size_t d = 1; d < std::min<std::size_t>(3, bins); d++) {
        sum += 2.0 * across[d] * (1.0 - static_cast<double>(d) / n);
    }
    return 2.0 * frames * n / (sum * (1.0 + 2.0 * overlapped * (frames - 1.0) / frames));
}

double noise_quantile(double freedom, double z) { // Wilson and Hilferty, 1931
    const double v = 2.0 / (9.0 * freedom);
    return std::pow(1.0 - v + z * std::sqrt(v), 3.0);
}

double normal_quantile(double probability) {
    double low = -40.0, high = 40.0;
    for (int i = 0; i < 100; i++) {
        const double z = (low + high) / 2.0;
        // by the smaller tail, so that neither end loses its digits
        const bool below = z < 0.0 ? std::erfc(-z / std::sqrt(2.0)) / 2.0 < probability
                                   : std::erfc(z / std::sqrt(2.0)) / 2.0 > 1.0 - probability;
        (below ? low : high) = z;
    }
    return (low + high) / 2.0;
}

} // namespace wavesfm
