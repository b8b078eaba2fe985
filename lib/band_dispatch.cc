// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/band_loops.h>
#include <gnuradio/wavesfm/hot_loops.h>

#include <cstring>

namespace wavesfm {

extern const BandLoops band_loops_baseline;
#ifdef WAVESFM_X86_LEVELS
extern const BandLoops band_loops_avx2;
extern const BandLoops band_loops_avx512;
#endif

const BandLoops& band_loops() {
#ifdef WAVESFM_X86_LEVELS
    static const char* const best = hot_loops().name;
    if (std::strcmp(best, "avx512") == 0) {
        return band_loops_avx512;
    }
    if (std::strcmp(best, "avx2") == 0) {
        return band_loops_avx2;
    }
#endif
    return band_loops_baseline;
}

} // namespace wavesfm
