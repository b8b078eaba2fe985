// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <cstddef>

namespace wavesfm {

//! The loops over matrices that take the time, once per instruction set.
struct MatrixLoops {
    //! c = a b, for rows of a; b has as many rows as a columns. `columns` is a multiple of 16, all strides
    //! are too.
    void (*multiply)(const float* a_real, const float* a_imag, std::size_t a_stride, const float* b_real,
                     const float* b_imag, std::size_t b_stride, float* c_real, float* c_imag,
                     std::size_t c_stride, std::size_t rows, std::size_t inner, std::size_t columns);
};

//! The widest set that this processor has; chosen once, as `hot_loops` does.
const MatrixLoops& matrix_loops();

} // namespace wavesfm
