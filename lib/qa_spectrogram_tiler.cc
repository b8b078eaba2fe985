// SPDX-License-Identifier: GPL-3.0-or-later
// The streaming side: positions, partial tiles, chunking and all instruction sets. What the values must be is
// tested against the numpy oracle in tests/parity.
#include "qa.h"
#include <gnuradio/wavesfm/spectrogram_tiler.h>

#include <cmath>
#include <cstring>
#include <random>
#include <stdexcept>
#include <thread>

using namespace wavesfm;
using Samples = std::vector<std::complex<float>>;

namespace {

const TilerSettings settings{64, 48, "hann", 2, 16, 3, -160.0, 20, 28, "median", -20.0, 60.0, 0.25, 0.1};

Samples noise(std::size_t n) {
    std::mt19937 generator(7);
    std::normal_distribution<float> normal;
    Samples x(n);
    for (auto& v : x) {
        v = {normal(generator), normal(generator)};
    }
    return x;
}

std::vector<TilerOutput> run(const Samples& x, std::size_t chunk, const HotLoops& loops) {
    SpectrogramTiler tiler(settings, loops);
    std::vector<TilerOutput> tiles;
    for (std::size_t at = 0; at < x.size(); at += chunk) {
        for (auto& tile : tiler.push(x.data() + at, std::min(chunk, x.size() - at))) {
            tiles.push_back(std::move(tile));
        }
    }
    if (auto last = tiler.flush()) {
        tiles.push_back(std::move(*last));
    }
    REQUIRE(tiler.pending_samples() == 0);
    return tiles;
}

void check_same_bits(const std::vector<TilerOutput>& a, const std::vector<TilerOutput>& b) {
    REQUIRE(a.size() == b.size());
    for (std::size_t i = 0; i < a.size(); i++) {
        REQUIRE(a[i].start_sample == b[i].start_sample && a[i].n_samples == b[i].n_samples);
        REQUIRE(a[i].partial == b[i].partial && a[i].floor_db == b[i].floor_db &&
                a[i].peak_db == b[i].peak_db && a[i].n_gap_samples == b[i].n_gap_samples);
        REQUIRE(std::memcmp(a[i].data.data(), b[i].data.data(), a[i].data.size() * sizeof(float)) == 0);
    }
}

void check_positions() {
    const std::size_t stride = 32 * 48, tile = stride + 16;
    const auto tiles = run(noise(stride + tile + 400), 1000, hot_loops());
    REQUIRE(tiles.size() == 3);
    REQUIRE(tiles[0].start_sample == 0 && tiles[0].n_samples == tile && !tiles[0].partial);
    REQUIRE(tiles[1].start_sample == stride && !tiles[1].partial);
    REQUIRE(tiles[2].start_sample == 2 * stride && tiles[2].n_samples == 7 * 48 + 64 && tiles[2].partial);
    for (const auto& made : tiles) {
        REQUIRE(made.data.size() == 20 * 28);
        REQUIRE(made.peak_db > made.floor_db && std::abs(made.floor_db - 10 * std::log10(2.0 / 64)) < 3.0);
    }
}

// Gaps of every length, and the mean removed: the same bits for any chunking, and no sample unaccounted for.
void check_gaps_and_mean(const HotLoops& loops) {
    Samples x = noise(20000);
    for (const auto& [first, length] :
         {std::pair{0, 100}, {900, 15}, {2000, 90}, {5000, 700}, {9000, 3000}}) {
        std::fill_n(x.begin() + first, length, 0.0f);
    }
    for (const bool remove_dc : {false, true}) {
        auto with = settings;
        with.remove_dc = remove_dc;
        const auto cut = [&](std::size_t chunk) {
            SpectrogramTiler tiler(with, loops);
            std::vector<TilerOutput> tiles;
            for (std::size_t at = 0; at < x.size(); at += chunk) {
                for (auto& tile : tiler.push(x.data() + at, std::min(chunk, x.size() - at))) {
                    tiles.push_back(std::move(tile));
                }
            }
            std::uint64_t covered = 0, end = 0;
            for (const auto& tile : tiles) {
                covered += tile.start_sample + tile.n_samples - std::max(end, tile.start_sample);
                end = tile.start_sample + tile.n_samples;
            }
            const auto& counts = tiler.counts();
            REQUIRE(counts.silent > 3500 && counts.silent_cut > 2900 && counts.silent_cut < counts.silent);
            REQUIRE(covered + counts.silent_cut + counts.discarded <= x.size());
            return tiles;
        };
        const auto whole = cut(x.size());
        REQUIRE(whole.size() > 5);
        for (const std::size_t chunk : {1, 17, 64, 777}) {
            check_same_bits(whole, cut(chunk));
        }
    }
}

void check_refusal() {
    auto wrong = settings;
    wrong.hop_samples = 65;
    try {
        SpectrogramTiler tiler(wrong);
    } catch (const std::invalid_argument& error) {
        REQUIRE(std::string(error.what()) == "hop_samples: expected 1 to fft_size");
        return;
    }
    REQUIRE(false);
}

} // namespace

int main() {
    check_positions();
    check_refusal();
    const Samples x = noise(20000);
    const auto reference = run(x, x.size(), hot_loops());
    for (const HotLoops* loops : available_hot_loops()) {
        check_gaps_and_mean(*loops);
        const auto whole = run(x, x.size(), *loops);
        for (const std::size_t chunk : {1, 17, 48, 64, 65, 4096}) {
            check_same_bits(whole, run(x, chunk, *loops));
        }
        REQUIRE(whole.size() == reference.size());
        for (std::size_t i = 0; i < whole.size(); i++) {
            for (std::size_t j = 0; j < whole[i].data.size(); j++) {
                REQUIRE(std::abs(whole[i].data[j] - reference[i].data[j]) < 1e-3f);
            }
        }
    }
    // Plans are shared and tilers are not: streams in different threads do not disturb each other.
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; i++) {
        threads.emplace_back([&] { check_same_bits(reference, run(x, 777, hot_loops())); });
    }
    for (auto& thread : threads) {
        thread.join();
    }
}
