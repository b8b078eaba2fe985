// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <complex>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

//! Unlike assert() it holds in release builds too.
#define REQUIRE(condition)                                                                                   \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            std::fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                     \
            std::exit(1);                                                                                    \
        }                                                                                                    \
    } while (false)

//! n complex samples whose parts are normal with variance 1.
inline std::vector<std::complex<float>> complex_noise(std::size_t n, unsigned seed) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    std::vector<std::complex<float>> x(n);
    for (auto& v : x) {
        v = {normal(generator), normal(generator)};
    }
    return x;
}
