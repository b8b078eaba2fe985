// SPDX-License-Identifier: GPL-3.0-or-later
// Every instruction set gives what the matrices give in double arithmetic, at sizes that no vector divides,
// and the same for a channel alone as among others.
#include "qa.h"
#include <gnuradio/wavesfm/resize.h>

#include <cmath>
#include <random>

using namespace wavesfm;

namespace {

double weight(const ResizeMatrix& m, std::size_t out, std::size_t in) {
    const bool counts = in >= m.first[out] && in < m.first[out] + m.count[out];
    return counts ? m.weights[out * m.taps + in - m.first[out]] : 0.0;
}

void check(const HotLoops& loops, std::size_t rows, std::size_t columns, std::size_t height,
           std::size_t width) {
    constexpr std::size_t channels = 2;
    std::mt19937 generator(1);
    std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
    std::vector<float> in(channels * rows * columns), out(channels * height * width), alone(height * width);
    for (auto& v : in) {
        v = uniform(generator);
    }
    resize_image(in.data(), channels, rows, columns, height, width, out.data(), loops);
    const ResizeMatrix down(rows, height), across(columns, width);
    for (std::size_t y = 0; y < height; y++) {
        for (std::size_t x = 0; x < width; x++) {
            double sum = 0.0;
            for (std::size_t r = 0; r < rows; r++) {
                for (std::size_t c = 0; c < columns; c++) {
                    sum += weight(down, y, r) * weight(across, x, c) * in[(rows + r) * columns + c];
                }
            }
            REQUIRE(std::abs(out[(height + y) * width + x] - sum) <= 2e-6);
        }
    }
    resize_image(in.data() + rows * columns, 1, rows, columns, height, width, alone.data(), loops);
    REQUIRE(std::vector<float>(out.begin() + static_cast<std::ptrdiff_t>(height * width), out.end()) ==
            alone);
}

} // namespace

int main() {
    for (const HotLoops* loops : available_hot_loops()) {
        check(*loops, 1, 1, 3, 5);
        check(*loops, 7, 13, 1, 1);
        check(*loops, 11, 31, 17, 9);
        check(*loops, 5, 193, 23, 24);
    }
    return 0;
}
