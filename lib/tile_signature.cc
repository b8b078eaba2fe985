// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/tile_signature.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

namespace wavesfm {

namespace {

//! Sum of n values in eight lanes, which the compiler keeps in a vector.
float sum(const float* values, std::size_t n) {
    float lanes[8] = {};
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (std::size_t lane = 0; lane < 8; lane++) {
            lanes[lane] += values[i + lane];
        }
    }
    for (; i < n; i++) {
        lanes[0] += values[i];
    }
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

//! Sum over i of (values[i] - mean[i])^2, in eight lanes.
float squared_deviation(const float* values, const float* mean, std::size_t n) {
    float lanes[8] = {};
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        for (std::size_t lane = 0; lane < 8; lane++) {
            const float apart = values[i + lane] - mean[i + lane];
            lanes[lane] += apart * apart;
        }
    }
    for (; i < n; i++) {
        lanes[0] += (values[i] - mean[i]) * (values[i] - mean[i]);
    }
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

struct Deviation {
    double largest, rms;
};

Deviation deviation(const std::vector<double>& values, double scale) {
    double largest = 0.0, squares = 0.0;
    for (const double value : values) {
        largest = std::max(largest, std::abs(value));
        squares += value * value;
    }
    return {scale * largest, scale * std::sqrt(squares / static_cast<double>(values.size()))};
}

//! Means of blocks less the mean of their column of blocks; cells beyond the last whole block are left out.
std::vector<double> blocks_about_their_column(const std::vector<float>& sums, std::size_t rows,
                                              std::size_t width, std::size_t block_height) {
    const std::size_t block_width = std::max<std::size_t>(1, width / signature_blocks);
    const std::size_t columns = width / block_width;
    std::vector<double> blocks(rows * columns);
    for (std::size_t c = 0; c < columns; c++) {
        double total = 0.0;
        for (std::size_t r = 0; r < rows; r++) {
            double block = 0.0;
            for (std::size_t i = 0; i < block_width; i++) {
                block += sums[r * width + c * block_width + i];
            }
            blocks[r * columns + c] = block / static_cast<double>(block_width * block_height);
            total += blocks[r * columns + c];
        }
        for (std::size_t r = 0; r < rows; r++) {
            blocks[r * columns + c] -= total / static_cast<double>(rows);
        }
    }
    return blocks;
}

//! Means over the tile's axes, in standardised units.
struct Sums {
    std::vector<float> columns;   // [width] mean
    std::vector<double> rows;     // [height] mean
    std::vector<float> of_blocks; // [rows of blocks, width] sums over the rows of a block
    double level;                 // mean of the columns' means
};

Sums sums_of(const float* data, std::size_t height, std::size_t width, std::size_t block_height) {
    const std::size_t block_rows = height / block_height;
    Sums sums{std::vector<float>(width), std::vector<double>(height), std::vector<float>(block_rows * width),
              0.0};
    std::vector<double> total(width);
    std::vector<float> rest(width); // of the rows beyond the last whole block
    for (std::size_t r = 0; r < height; r++) {
        const float* row = data + r * width;
        float* block =
            r / block_height < block_rows ? sums.of_blocks.data() + r / block_height * width : rest.data();
        for (std::size_t c = 0; c < width; c++) {
            block[c] += row[c];
        }
        sums.rows[r] = static_cast<double>(sum(row, width)) / static_cast<double>(width);
    }
    for (std::size_t b = 0; b < block_rows; b++) {
        for (std::size_t c = 0; c < width; c++) {
            total[c] += sums.of_blocks[b * width + c];
        }
    }
    for (std::size_t c = 0; c < width; c++) {
        const double mean = (total[c] + rest[c]) / static_cast<double>(height);
        sums.columns[c] = static_cast<float>(mean);
        sums.level += mean / static_cast<double>(width);
    }
    return sums;
}

double band_mean(const TileSignature& a, const TileSignature& b, std::size_t first, std::size_t band) {
    float total = 0.0f;
    for (std::size_t i = first; i < first + band; i++) {
        total += a.columns[i] - b.columns[i];
    }
    return static_cast<double>(total) / static_cast<double>(band);
}

bool columns_alike(const TileSignature& a, const TileSignature& b, const SignatureTolerances& limits,
                   double factor) {
    const std::size_t band = limits.band, count = a.columns.size() / band;
    double squares = 0.0;
    for (std::size_t i = 0; i < count; i++) {
        const double apart = band_mean(a, b, i * band, band);
        if (!(std::abs(apart) <= factor * limits.column)) {
            return false;
        }
        squares += apart * apart;
    }
    return std::sqrt(squares / static_cast<double>(count)) <= factor * limits.columns_rms;
}

} // namespace

TileSignature tile_signature(const float* data, std::size_t height, std::size_t width, float db,
                             double offset_db, std::uint64_t n_samples, double floor_db, double peak_db) {
    if (height == 0 || width == 0) {
        throw std::invalid_argument("tile: found no cells, expected 1 or more");
    }
    const std::size_t block_height = std::max<std::size_t>(1, height / signature_blocks);
    Sums sums = sums_of(data, height, width, block_height);
    double squares = 0.0;
    for (std::size_t r = 0; r < height; r++) {
        squares += squared_deviation(data + r * width, sums.columns.data(), width);
    }
    for (auto& row : sums.rows) {
        row -= sums.level;
    }
    const auto rows = deviation(sums.rows, db);
    const auto blocks =
        deviation(blocks_about_their_column(sums.of_blocks, height / block_height, width, block_height), db);
    const double spread = db * std::sqrt(squares / static_cast<double>(height * width));
    const double level = db * sums.level + offset_db;
    for (auto& column : sums.columns) {
        column = static_cast<float>(db * (static_cast<double>(column) - sums.level));
    }
    return {n_samples,
            level,
            floor_db,
            peak_db - level,
            {spread, rows.largest, rows.rms, blocks.largest, blocks.rms},
            std::move(sums.columns)};
}

bool alike(const TileSignature& a, const TileSignature& b, const SignatureTolerances& tolerances,
           double factor) {
    const double length = static_cast<double>(a.n_samples);
    if (std::abs(length - static_cast<double>(b.n_samples)) > signature_length_tolerance * length) {
        return false;
    }
    if (std::abs(a.level - b.level) > factor * tolerances.level ||
        std::abs(a.peak - b.peak) > factor * tolerances.peak || a.columns.size() != b.columns.size()) {
        return false;
    }
    for (std::size_t i = 0; i < a.shape.size(); i++) {
        if (std::abs(a.shape[i] - b.shape[i]) > factor * tolerances.shape[i]) {
            return false;
        }
    }
    return columns_alike(a, b, tolerances, factor);
}

void move_towards(TileSignature& mean, const TileSignature& seen, double part) {
    mean.level += part * (seen.level - mean.level);
    mean.floor += part * (seen.floor - mean.floor);
    mean.peak += part * (seen.peak - mean.peak);
    for (std::size_t i = 0; i < mean.shape.size(); i++) {
        mean.shape[i] += part * (seen.shape[i] - mean.shape[i]);
    }
    for (std::size_t i = 0; i < std::min(mean.columns.size(), seen.columns.size()); i++) {
        mean.columns[i] += static_cast<float>(part) * (seen.columns[i] - mean.columns[i]);
    }
}

} // namespace wavesfm
