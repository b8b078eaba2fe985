// SPDX-License-Identifier: GPL-3.0-or-later
#include "qa.h"
#include <gnuradio/wavesfm/band_detector.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

using namespace wavesfm;

namespace {

using Samples = std::vector<std::complex<float>>;

BandSettings settings() {
    BandSettings s;
    s.fft_size = 512;
    s.block_rows = 64;
    return s;
}

std::vector<BandBlock> all_blocks(BandDetector& detector, const Samples& x, std::size_t chunk) {
    std::vector<BandBlock> blocks;
    for (std::size_t at = 0; at < x.size(); at += chunk) {
        for (BandBlock& block : detector.push(x.data() + at, std::min(chunk, x.size() - at))) {
            blocks.push_back(std::move(block));
        }
    }
    if (auto last = detector.flush()) {
        blocks.push_back(std::move(*last));
    }
    return blocks;
}

void add_tone(Samples& x, std::size_t from, std::size_t to, double turns, float amplitude) {
    for (std::size_t i = from; i < to; i++) {
        const double phase = 2.0 * M_PI * turns * static_cast<double>(i);
        x[i] += amplitude *
                std::complex<float>(static_cast<float>(std::cos(phase)), static_cast<float>(std::sin(phase)));
    }
}

void a_burst_is_one_piece_at_its_place() {
    Samples x = complex_noise(512 * 130, 1);
    add_tone(x, 512 * 20, 512 * 30, 100.0 / 512.0, 1.0f);
    BandDetector detector(settings());
    const auto blocks = all_blocks(detector, x, x.size());
    std::size_t found = 0;
    for (const BandBlock& block : blocks) {
        found += block.pieces.size();
    }
    REQUIRE(found == 1);
    const BandPiece& piece = blocks[0].pieces[0];
    REQUIRE(piece.row_first >= 18 && piece.row_first <= 20 && piece.row_stop >= 30 && piece.row_stop <= 32);
    REQUIRE(piece.bin_low <= 356 && piece.bin_stop > 356 && piece.bin_stop - piece.bin_low < 16);
    REQUIRE(piece.spectrum.size() == piece.bin_stop - piece.bin_low);
}

void the_floor_is_the_noise() {
    const Samples x = complex_noise(512 * 130, 2);
    BandDetector detector(settings());
    for (const BandBlock& block : all_blocks(detector, x, 4096)) {
        if (block.row_power.size() == 64) {
            for (const float floor : block.floor) {
                REQUIRE(std::abs(10.0 * std::log10(floor * 512.0 / 2.0)) <
                        0.6); // noise of power 2 in 512 bins
            }
        }
        REQUIRE(block.pieces.empty());
    }
}

void chunks_do_not_matter() {
    Samples x = complex_noise(512 * 150 + 77, 3);
    add_tone(x, 5000, 30000, -0.3, 0.5f);
    x[1234] = {NAN, 0.0f};
    BandDetector detector(settings());
    const auto whole = all_blocks(detector, x, x.size());
    for (const std::size_t chunk : {1, 511, 512, 513, 10000}) {
        const auto cut = all_blocks(detector, x, chunk); // after a flush it is as new
        REQUIRE(cut.size() == whole.size());
        for (std::size_t b = 0; b < cut.size(); b++) {
            REQUIRE(cut[b].floor == whole[b].floor && cut[b].mean == whole[b].mean);
            REQUIRE(cut[b].n_nonfinite == whole[b].n_nonfinite && cut[b].first_row == whole[b].first_row);
            REQUIRE(cut[b].pieces.size() == whole[b].pieces.size());
            for (std::size_t p = 0; p < cut[b].pieces.size(); p++) {
                REQUIRE(cut[b].pieces[p].spectrum == whole[b].pieces[p].spectrum);
                REQUIRE(cut[b].pieces[p].row_first == whole[b].pieces[p].row_first);
            }
        }
    }
    REQUIRE(whole[0].n_nonfinite == 1);
}

void silence_and_few_rows_do_no_harm() {
    const Samples silence(512 * 3, {0.0f, 0.0f});
    BandDetector detector(settings());
    const auto blocks = all_blocks(detector, silence, 100);
    REQUIRE(blocks.size() == 1 && blocks[0].pieces.empty() && blocks[0].row_power.size() == 2);
    REQUIRE(!detector.flush());
}

void wrong_settings_are_named() {
    for (const auto& [change, field] : std::vector<std::pair<void (*)(BandSettings&), std::string>>{
             {[](BandSettings& s) { s.fft_size = 500; }, "fft_size"},
             {[](BandSettings& s) { s.block_rows = 7; }, "block_rows"},
             {[](BandSettings& s) { s.false_rate = 0.0; }, "false_rate"},
             {[](BandSettings& s) { s.grow_rate = 0.6; }, "grow_rate"},
             {[](BandSettings& s) { s.opening = 0.0; }, "opening"},
             {[](BandSettings& s) { s.floor_db = NAN; }, "floor_db"}}) {
        BandSettings s = settings();
        change(s);
        try {
            BandDetector detector(s);
            REQUIRE(false);
        } catch (const std::invalid_argument& error) {
            REQUIRE(std::string(error.what()).find(field) == 0);
        }
    }
}

void the_noise_is_known() {
    REQUIRE(std::abs(normal_quantile(0.5)) < 1e-9);
    REQUIRE(std::abs(normal_quantile(0.975) - 1.959964) < 1e-5);
    REQUIRE(std::abs(normal_quantile(1e-9) + 5.997807) < 1e-5);
    REQUIRE(std::abs(noise_quantile(10.0, 1.959964) - 20.48 / 10.0) < 0.01); // of a chi-square table
    REQUIRE(std::abs(noise_freedom(1, 1) - 4.0 / (1.0 + 1.0 / 36.0)) < 1e-9);
}

} // namespace

int main() {
    the_noise_is_known();
    a_burst_is_one_piece_at_its_place();
    the_floor_is_the_noise();
    chunks_do_not_matter();
    silence_and_few_rows_do_no_harm();
    wrong_settings_are_named();
    return 0;
}
