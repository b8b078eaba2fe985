// SPDX-License-Identifier: GPL-3.0-or-later
// The products of complex matrices, of every instruction set, against sums in double precision.
#include "qa.h"
#include "split_matrix.h"

#include <gnuradio/wavesfm/hot_loops.h>

#include <cmath>
#include <cstdint>
#include <cstring>

using namespace wavesfm;

namespace wavesfm {
extern const MatrixLoops matrix_loops_baseline;
#ifdef __x86_64__
extern const MatrixLoops matrix_loops_avx2;
extern const MatrixLoops matrix_loops_avx512;
#endif
} // namespace wavesfm

namespace {

const MatrixLoops& loops_of(const char* name) {
#ifdef __x86_64__
    if (std::strcmp(name, "avx512") == 0) {
        return matrix_loops_avx512;
    }
    if (std::strcmp(name, "avx2") == 0) {
        return matrix_loops_avx2;
    }
#endif
    return matrix_loops_baseline;
}

SplitMatrix filled(std::size_t rows, std::size_t columns, std::uint32_t seed) {
    SplitMatrix matrix(rows, columns);
    for (std::size_t i = 0; i < rows; i++) {
        for (std::size_t k = 0; k < columns; k++) {
            seed = seed * 1664525u + 1013904223u;
            const auto real = static_cast<float>(seed >> 8) / 16777216.0f - 0.5f;
            seed = seed * 1664525u + 1013904223u;
            matrix.set(i, k, {real, static_cast<float>(seed >> 8) / 16777216.0f - 0.5f});
        }
    }
    return matrix;
}

void products_are_those_of_sums(const MatrixLoops& loops, std::size_t rows, std::size_t inner,
                                std::size_t columns) {
    const SplitMatrix a = filled(rows, inner, 1), b = filled(inner, columns, 2);
    SplitMatrix c(rows, columns);
    loops.multiply(a.real.data(), a.imag.data(), a.stride, b.real.data(), b.imag.data(), b.stride,
                   c.real.data(), c.imag.data(), c.stride, rows, inner, c.stride);
    for (std::size_t i = 0; i < rows; i++) {
        for (std::size_t j = 0; j < c.stride; j++) {
            double real = 0.0, imag = 0.0;
            for (std::size_t k = 0; k < inner; k++) {
                const double x = a.real[i * a.stride + k], y = a.imag[i * a.stride + k];
                const double u = b.real[k * b.stride + j], v = b.imag[k * b.stride + j];
                real += x * u - y * v;
                imag += x * v + y * u;
            }
            const double tolerance = 1e-6 * static_cast<double>(inner);
            REQUIRE(std::abs(c.real[i * c.stride + j] - real) <= tolerance);
            REQUIRE(std::abs(c.imag[i * c.stride + j] - imag) <= tolerance);
        }
    }
}

} // namespace

int main() {
    for (const HotLoops* set : available_hot_loops()) {
        const MatrixLoops& loops = loops_of(set->name);
        products_are_those_of_sums(loops, 1, 1, 1);
        products_are_those_of_sums(loops, 4, 7, 16);
        products_are_those_of_sums(loops, 9, 48, 50);
        products_are_those_of_sums(loops, 32, 32, 33);
    }
    return 0;
}
