// SPDX-License-Identifier: GPL-3.0-or-later
#include "matrix_loops.h"

#include <gnuradio/wavesfm/hot_loops.h>

#include <cstring>

namespace wavesfm {

extern const MatrixLoops matrix_loops_baseline;
#ifdef WAVESFM_X86_LEVELS
extern const MatrixLoops matrix_loops_avx2;
extern const MatrixLoops matrix_loops_avx512;
#endif

const MatrixLoops& matrix_loops() {
#ifdef WAVESFM_X86_LEVELS
    static const MatrixLoops* const best = std::strcmp(hot_loops().name, "avx512") == 0 ? &matrix_loops_avx512
                                           : std::strcmp(hot_loops().name, "avx2") == 0
                                               ? &matrix_loops_avx2
                                               : &matrix_loops_baseline;
    return *best;
#else
    return matrix_loops_baseline;
#endif
}

} // namespace wavesfm
