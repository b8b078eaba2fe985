// SPDX-License-Identifier: GPL-3.0-or-later
// The correlation is what the sums give in double arithmetic, at lengths that no block divides; a waveform
// that is there gives 1 at its place; silence gives 0; samples 200 dB apart do not disturb each other.
#include "qa.h"
#include <gnuradio/wavesfm/waveform_correlation.h>

#include <cmath>
#include <vector>

using namespace wavesfm;

namespace {

using Complex = std::complex<float>;

double expected(const Complex* x, const std::vector<Complex>& waveform) {
    std::complex<double> sum = 0.0;
    double window = 0.0, unit = 0.0;
    for (std::size_t i = 0; i < waveform.size(); i++) {
        sum += std::complex<double>(x[i]) * std::conj(std::complex<double>(waveform[i]));
        window += std::norm(std::complex<double>(x[i]));
        unit += std::norm(std::complex<double>(waveform[i]));
    }
    return std::norm(sum) / (window * unit);
}

void check(std::size_t antennas, std::size_t n, std::size_t k) {
    const std::size_t stride = n + 3;
    const auto x = complex_noise(antennas * stride, 1), waveform = complex_noise(k, 2);
    std::vector<float> out(n - k + 1);
    waveform_correlation(x.data(), antennas, stride, n, waveform.data(), k, out.data());
    for (std::size_t m = 0; m < out.size(); m++) {
        double sum = 0.0;
        for (std::size_t a = 0; a < antennas; a++) {
            sum += expected(x.data() + a * stride + m, waveform);
        }
        REQUIRE(std::abs(out[m] - sum / static_cast<double>(antennas)) <= 2e-6);
    }
}

} // namespace

int main() {
    check(1, 1, 1);
    check(2, 48, 48);
    check(3, 1001, 48);
    check(1, 517, 31);
    const auto waveform = complex_noise(48, 2);
    std::vector<Complex> x(3000);
    std::copy(waveform.begin(), waveform.end(), x.begin() + 2000);
    std::vector<float> out(x.size() - 47);
    waveform_correlation(x.data(), 1, x.size(), x.size(), waveform.data(), 48, out.data());
    REQUIRE(std::abs(out[2000] - 1.0f) <= 1e-5f && out[0] == 0.0f && out.back() == 0.0f);
    x[100] = {1e10f, -1e10f};
    x[1900] = {1e10f, 1e10f}; // its block's precision ends above the waveform, which then counts as silence
    waveform_correlation(x.data(), 1, x.size(), x.size(), waveform.data(), 48, out.data());
    for (std::size_t m = 0; m < out.size(); m++) {
        REQUIRE(out[m] >= 0.0f && out[m] <= 1.0f);
        REQUIRE(m == 2000 || out[m] <= 0.5f);
    }
    x[100] = x[1900] = {1e15f, 1e15f};
    waveform_correlation(x.data(), 1, x.size(), x.size(), waveform.data(), 48, out.data());
    for (const float value : out) {
        REQUIRE(value >= 0.0f && value <= 1.0f);
    }
    return 0;
}
