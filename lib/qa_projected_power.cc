// SPDX-License-Identifier: GPL-3.0-or-later
// The power is what the sums give in double arithmetic, at any size; of rows in the modes' own space it is
// theirs.
#include "qa.h"
#include <gnuradio/wavesfm/projected_power.h>

#include <cmath>

using namespace wavesfm;

namespace {

using Complex = std::complex<float>;

void check(std::size_t n_rows, std::size_t k, std::size_t n_modes) {
    const auto rows = complex_noise(n_rows * k, 1), modes = complex_noise(k * n_modes, 2);
    double expected = 0.0;
    for (std::size_t row = 0; row < n_rows; row++) {
        for (std::size_t mode = 0; mode < n_modes; mode++) {
            std::complex<double> sum = 0.0;
            for (std::size_t i = 0; i < k; i++) {
                sum +=
                    std::complex<double>(rows[row * k + i]) * std::complex<double>(modes[i * n_modes + mode]);
            }
            expected += std::norm(sum);
        }
    }
    expected /= static_cast<double>(n_rows * n_modes);
    const double found = projected_power(rows.data(), n_rows, k, modes.data(), n_modes);
    REQUIRE(std::abs(found - expected) <= 1e-5 * expected);
}

} // namespace

int main() {
    check(1, 1, 1);
    check(32, 48, 34);
    check(3, 7, 5);
    check(16, 636, 96);
    const std::vector<Complex> zeros(12);
    REQUIRE(projected_power(zeros.data(), 3, 4, complex_noise(8, 3).data(), 2) == 0.0);
    return 0;
}
