// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "matrix_loops.h"

#include <gnuradio/wavesfm/aligned.h>

#include <complex>
#include <cstddef>

namespace wavesfm {

//! A complex matrix with real and imaginary parts apart; rows begin on a cache line and end in zeros.
class SplitMatrix {
public:
    SplitMatrix() = default;
    SplitMatrix(std::size_t rows, std::size_t columns)
        : rows(rows), columns(columns), stride((columns + 15) / 16 * 16), real(rows * stride),
          imag(rows * stride) {}
    //! Of values [rows, columns].
    SplitMatrix(const std::complex<float>* values, std::size_t rows, std::size_t columns)
        : SplitMatrix(rows, columns) {
        for (std::size_t i = 0; i < rows; i++) {
            for (std::size_t k = 0; k < columns; k++) {
                set(i, k, values[i * columns + k]);
            }
        }
    }

    void set(std::size_t row, std::size_t column, std::complex<float> value) {
        real[row * stride + column] = value.real();
        imag[row * stride + column] = value.imag();
    }

    std::size_t rows = 0, columns = 0, stride = 0;
    AlignedFloats real, imag;
};

//! c = a b; c must have the right size.
inline void multiply(const SplitMatrix& a, const SplitMatrix& b, SplitMatrix& c) {
    matrix_loops().multiply(a.real.data(), a.imag.data(), a.stride, b.real.data(), b.imag.data(), b.stride,
                            c.real.data(), c.imag.data(), c.stride, a.rows, a.columns, c.stride);
}

} // namespace wavesfm
