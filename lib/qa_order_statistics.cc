// SPDX-License-Identifier: GPL-3.0-or-later
#include "order_statistics.h"
#include "qa.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

using namespace wavesfm;

int main() {
    std::mt19937 generator(1);
    std::normal_distribution<float> normal(-90.0f, 5.0f);
    for (const std::size_t n : {1, 2, 3, 10, 999, 1000, 1001, 50176}) {
        for (int kind = 0; kind < 4; kind++) {
            std::vector<float> x(n);
            for (auto& v : x) {
                v = normal(generator);
                v = kind == 1 ? std::round(v) : kind == 2 ? -160.0f : v; // with ties; all equal
            }
            if (kind == 3) {
                x[n / 2] = 1e6f; // far outlier: all others in one bin
            }
            auto ordered = x;
            std::sort(ordered.begin(), ordered.end());
            const FloorAndPeak got = floor_and_peak(x.data(), n);
            REQUIRE(got.floor == ordered[(n - 1) / 2]);
            REQUIRE(got.peak == ordered[(999 * n + 999) / 1000 - 1]);
        }
    }
}
