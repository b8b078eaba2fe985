// SPDX-License-Identifier: GPL-3.0-or-later
#include "fft_plan.h"

#include <gnuradio/wavesfm/aligned.h>

#include <map>
#include <mutex>
#include <new>

namespace wavesfm {

fftwf_plan forward_plan(std::size_t fft_size) {
    static std::mutex mutex;
    static std::map<std::size_t, fftwf_plan> plans; // kept for the life of the process: a handful of sizes
    std::lock_guard<std::mutex> lock(mutex);
#ifdef WAVESFM_FFTW_THREADS
    // Our mutex does not hold back other users of FFTW in this process (GNU Radio's own FFT blocks); FFTW's
    // does.
    static std::once_flag once;
    std::call_once(once, fftwf_make_planner_thread_safe);
#endif
    auto found = plans.find(fft_size);
    if (found == plans.end()) {
        AlignedFloats in(2 * fft_size), out(2 * fft_size);
        // Estimated, not measured, and as fast here: the same plan, hence the same bits, in every process of
        // a machine (but for one that loaded wisdom of this size; then the last bits may differ, far below
        // the tolerances).
        fftwf_plan plan =
            fftwf_plan_dft_1d(static_cast<int>(fft_size), reinterpret_cast<fftwf_complex*>(in.data()),
                              reinterpret_cast<fftwf_complex*>(out.data()), FFTW_FORWARD, FFTW_ESTIMATE);
        if (!plan) {
            throw std::bad_alloc();
        }
        found = plans.emplace(fft_size, plan).first;
    }
    return found->second;
}

} // namespace wavesfm
