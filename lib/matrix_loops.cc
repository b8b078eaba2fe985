// SPDX-License-Identifier: GPL-3.0-or-later
// Compiled once per instruction set with WAVESFM_MATRIX_LOOPS naming the table, as hot_loops.cc is; no header
// with inline functions for the same reason.
#include "matrix_loops.h"

namespace wavesfm {

namespace {

using std::size_t;

#if defined(__AVX512F__)
constexpr size_t lanes = 16;
#elif defined(__AVX__)
constexpr size_t lanes = 8;
#else
constexpr size_t lanes = 4;
#endif
typedef float Lanes __attribute__((vector_size(lanes * sizeof(float))));

constexpr size_t rows_at_once = 4; // as many sums as registers hold

// Columns j to j + lanes of `count` rows of a b.
template <size_t count>
void multiply_rows(const float* a_real, const float* a_imag, size_t a_stride, const float* b_real,
                   const float* b_imag, size_t b_stride, float* c_real, float* c_imag, size_t c_stride,
                   size_t inner) {
    Lanes real[count] = {}, imag[count] = {};
    for (size_t k = 0; k < inner; k++) {
        const Lanes x = *reinterpret_cast<const Lanes*>(b_real + k * b_stride);
        const Lanes y = *reinterpret_cast<const Lanes*>(b_imag + k * b_stride);
        for (size_t i = 0; i < count; i++) {
            const float a = a_real[i * a_stride + k], b = a_imag[i * a_stride + k];
            real[i] = real[i] + a * x - b * y;
            imag[i] = imag[i] + a * y + b * x;
        }
    }
    for (size_t i = 0; i < count; i++) {
        *reinterpret_cast<Lanes*>(c_real + i * c_stride) = real[i];
        *reinterpret_cast<Lanes*>(c_imag + i * c_stride) = imag[i];
    }
}

void multiply(const float* a_real, const float* a_imag, size_t a_stride, const float* b_real,
              const float* b_imag, size_t b_stride, float* c_real, float* c_imag, size_t c_stride,
              size_t rows, size_t inner, size_t columns) {
    for (size_t j = 0; j < columns; j += lanes) {
        size_t i = 0;
        for (; i + rows_at_once <= rows; i += rows_at_once) {
            multiply_rows<rows_at_once>(a_real + i * a_stride, a_imag + i * a_stride, a_stride, b_real + j,
                                        b_imag + j, b_stride, c_real + i * c_stride + j,
                                        c_imag + i * c_stride + j, c_stride, inner);
        }
        for (; i < rows; i++) {
            multiply_rows<1>(a_real + i * a_stride, a_imag + i * a_stride, a_stride, b_real + j, b_imag + j,
                             b_stride, c_real + i * c_stride + j, c_imag + i * c_stride + j, c_stride, inner);
        }
    }
}

} // namespace

extern const MatrixLoops WAVESFM_MATRIX_LOOPS;
const MatrixLoops WAVESFM_MATRIX_LOOPS = {multiply};

} // namespace wavesfm
