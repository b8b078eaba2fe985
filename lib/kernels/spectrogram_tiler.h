// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "aligned.h"
#include "hot_loops.h"
#include "resize.h"

#include <fftw3.h>

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
};

//! One finished tile. Samples count from the tiler's construction or last flush.
struct TilerOutput {
    std::vector<float> data; //!< [height, width]
    std::uint64_t start_sample, n_samples;
    bool partial;
    float floor_db;            //!< lower median of the resized tile, before reference and range
    float peak_db;             //!< its 99.9 % quantile (nearest rank)
    std::uint64_t n_nonfinite; //!< samples taken as zero: NaN, infinite, or a part of at least `sample_limit`
};

//! Streams complex samples into spectrogram tiles; the same bits for any chunking. Not thread safe: one per
//! stream.
//!
//! Per frame: window of unit mean power, FFT, |X|^2 / N^2 (a full-scale tone on one bin is 0 dB with the
//! rectangular window); per row: mean over frames, 10 log10 with floor, fftshift, resize to width; per tile:
//! resize to height, minus the reference, range to [0, 1] with clipping, standardise.
class SpectrogramTiler {
public:
    //! Throws std::invalid_argument naming the field that is out of range.
    explicit SpectrogramTiler(const TilerSettings& settings, const HotLoops& loops = hot_loops());

    //! Takes n samples in; returns the tiles that they complete.
    std::vector<TilerOutput> push(const std::complex<float>* samples, std::size_t n);

    //! The partial tile of what is there if it has min_rows complete rows; then the tiler is as new.
    std::optional<TilerOutput> flush();

    //! Samples taken in since the current tile's start.
    std::uint64_t pending_samples() const { return taken_ - tile_start_; }

private:
    void frame(const float* samples);
    void finish_row();
    TilerOutput finish_tile(bool partial);
    void start_tile();
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

    std::uint64_t taken_ = 0, tile_start_ = 0;
    std::size_t frames_in_row_ = 0, frames_ = 0, n_rows_ = 0;
    std::uint64_t bad_in_hops_ = 0,
                  bad_in_tail_ = 0; // of the first hop of each frame; of the rest of the last frame
};

} // namespace wavesfm
