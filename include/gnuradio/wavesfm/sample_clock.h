// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/stream_time.h>

#include <cstdint>
#include <optional>

namespace wavesfm {

//! Time of each sample from a start time and the sample rate, corrected by reported times.
//!
//! A report close to the tracked time corrects the clock: a Kalman filter of offset and drift averages jitter
//! out and follows the drift between two oscillators. A report further away is a jump: samples were lost, or
//! the time was set anew. The drift that reports have shown widens nothing, so that a gap of one packet is
//! seen after hours, too.
class WAVESFM_API SampleClock {
public:
    //! \param rate_hz      sample rate; 0 when unknown, and then only reported samples have a time
    //! \param time         time of `sample`; none when unknown
    //! \param sample       absolute index
    //! \param tolerance_s  largest deviation in seconds that is no jump; none for the longer of 5 us and one
    //! sample.
    //!                     Six times the measured jitter (rms) widens it, up to tenfold; threefold before
    //!                     reports have shown their jitter
    //! \throws std::invalid_argument for a tolerance that is negative or not finite
    SampleClock(double rate_hz, std::optional<StreamTime> time, std::int64_t sample,
                std::optional<double> tolerance_s);

    double rate_hz() const { return rate_hz_; }
    //! Sets the time of `sample`; none: unknown from here on.
    void set_time(std::optional<StreamTime> time, std::int64_t sample);
    //! Changes the rate at `sample`; where the rate before was unknown the time becomes unknown.
    void set_rate(double rate_hz, std::int64_t sample);
    //! Time of a sample, none when unknown.
    std::optional<StreamTime> time_of(std::int64_t sample) const;
    //! Seconds by which a reported time of `sample` jumps ahead of the clock. 0 when it follows, and then the
    //! clock is corrected; none when no time was known before. A jump changes nothing: the caller ends what
    //! it has and calls set_time.
    std::optional<double> jump_s(const StreamTime& time, std::int64_t sample);
    //! Largest deviation in seconds of the next report that is no jump.
    double limit_s() const;

private:
    double base_s() const;
    void correct(const StreamTime& expected, double ahead_s, std::int64_t sample);

    double rate_hz_;
    const std::optional<double> tolerance_s_;
    std::optional<StreamTime> time_;
    std::int64_t sample_ = 0;
    double drift_ = 0.0;
    double offset_power_ = 0.0, cross_power_ = 0.0, drift_power_ = 0.0; // covariance of offset and drift
    double jitter_power_ = 0.0; // running mean square of the deviations, s^2
};

} // namespace wavesfm
