// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>

namespace wavesfm {

//! Version of this library, "major.minor.patch".
WAVESFM_API const char* library_version();

//! Version text of the FFTW that it is linked to.
WAVESFM_API const char* fftw_version();

} // namespace wavesfm
