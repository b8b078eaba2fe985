// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/hot_loops.h>

namespace wavesfm {

extern const HotLoops hot_loops_baseline;
#ifdef WAVESFM_X86_LEVELS
extern const HotLoops hot_loops_avx2;
extern const HotLoops hot_loops_avx512;
#endif

std::vector<const HotLoops*> available_hot_loops() {
    std::vector<const HotLoops*> found{&hot_loops_baseline};
#ifdef WAVESFM_X86_LEVELS
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        found.push_back(&hot_loops_avx2);
        if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
            __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) {
            found.push_back(&hot_loops_avx512);
        }
    }
#endif
    return found;
}

const HotLoops& hot_loops() {
    static const HotLoops* const best = available_hot_loops().back();
    return *best;
}

} // namespace wavesfm
