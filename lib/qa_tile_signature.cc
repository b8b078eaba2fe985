// SPDX-License-Identifier: GPL-3.0-or-later
// The signature is that of double arithmetic, at sizes that no lane count divides; tiles are alike up to each
// limit.
#include "qa.h"
#include <gnuradio/wavesfm/tile_signature.h>

#include <cmath>
#include <random>

using namespace wavesfm;

namespace {

struct Reference {
    double level, spread, largest_row, rms_row, largest_block, rms_block;
    std::vector<double> columns;
};

Reference reference(const std::vector<float>& data, std::size_t height, std::size_t width, double db) {
    Reference r{0, 0, 0, 0, 0, 0, std::vector<double>(width)};
    std::vector<double> rows(height);
    for (std::size_t i = 0; i < data.size(); i++) {
        r.columns[i % width] += db * data[i] / static_cast<double>(height);
        rows[i / width] += db * data[i] / static_cast<double>(width);
        r.level += db * data[i] / static_cast<double>(data.size());
    }
    double squares = 0, rows_squares = 0, blocks_squares = 0;
    for (std::size_t i = 0; i < data.size(); i++) {
        squares += std::pow(db * data[i] - r.columns[i % width], 2);
    }
    r.spread = std::sqrt(squares / static_cast<double>(data.size()));
    for (const double row : rows) {
        r.largest_row = std::max(r.largest_row, std::abs(row - r.level));
        rows_squares += std::pow(row - r.level, 2);
    }
    r.rms_row = std::sqrt(rows_squares / static_cast<double>(height));
    const std::size_t bh = std::max<std::size_t>(1, height / 28), bw = std::max<std::size_t>(1, width / 28);
    const std::size_t nr = height / bh, nc = width / bw;
    for (std::size_t c = 0; c < nc; c++) {
        std::vector<double> blocks(nr);
        double mean = 0;
        for (std::size_t b = 0; b < nr; b++) {
            for (std::size_t y = b * bh; y < (b + 1) * bh; y++) {
                for (std::size_t x = c * bw; x < (c + 1) * bw; x++) {
                    blocks[b] += db * data[y * width + x] / static_cast<double>(bh * bw);
                }
            }
            mean += blocks[b] / static_cast<double>(nr);
        }
        for (const double block : blocks) {
            r.largest_block = std::max(r.largest_block, std::abs(block - mean));
            blocks_squares += std::pow(block - mean, 2) / static_cast<double>(nr * nc);
        }
    }
    r.rms_block = std::sqrt(blocks_squares);
    return r;
}

bool near(double a, double b) {
    return std::abs(a - b) <= 1e-4;
}

void check(std::size_t height, std::size_t width) {
    std::mt19937 generator(static_cast<unsigned>(height * width));
    std::normal_distribution<float> normal(0.3f, 1.0f);
    std::vector<float> data(height * width);
    for (auto& cell : data) {
        cell = normal(generator);
    }
    const float db = 6.875f;
    const auto seen = tile_signature(data.data(), height, width, db, -70.0, 1234, -68.0, -55.0);
    const auto r = reference(data, height, width, static_cast<double>(db));
    REQUIRE(seen.n_samples == 1234 && seen.floor == -68.0 && near(seen.level, r.level - 70.0));
    REQUIRE(near(seen.peak, -55.0 - (r.level - 70.0)));
    REQUIRE(near(seen.shape[0], r.spread) && near(seen.shape[1], r.largest_row) &&
            near(seen.shape[2], r.rms_row));
    REQUIRE(near(seen.shape[3], r.largest_block) && near(seen.shape[4], r.rms_block));
    for (std::size_t c = 0; c < width; c++) {
        REQUIRE(near(static_cast<double>(seen.columns[c]), r.columns[c] - r.level));
    }
}

TileSignature flat() {
    return {1000, -60.0, -61.0, 4.0, {1, 1, 1, 1, 1}, std::vector<float>(8, 0.0f)};
}

void likeness() {
    const SignatureTolerances limits{1.0, 0.5, {0.1, 0.1, 0.1, 0.1, 0.1}, 0.5, 0.25, 2, 8.0};
    REQUIRE(alike(flat(), flat(), limits, 1.0));
    const auto differs = [&](auto change) {
        auto other = flat();
        change(other);
        return !alike(flat(), other, limits, 1.0);
    };
    REQUIRE(!differs([](auto& s) { s.level += 0.9; }) && differs([](auto& s) { s.level += 1.1; }));
    REQUIRE(!differs([](auto& s) { s.peak += 0.4; }) && differs([](auto& s) { s.peak -= 0.6; }));
    REQUIRE(!differs([](auto& s) { s.n_samples += 50; }) && differs([](auto& s) { s.n_samples += 51; }));
    for (std::size_t i = 0; i < 5; i++) {
        REQUIRE(!differs([&](auto& s) { s.shape[i] += 0.09; }) &&
                differs([&](auto& s) { s.shape[i] += 0.11; }));
    }
    REQUIRE(!differs([](auto& s) { s.columns[2] += 0.8f; }) &&
            differs([](auto& s) { s.columns[2] += 1.1f; }));      // mean of 2
    REQUIRE(differs([](auto& s) { s.columns.assign(8, 0.4f); })); // rms
    REQUIRE(differs([](auto& s) { s.columns.resize(7); }) && differs([](auto& s) { s.columns[0] = NAN; }));
    auto other = flat();
    other.level += 1.9;
    REQUIRE(alike(flat(), other, limits, 2.0));
}

void a_mean_moves() {
    auto mean = flat(), seen = flat();
    seen.level = -58.0;
    seen.columns[3] = 2.0f;
    move_towards(mean, seen, 0.25);
    REQUIRE(near(mean.level, -59.5) && near(static_cast<double>(mean.columns[3]), 0.5) &&
            mean.shape[0] == 1.0);
}

} // namespace

int main() {
    check(224, 224);
    check(31, 45);
    check(5, 3);
    check(1, 1);
    likeness();
    a_mean_moves();
    return 0;
}
