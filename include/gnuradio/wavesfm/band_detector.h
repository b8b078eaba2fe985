// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/aligned.h>
#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/band_loops.h>
#include <gnuradio/wavesfm/fft_handle.h>
#include <gnuradio/wavesfm/hot_loops.h>

#include <complex>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace wavesfm {

struct BandSettings {
    std::size_t fft_size =
        4096; //!< a power of two, 128 to 65536: bins of rate / fft_size, rows of fft_size samples
    std::size_t block_rows = 128; //!< rows that are judged together, 8 to 4096
    double false_rate = 1e-9;     //!< probability that a statistic of noise proves a signal, per cell
    double grow_rate = 1e-3;      //!< probability that it continues one, per cell beside
    double opening = 0.4; //!< share of the band up to which a signal that never pauses is told from the floor
    double floor_db = -160.0; //!< the least floor, dB relative to full scale per bin
};

//! A connected region of cells (row, bin) that stand over the floor, within one block: what was on the air
//! there without a pause.
struct BandPiece {
    std::uint32_t row_first, row_stop; //!< in the block
    std::uint32_t bin_low, bin_stop;   //!< of fft_size bins, frequency rising; bin fft_size / 2 is the centre
    std::uint32_t n_cells;
    std::vector<float> spectrum; //!< mean power of the rows in each of its bins, noise included
    std::vector<std::uint32_t> row_low, row_stop_bin; //!< [rows] its bins in each row; low = stop: a pause
};

//! One judged block of rows. Powers are relative to full scale per bin, as in SpectrogramTiler.
struct BandBlock {
    std::uint64_t first_row;  //!< row r is of the 1.5 fft_size samples from r fft_size on, most of it of the
                              //!< middle third
    std::vector<float> floor; //!< [fft_size] noise power of each bin
    std::vector<float> mean;  //!< [fft_size] mean power over the rows
    std::vector<float> row_power; //!< [rows] sum over the bins of power over floor
    std::vector<BandPiece> pieces;
    std::uint64_t n_nonfinite; //!< samples taken as zero, of the frames of this block
};

//! Finds occupied regions of time and frequency in a stream of samples; the same for any chunking. Not thread
//! safe.
//!
//! A row is the mean power of two Hann frames that overlap by half. Per block: floor; rows in which the whole
//! band is raised or lowered for long are scaled to it (a step of the receiver's gain); then four statistics
//! one after the other (means over 1 x 5, 1 x 32, 8 x 3 and all x 3 cells, rows x bins), each with two
//! thresholds of its chi-square distribution; what one has taken counts as noise to the next, so that a burst
//! does not lengthen.
class WAVESFM_API BandDetector {
public:
    //! Throws std::invalid_argument naming the field that is out of range.
    explicit BandDetector(const BandSettings& settings);

    //! Takes n samples in; returns the blocks that they complete.
    std::vector<BandBlock> push(const std::complex<float>* samples, std::size_t n);

    //! The block of the rows there are, if any; then the detector is as new.
    std::optional<BandBlock> flush();

    const BandSettings& settings() const { return settings_; }

private:
    struct Scale {
        std::size_t rows, bins;
    };
    struct Span {
        std::size_t low, stop;
    };
    void frame(const float* samples);
    void finish_row();
    BandBlock finish_block();
    std::vector<float> floor(std::size_t rows);
    void follow_gain(std::size_t rows, const std::vector<float>& row_power);
    void mark(const Scale& scale, std::size_t rows);
    void mark_steady(std::size_t rows);
    void take(std::size_t rows);
    void sum_untaken(std::size_t first, std::size_t count, float* sum);
    std::vector<Span> spans(std::size_t bins, float outside, double freedom, double expected);
    void separate(std::size_t rows, const std::vector<float>& floor);
    std::vector<BandPiece> pieces(std::size_t rows, const std::vector<float>& floor);
    float* row(std::size_t t) { return powers_.data() + t * settings_.fft_size; }

    const BandSettings settings_;
    const double grow_z_, false_z_; // where the normal distribution has them
    const HotLoops& loops_;
    const BandLoops& cells_;
    const fftwf_plan plan_;
    AlignedFloats window_, frame_, spectrum_, power_, carry_;
    std::size_t carried_ = 0, frames_in_row_ = 0;
    AlignedFloats powers_;                           // [block rows, fft_size], later over the floor
    std::vector<std::uint8_t> mask_, taken_, codes_; // [block rows, fft_size] twice, [fft_size]
    AlignedFloats padded_, scratch_, boxed_;
    std::size_t n_rows_ = 0;
    std::uint64_t rows_before_ = 0, bad_ = 0;
};

constexpr std::size_t group_rows = 8; //!< of the floor and of what is steady

//! Chi-square degrees of freedom of the mean of the noise in rows x bins cells, whose neighbours are
//! correlated.
WAVESFM_API double noise_freedom(std::size_t rows, std::size_t bins);
//! Where the distribution of such a mean, relative to its expectation, has `z` of the standard normal.
WAVESFM_API double noise_quantile(double freedom, double z);
//! z with P(normal < z) = probability.
WAVESFM_API double normal_quantile(double probability);

} // namespace wavesfm
