// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/slot.h>

#include <complex>
#include <cstddef>
#include <deque>
#include <map>
#include <optional>
#include <vector>

namespace wavesfm {

//! Value that the mean of exponential variables of mean 1 exceeds with a given probability.
//!
//! The share of the power of white noise in one of n dimensions is bounded by such a variable over n - 1, and
//! so is the mean of such shares. More than 256 terms count as 256, which gives a higher value.
WAVESFM_API double threshold_over_mean(std::size_t terms, double false_alarm);

//! Range around the start in which paths lie: the shortest prefix of a pilot symbol, or the comb's range.
WAVESFM_API std::size_t reach_samples(const SlotLayout& layout);

//! Search for the start of a slot at any sample.
//!
//! The metric of a start is the mean, over antennas and pilot symbols, of the share of the received power
//! that has the waveform of the pilot symbol (0 to 1). It does not depend on phases of antennas and symbols
//! or gains of antennas. Where successive searches stay below the threshold, the mean of up to 8 of them is
//! compared too.
class WAVESFM_API PilotSearch {
public:
    explicit PilotSearch(const SlotLayout& layout);

    //! Finds the start of a slot: the first significant path around the strongest one.
    //!
    //! Successive searches must cover adjoining ranges of equal length, one slot each; another length begins
    //! anew.
    //!
    //! \param samples  finite; the n of antenna a begin at samples + a * stride
    //! \param n        span_samples() or more; the starts 0 to n - span_samples() are tried
    //! \returns        the start, or none; `metric` is that of the best one
    std::optional<std::size_t> find(const std::complex<float>* samples, std::size_t stride, std::size_t n);
    //! Forgets the earlier searches, as the next one does not adjoin them.
    void restart() { recent_.clear(); }

    //! Metric of the best start of the last search.
    double metric() const { return metric_; }
    //! Threshold of the last search, from the scatter of its metric: noise that is equal in all antennas, as
    //! the signal of another transmitter, has a higher one than independent noise. Either exceeds it once in
    //! 1e12 samples. 1 or more before the first search: noise resembles the pilots too often for a search.
    double threshold() const { return threshold_; }
    //! Samples from the start of a slot to the end of its last pilot symbol.
    std::size_t span_samples() const { return span_samples_; }

private:
    std::vector<double> measure(const std::complex<float>* samples, std::size_t stride, std::size_t n) const;
    double scattered_threshold(const std::vector<double>& metric, std::size_t peak, std::size_t terms);
    std::size_t first_path(const std::vector<double>& metric, std::size_t peak) const;
    double over_mean(std::size_t terms);

    std::size_t antennas_, fft_size_, reach_, terms_, span_samples_;
    double mean_of_noise_;
    std::vector<std::vector<std::complex<float>>> waveforms_; // of each pilot symbol, without prefix
    std::vector<std::size_t> starts_;                         // of these
    std::vector<double> lowest_;                              // threshold of the mean of n searches
    std::map<std::size_t, double> over_mean_;                 // by terms
    std::deque<std::vector<double>> recent_;                  // metrics of the last searches
    double metric_ = 0.0, threshold_;
};

//! Follows the start from slot to slot by the delays of the pilots.
//!
//! The metric is that of PilotSearch on the pilot subcarriers alone, in a window of the prefix's length
//! around the start.
class WAVESFM_API PilotTracker {
public:
    explicit PilotTracker(const SlotLayout& layout);

    //! True if the received grid [A, S, F] contains the transmitted pilots; their delays then enter the mean.
    bool hit(const std::complex<float>* grid);
    //! Samples by which the start of the next slot moves, -1, 0 or 1; the running mean moves with it.
    int step();

    //! Metric of the last slot.
    double metric() const { return metric_; }
    //! Noise exceeds it in one slot of a thousand. It is at least half of the mean metric so far, so that
    //! data of another slot, equal in all antennas, are not taken for pilots.
    double threshold() const { return threshold_; }

private:
    SlotLayout layout_;
    std::size_t reach_;
    std::vector<float> real_, imag_; // of the steering vectors, [Fp, delays]
    std::vector<double> profile_;    // running mean over the slots; empty before the first
    double lowest_, threshold_, metric_ = 0.0, usual_ = 0.0;
};

//! Carrier frequency offset from the phase between each prefix and the end of its symbol.
//!
//! It is unambiguous within half the subcarrier spacing. Prefixes with echoes count like the others. It is a
//! running mean over about a hundred slots.
class WAVESFM_API CarrierOffset {
public:
    explicit CarrierOffset(const SlotLayout& layout);

    //! Updates the running mean with a slot of finite samples, unless it is silent.
    void take(const std::complex<float>* samples, std::size_t stride);
    //! Corrects n samples of each antenna by the offset, in place; the phase of the first is kept.
    void correct(std::complex<float>* samples, std::size_t stride, std::size_t n);
    //! Forgets what was measured.
    void reset();

    //! Offset of the received carrier in Hz; none before the first slot or without prefixes.
    std::optional<double> hz() const;
    //! Whether enough slots with more than noise have entered the mean.
    bool settled() const;

private:
    std::size_t antennas_, fft_size_;
    double spacing_hz_;
    std::vector<std::size_t> prefix_samples_, symbol_starts_;
    std::vector<std::complex<float>> turns_;
    std::complex<double> mean_;
    std::size_t slots_ = 0;
};

} // namespace wavesfm
