// SPDX-License-Identifier: GPL-3.0-or-later
#include "fft_plan.h"

#include <gnuradio/wavesfm/aligned.h>

#include <map>
#include <mutex>
#include <new>
#include <tuple>

namespace wavesfm {

namespace {

constexpr std::size_t most_measured = 32768;

fftwf_plan kept_plan(std::size_t fft_size, int sign, unsigned effort) {
    static std::mutex mutex;
    // Kept for the life of the process, a handful of sizes, and never destroyed: a thread that an engine left
    // behind may still transform while the process ends.
    static auto& plans = *new std::map<std::tuple<std::size_t, int, unsigned>, fftwf_plan>;
    std::lock_guard<std::mutex> lock(mutex);
#ifdef WAVESFM_FFTW_THREADS
    // Our mutex does not hold back other users of FFTW in this process (GNU Radio's own FFT blocks); FFTW's
    // does.
    static std::once_flag once;
    std::call_once(once, fftwf_make_planner_thread_safe);
#endif
    fftwf_plan& plan = plans[{fft_size, sign, effort}];
    if (!plan) {
        AlignedFloats in(2 * fft_size), out(2 * fft_size);
        plan = fftwf_plan_dft_1d(static_cast<int>(fft_size), reinterpret_cast<fftwf_complex*>(in.data()),
                                 reinterpret_cast<fftwf_complex*>(out.data()), sign, effort);
        if (!plan) {
            throw std::bad_alloc();
        }
    }
    return plan;
}

} // namespace

// Estimated, not measured: the same plan, hence the same bits, in every process of a machine (but for one
// that loaded wisdom of this size; then the last bits may differ, far below the tolerances).
fftwf_plan forward_plan(std::size_t fft_size) {
    return kept_plan(fft_size, FFTW_FORWARD, FFTW_ESTIMATE);
}

fftwf_plan measured_plan(std::size_t fft_size) {
    return kept_plan(fft_size, FFTW_FORWARD, fft_size <= most_measured ? FFTW_MEASURE : FFTW_ESTIMATE);
}

fftwf_plan backward_plan(std::size_t fft_size) {
    return kept_plan(fft_size, FFTW_BACKWARD, FFTW_ESTIMATE);
}

} // namespace wavesfm
