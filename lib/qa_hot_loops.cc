// SPDX-License-Identifier: GPL-3.0-or-later
// Every instruction set that this processor has gives what plain double arithmetic gives, at lengths that no
// vector divides.
#include "qa.h"
#include <gnuradio/wavesfm/hot_loops.h>

#include <gnuradio/wavesfm/aligned.h>

#include <cmath>
#include <limits>
#include <random>

using namespace wavesfm;

namespace {

std::mt19937 generator(1);

AlignedFloats random_floats(std::size_t n, float low, float high) {
    std::uniform_real_distribution<float> uniform(low, high);
    AlignedFloats x(n);
    for (auto& v : x) {
        v = uniform(generator);
    }
    return x;
}

bool near(double a, double b, double tolerance) {
    return std::abs(a - b) <= tolerance;
}

void check_window_frame(const HotLoops& loops, std::size_t n) {
    auto x = random_floats(2 * n, -1.0f, 1.0f), window = random_floats(2 * n, 0.0f, 2.0f);
    AlignedFloats out(2 * n);
    REQUIRE(loops.window_frame(x.data(), window.data(), out.data(), n));
    for (std::size_t i = 0; i < 2 * n; i++) {
        REQUIRE(out[i] == x[i] * window[i]);
    }
    const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
    for (const float bad : {inf, -inf, nan, -nan, 1e15f, -2e20f}) {
        for (const std::size_t at : {std::size_t(0), n, 2 * n - 1}) {
            const float kept = x[at];
            x[at] = bad;
            REQUIRE(!loops.window_frame(x.data(), window.data(), out.data(), n));
            x[at] = kept;
        }
    }
}

void check_power(const HotLoops& loops, std::size_t n) {
    const auto spectrum = random_floats(2 * n, -1.0f, 1.0f), before = random_floats(n, 0.0f, 1.0f);
    auto power = before;
    loops.add_power(spectrum.data(), power.data(), n);
    for (std::size_t i = 0; i < n; i++) {
        const double re = spectrum[2 * i], im = spectrum[2 * i + 1];
        REQUIRE(near(power[i], before[i] + re * re + im * im, 5e-7));
    }
}

void check_totals(const HotLoops& loops, std::size_t n) {
    const auto x = random_floats(2 * n, -1.0f, 1.0f), power = random_floats(n, 0.0f, 1.0f);
    double re = 1.0, im = 2.0, total = 0.0, sum[2] = {1.0, 2.0};
    for (std::size_t i = 0; i < n; i++) {
        re += x[2 * i];
        im += x[2 * i + 1];
        total += power[i];
    }
    loops.add_samples(x.data(), n, sum);
    REQUIRE(near(sum[0], re, 1e-6 * static_cast<double>(n)) &&
            near(sum[1], im, 1e-6 * static_cast<double>(n)));
    REQUIRE(near(loops.sum_power(power.data(), n), total, 1e-6 * static_cast<double>(n)));
}

void check_decibels(const HotLoops& loops, std::size_t n) {
    auto db = random_floats(n, -370.0f, 370.0f);
    AlignedFloats power(n), out(n);
    for (std::size_t i = 0; i < n; i++) {
        power[i] = static_cast<float>(std::pow(10.0, db[i] / 10.0));
    }
    loops.power_to_db(power.data(), 0.5f, -300.0f, out.data(), n);
    for (std::size_t i = 0; i < n; i++) {
        REQUIRE(near(out[i], std::max(10.0 * std::log10(power[i] * 0.5), -300.0), 1e-4));
    }
    power.assign(n, 1.0f);
    loops.power_to_db(power.data(), 1.0f, -300.0f, out.data(), n);
    REQUIRE(out[0] == 0.0f && out[n - 1] == 0.0f);
    power.assign(n, 0.0f);
    loops.power_to_db(power.data(), 1.0f, -300.0f, out.data(), n);
    REQUIRE(out[0] == -300.0f && out[n - 1] == -300.0f);
}

void check_sums(const HotLoops& loops, std::size_t n) {
    const std::size_t taps = 16;
    const auto in = random_floats(n + taps, -100.0f, 0.0f), weights = random_floats(n * taps, -0.1f, 0.2f);
    std::vector<std::uint32_t> first(n);
    for (std::size_t o = 0; o < n; o++) {
        first[o] = static_cast<std::uint32_t>(n - 1 - o);
    }
    AlignedFloats out(n);
    loops.banded_dots(in.data(), first.data(), weights.data(), taps, out.data(), n);
    for (std::size_t o = 0; o < n; o++) {
        double sum = 0.0;
        for (std::size_t t = 0; t < taps; t++) {
            sum += static_cast<double>(in[first[o] + t]) * weights[o * taps + t];
        }
        REQUIRE(near(out[o], sum, 2e-4));
    }

    const std::size_t n_rows = 5;
    const auto rows = random_floats(n_rows * n, -100.0f, 0.0f);
    loops.weighted_rows(rows.data(), weights.data(), n_rows, n, out.data());
    for (std::size_t c = 0; c < n; c++) {
        double sum = 0.0;
        for (std::size_t r = 0; r < n_rows; r++) {
            sum += static_cast<double>(rows[r * n + c]) * weights[r];
        }
        REQUIRE(near(out[c], sum, 1e-4));
    }
}

void check_map_range(const HotLoops& loops, std::size_t n) {
    const auto before = random_floats(n, -120.0f, 20.0f);
    auto x = before;
    loops.map_range(x.data(), n, -80.0f, 1.0f / 60.0f, 0.25f, 4.0f);
    for (std::size_t i = 0; i < n; i++) {
        const double in_range = std::min(std::max((before[i] + 80.0) / 60.0, 0.0), 1.0);
        REQUIRE(near(x[i], (in_range - 0.25) * 4.0, 5e-6));
    }
}

void check_conversions(const HotLoops& loops, std::size_t n) {
    std::vector<unsigned char> raw(2 * n + 1);
    for (auto& byte : raw) {
        byte = static_cast<unsigned char>(generator());
    }
    const unsigned char* odd = raw.data() + 1;
    std::vector<float> out(n);
    loops.from_u8(odd, out.data(), n);
    for (std::size_t i = 0; i < n; i++) {
        REQUIRE(out[i] == (static_cast<float>(odd[i]) - 127.5f) / 127.5f);
    }
    loops.from_s8(reinterpret_cast<const std::int8_t*>(odd), out.data(), n);
    for (std::size_t i = 0; i < n; i++) {
        REQUIRE(out[i] == static_cast<float>(static_cast<std::int8_t>(odd[i])) / 128.0f);
    }
    loops.from_s16(odd, out.data(), n);
    for (std::size_t i = 0; i < n; i++) {
        const auto value = static_cast<std::int16_t>(odd[2 * i] | (odd[2 * i + 1] << 8));
        REQUIRE(out[i] == static_cast<float>(value) / 32768.0f);
    }
}

} // namespace

int main() {
    const auto available = available_hot_loops();
    REQUIRE(!available.empty() && available.back() == &hot_loops());
    for (const HotLoops* loops : available) {
        std::printf("%s\n", loops->name);
        for (const std::size_t n : {1, 7, 16, 61, 512, 1003}) {
            check_window_frame(*loops, n);
            check_power(*loops, n);
            check_totals(*loops, n);
            check_decibels(*loops, n);
            check_sums(*loops, n);
            check_map_range(*loops, n);
            check_conversions(*loops, n);
        }
    }
}
