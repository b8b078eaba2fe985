// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/aligned.h>
#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/fft_handle.h>
#include <gnuradio/wavesfm/hot_loops.h>
#include <gnuradio/wavesfm/resize.h>

#include <complex>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace wavesfm {

//! What a tile is; the fields mean what `wavesfm_core.bundle.spec.SpectrogramSpec` says of them.
struct TilerSettings {
    std::size_t fft_size, hop_samples;
    std::string window; //!< hann, hamming, blackman (all periodic) or rectangular
    std::size_t frames_averaged, rows_per_tile, min_rows;
    double floor_db;
    std::size_t height, width;
    std::string reference; //!< median or full_scale
    double low_db, high_db, mean, std;
    bool remove_dc = false;
};

//! One finished tile. Samples count from the tiler's construction or last flush.
struct TilerOutput {
    std::vector<float> data; //!< [height, width]
    std::uint64_t start_sample, n_samples;
    bool partial;
    float floor_db;            //!< lower median of the resized tile, before reference and range
    float peak_db;             //!< its 99.9 % quantile (nearest rank)
    std::uint64_t n_nonfinite; //!< samples taken as zero: NaN, infinite, or a part of at least `sample_limit`
    std::uint64_t n_gap_samples; //!< of n_samples, those of digital silence, which no row holds
};

//! Counts of samples since the tiler's construction.
struct TilerCounts {
    std::uint64_t silent = 0;     //!< digital silence: in no received frame
    std::uint64_t silent_cut = 0; //!< of these, outside of tiles
    std::uint64_t discarded = 0;  //!< received, and too few for a tile before silence
    std::uint64_t nonfinite = 0;
};

//! Streams complex samples into spectrogram tiles; the same bits for any chunking. Not thread safe: one per
//! stream.
//!
//! A frame with a run of missing samples (exact zeros, or not finite) of a 16th of a frame or more was not
//! received: it is left out, and rows average the frames that were. A run that is as long as a quarter of a
//! full tile ends the tile. Where a quarter of the samples
//! beside the run is zero, or zeros are broken by a few samples again and again, a weak signal was rounded to
//! integers and there is no gap.
//!
//! Per frame: window of unit mean power, FFT, |X|^2 / N^2 (a full-scale tone on one bin is 0 dB with the
//! rectangular window); per row: mean over frames, 10 log10 with floor, fftshift, resize to width; per tile:
//! resize to height, minus the reference, range to [0, 1] with clipping, standardise. With reference "median"
//! the floor of a row is at least the range below its mean power, so that nothing depends on the signal's
//! scale. remove_dc: the mean of the samples of the tile's frames is subtracted from them (in the spectrum,
//! once the tile is complete).
class WAVESFM_API SpectrogramTiler {
public:
    //! Throws std::invalid_argument naming the field that is out of range.
    explicit SpectrogramTiler(const TilerSettings& settings, const HotLoops& loops = hot_loops());

    //! Takes n samples in; returns the tiles that they complete.
    std::vector<TilerOutput> push(const std::complex<float>* samples, std::size_t n);

    //! The partial tile of what is there if it has min_rows complete rows; then the tiler is as new.
    std::optional<TilerOutput> flush();

    //! Samples taken in since the current tile's start.
    std::uint64_t pending_samples() const { return taken_ - (frames_ > 0 ? tile_start_ : position_); }

    //! Up to the last whole frame.
    const TilerCounts& counts() const { return counts_; }

private:
    //! What removing the mean takes: bins around 0 Hz are kept until the mean is known.
    struct DirectCurrent {
        std::vector<std::complex<double>> window_bins; // spectrum of the window, bins -reach to reach
        std::size_t reach, first_column, columns;      // columns of a row into which these bins reach
        std::size_t first_bin, bins_kept; // in order of rising frequency: what these columns are made of
        std::vector<std::uint32_t> first; // of each column's taps, from first_bin on
        std::vector<std::complex<float>> spectra; // [frames so far, 2 reach + 1]
        AlignedFloats rows_db;                    // [rows so far, bins_kept]
        std::vector<std::uint32_t> frames;        // [rows so far]
        std::vector<float> floor_db;              // [rows so far]
        double sum[2] = {0.0, 0.0},
               tail[2] = {0.0, 0.0}; // of the samples; of those that frames share with the next
        std::uint64_t count = 0, tail_count = 0;
    };

    void frame(const float* samples);
    bool is_gap(const float* samples);
    void skip_frame(std::uint64_t bad);
    void finish_row();
    TilerOutput finish_tile(bool partial);
    std::optional<TilerOutput> end_early();
    void start_tile();
    DirectCurrent make_direct_current() const;
    void keep_direct_current(const float* samples, bool finite);
    void keep_row(float floor_db);
    void remove_direct_current();
    const ResizeMatrix& height_matrix(std::size_t n_rows);

    const TilerSettings settings_;
    const HotLoops& loops_;
    const fftwf_plan plan_;
    const ResizeMatrix width_matrix_;
    std::map<std::size_t, ResizeMatrix> height_matrices_; // by count of rows; partial ones are few
    AlignedFloats window_; // [2 fft_size], scaled by 1 / fft_size, each weight twice
    AlignedFloats frame_, spectrum_, power_, db_;
    AlignedFloats carry_; // the start of the next frame, kept from one push to the next
    std::size_t carried_ = 0;
    AlignedFloats rows_; // [rows so far, width] of the current tile

    std::optional<DirectCurrent> direct_current_;

    std::uint64_t taken_ = 0, tile_start_ = 0;
    std::uint64_t position_ = 0;                 // of the next frame
    std::uint64_t last_end_ = 0, tiled_end_ = 0; // of the last received frame; of the last tile
    std::uint64_t covered_ = 0; // up to here frames were received or samples counted as silent
    std::uint64_t tile_gap_ = 0, open_gap_ = 0, open_gap_bad_ = 0; // in the tile; since its last frame
    std::size_t gap_frames_ = 0;                                   // since the last received frame
    std::size_t rounded_ = 0; // frames for which zeros are still taken for a rounded signal's
    TilerCounts counts_;
    std::size_t frames_in_row_ = 0, frames_ = 0, n_rows_ = 0;
    std::uint64_t bad_in_hops_ = 0,
                  bad_in_tail_ = 0; // of the first hop of each frame; of the rest of the last frame
};

} // namespace wavesfm
