// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/version.h>

#include <fftw3.h>

namespace wavesfm {

const char* library_version() {
    return WAVESFM_VERSION;
}

const char* fftw_version() {
    return fftwf_version;
}

} // namespace wavesfm
