// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace wavesfm {

//! Blocks along each side of a tile, over which bursts are measured; fewer of a smaller tile.
constexpr std::size_t signature_blocks = 28;

//! Power and shape of one tile, in dB: what two tiles that look alike have in common.
struct TileSignature {
    std::uint64_t n_samples; //!< that the tile covers
    double level;            //!< mean of the cells, relative to full scale
    double floor;            //!< median of the cells, relative to full scale
    double peak;             //!< 99.9 % quantile of the cells over their mean
    //! Spread of the cells about their column; largest and rms deviation of the rows' means (steps in time);
    //! those of the means of blocks about their column of blocks (bursts).
    std::array<double, 5> shape;
    std::vector<float> columns; //!< [width] mean of each column over the level: the spectrum
};

//! Largest differences in dB between the signatures of two tiles that look alike.
struct SignatureTolerances {
    double level, peak;
    std::array<double, 5> shape;
    double column;      //!< of a band of `band` columns
    double columns_rms; //!< of all bands, root mean square
    std::size_t band;   //!< columns that are averaged before they are compared, 1 or more
    double noise_peak;  //!< 99.9 % quantile over the median of the loudest tile of white noise
};

//! Relative difference of lengths beyond which two tiles are not compared: their noise scatters differently.
constexpr double signature_length_tolerance = 0.05;

//! Measures a tile.
//!
//! \param data       [height, width] cells, standardised
//! \param db         dB of one standardised unit
//! \param offset_db  dB of the standardised value 0, relative to full scale
//! \param n_samples  samples that the tile covers
//! \param floor_db   median of the tile, relative to full scale
//! \param peak_db    99.9 % quantile of the tile, relative to full scale
//! \throws std::invalid_argument for a tile without cells
WAVESFM_API TileSignature tile_signature(const float* data, std::size_t height, std::size_t width, float db,
                                         double offset_db, std::uint64_t n_samples, double floor_db,
                                         double peak_db);

//! Whether every figure of two tiles is within `factor` times its tolerance. Tiles of another width never
//! are.
WAVESFM_API bool alike(const TileSignature& a, const TileSignature& b, const SignatureTolerances& tolerances,
                       double factor);

//! Moves `mean` towards `seen`: each figure by `part` of the difference. Both have the same width.
WAVESFM_API void move_towards(TileSignature& mean, const TileSignature& seen, double part);

} // namespace wavesfm
