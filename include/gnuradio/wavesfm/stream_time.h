// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>

#include <cstdint>

namespace wavesfm {

//! Absolute time as in rx_time: whole seconds since the epoch and the fraction in [0, 1).
struct WAVESFM_API StreamTime {
    std::int64_t full_s = 0;
    double frac_s = 0.0;

    //! This time, some seconds later.
    StreamTime advanced(double seconds) const;
    //! Seconds from an earlier time to this one, without the rounding of a double of the whole epoch.
    double seconds_after(const StreamTime& earlier) const;
};

} // namespace wavesfm
