// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/sample_clock.h>
#include <gnuradio/wavesfm/spectrogram_tiler.h>

#include <complex>
#include <cstdint>
#include <optional>
#include <vector>

namespace wavesfm {

//! A tile with its place in the stream.
struct Tile {
    TilerOutput cells;               //!< its start_sample is absolute
    double rate_hz = 0.0;            //!< sample rate; 0 when unknown
    std::optional<double> centre_hz; //!< centre frequency; none when unknown
    std::optional<StreamTime> time;  //!< of the first sample; none when unknown
    std::optional<double> arrived_s; //!< monotonic clock at the arrival of the last sample; none offline
};

//! Where the samples of one stream went. samples_in = samples that tiles cover + samples skipped +
//! samples_silent_cut
//! + samples_pending.
struct StreamAccounts {
    std::uint64_t samples_in = 0;         //!< pushed
    std::uint64_t samples_pending = 0;    //!< of the tile under way
    std::uint64_t skipped_retune = 0;     //!< too few for a tile before a change of rate or centre frequency
    std::uint64_t skipped_gap = 0;        //!< too few for a tile before a jump in time
    std::uint64_t skipped_silence = 0;    //!< too few for a tile before digital silence
    std::uint64_t skipped_end = 0;        //!< too few for a tile at the end of the stream
    std::uint64_t samples_silent = 0;     //!< of digital silence, see TilerCounts
    std::uint64_t samples_silent_cut = 0; //!< of these, between tiles
    std::uint64_t samples_nonfinite = 0;  //!< NaN, infinite or beyond sample_limit
    std::uint64_t retunes = 0;            //!< changes of rate or centre frequency
    std::uint64_t gaps = 0;               //!< jumps of the reported time
    std::uint64_t samples_lost = 0;       //!< what the jumps forward amount to: samples that never arrived
    std::uint64_t tiles = 0;              //!< cut, partial ones among them
    std::uint64_t partial_tiles = 0;      //!< with fewer rows than a full tile
};

//! Cuts one stream of samples into tiles with absolute positions and times, and accounts for every sample.
//! Not thread safe.
class WAVESFM_API TileStream {
public:
    //! \param settings      geometry of the tiles
    //! \param rate_hz       sample rate; 0 when unknown
    //! \param centre_hz     centre frequency; none when unknown
    //! \param time          time of the sample at start_sample; none when unknown
    //! \param start_sample  absolute index of the first sample, 0 or more
    //! \param tolerance_s   deviation of a reported time that is no gap, see SampleClock
    //! \throws std::invalid_argument for settings, a rate or a tolerance out of range
    explicit TileStream(const TilerSettings& settings, double rate_hz = 0.0,
                        std::optional<double> centre_hz = std::nullopt,
                        std::optional<StreamTime> time = std::nullopt, std::int64_t start_sample = 0,
                        std::optional<double> tolerance_s = std::nullopt);

    //! Takes n samples in; returns the tiles that they complete. arrived_s: monotonic clock at their arrival.
    std::vector<Tile> push(const std::complex<float>* samples, std::size_t n,
                           std::optional<double> arrived_s = std::nullopt);

    //! Takes in what is reported of the next sample, none where nothing is; starts a new tile there if
    //! anything changed. Rates and frequencies that differ by no more than 1e-6 of themselves are the same. A
    //! time within the tolerance of the tracked clock corrects the clock and is no change. Returns the
    //! partial tile that ends here, if it has min_rows rows.
    //! \throws std::invalid_argument for a rate that is negative or not finite; nothing has changed then
    std::vector<Tile> retune(std::optional<double> rate_hz, std::optional<double> centre_hz,
                             std::optional<StreamTime> time);

    //! Starts a new tile at the next sample, because an unknown number of samples is missing before it.
    //! Returns as retune does.
    std::vector<Tile> gap();

    //! The last partial tile if it has min_rows rows; a further push starts a new tile.
    std::vector<Tile> finish();

    //! Counts up to now.
    StreamAccounts accounts() const;
    //! Of the next sample.
    double rate_hz() const { return clock_.rate_hz(); }
    std::optional<double> centre_hz() const { return centre_hz_; }

private:
    std::int64_t position() const { return first_sample_ + static_cast<std::int64_t>(accounts_.samples_in); }
    std::vector<Tile> end_tile(std::uint64_t StreamAccounts::* reason);
    Tile placed(TilerOutput&& cells);

    StreamAccounts accounts_; // without the tiler's counts
    const std::int64_t first_sample_;
    SpectrogramTiler tiler_;
    SampleClock clock_;
    std::optional<double> centre_hz_;
    std::int64_t segment_start_; // where the tiler's counting began
    std::int64_t covered_to_;    // end of the last tile
    std::uint64_t covered_ = 0;  // samples that tiles cover
    std::optional<double> arrived_s_;
};

} // namespace wavesfm
