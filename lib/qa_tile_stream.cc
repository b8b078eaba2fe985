// SPDX-License-Identifier: GPL-3.0-or-later
// TileStream: positions, times, retunes and gaps, the same tiles for any chunking, and accounts that close.
#include "qa.h"
#include <gnuradio/wavesfm/tile_stream.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

using namespace wavesfm;

namespace {

// A tile of 512 samples, a partial one from 128.
TilerSettings settings() {
    return {32, 32, "hann", 2, 8, 2, -160.0, 16, 16, "median", -20.0, 60.0, 0.5, 0.25, false};
}

bool closes(const TileStream& stream, std::uint64_t covered) {
    const auto a = stream.accounts();
    return a.samples_in == covered + a.skipped_retune + a.skipped_gap + a.skipped_silence + a.skipped_end +
                               a.samples_silent_cut + a.samples_pending;
}

bool near(double a, double b) {
    return std::abs(a - b) < 1e-9;
}

void positions_and_times() {
    TileStream stream(settings(), 1000.0, 868e6, StreamTime{100, 0.75}, 5000);
    const auto samples = complex_noise(1200, 1);
    auto tiles = stream.push(samples.data(), samples.size(), 7.5);
    REQUIRE(tiles.size() == 2 && tiles[1].cells.start_sample == 5512 && !tiles[1].cells.partial);
    REQUIRE(tiles[1].time->full_s == 101 && near(tiles[1].time->frac_s, 0.262));
    REQUIRE(*tiles[1].arrived_s == 7.5 && *tiles[1].centre_hz == 868e6 && tiles[1].rate_hz == 1000.0);
    tiles = stream.finish();
    REQUIRE(tiles.size() == 1 && tiles[0].cells.partial && tiles[0].cells.n_samples == 160);
    REQUIRE(closes(stream, 1184) && stream.accounts().skipped_end == 16 &&
            stream.accounts().partial_tiles == 1);
}

void any_chunking() {
    const auto samples = complex_noise(3000, 2);
    TileStream whole(settings(), 1000.0), chunked(settings(), 1000.0);
    const auto expected = whole.push(samples.data(), samples.size());
    std::vector<Tile> tiles;
    for (std::size_t at = 0, step = 1; at < samples.size(); at += step, step = step * 7 % 97 + 1) {
        const auto n = std::min(step, samples.size() - at);
        for (auto& tile : chunked.push(samples.data() + at, n)) {
            tiles.push_back(std::move(tile));
        }
        step = n;
    }
    REQUIRE(tiles.size() == expected.size() && tiles.size() == 5);
    for (std::size_t i = 0; i < tiles.size(); i++) {
        REQUIRE(tiles[i].cells.data == expected[i].cells.data &&
                tiles[i].cells.start_sample == expected[i].cells.start_sample);
    }
}

void retunes() {
    TileStream stream(settings(), 1000.0, 1e6, StreamTime{0, 0.0});
    const auto samples = complex_noise(2000, 3);
    REQUIRE(stream.retune(1000.0000001, 1e6, std::nullopt).empty()); // the same
    stream.push(samples.data(), 700);
    const auto ended = stream.retune(std::nullopt, 2e6, std::nullopt);
    REQUIRE(ended.size() == 1 && ended[0].cells.n_samples == 160 && *ended[0].centre_hz == 1e6);
    const auto next = stream.push(samples.data() + 700, 600);
    REQUIRE(next.size() == 1 && next[0].cells.start_sample == 700 && *next[0].centre_hz == 2e6);
    REQUIRE(stream.accounts().retunes == 1 && stream.accounts().skipped_retune == 28 &&
            closes(stream, 512 + 160 + 512));
    REQUIRE(stream.rate_hz() == 1000.0);
    bool thrown = false;
    try {
        stream.retune(-1.0, std::nullopt, std::nullopt);
    } catch (const std::invalid_argument& error) {
        thrown = std::string(error.what()).find("rate_hz") == 0;
    }
    REQUIRE(thrown && stream.rate_hz() == 1000.0);
}

void gaps() {
    TileStream stream(settings(), 1e6, std::nullopt, StreamTime{5, 0.0});
    const auto samples = complex_noise(4000, 4);
    stream.push(samples.data(), 1000);
    REQUIRE(stream.retune(std::nullopt, std::nullopt, StreamTime{5, 0.001000001}).empty()); // jitter of 1 us
    REQUIRE(stream.accounts().gaps == 0);
    stream.push(samples.data(), 1000);
    const auto ended = stream.retune(std::nullopt, std::nullopt, StreamTime{5, 0.003});
    REQUIRE(ended.size() == 1 && stream.accounts().gaps == 1);
    REQUIRE(stream.accounts().samples_lost > 990 && stream.accounts().samples_lost < 1010);
    stream.push(samples.data(), 100);
    REQUIRE(stream.gap().empty() && stream.accounts().gaps == 2 && stream.accounts().samples_pending == 0);
}

void a_clock_learns_the_drift() {
    SampleClock clock(1e6, StreamTime{0, 0.0}, 0, std::nullopt);
    for (std::int64_t second = 1; second <= 60; second++) { // 5 us a second
        REQUIRE(*clock.jump_s(StreamTime{0, 0.0}.advanced(static_cast<double>(second) * (1 + 5e-6)),
                              second * 1000000) == 0.0);
    }
    REQUIRE(std::abs(clock.time_of(61000000)->seconds_after({61, 305e-6})) < 1e-6);
    REQUIRE(*clock.jump_s({61, 605e-6}, 61000000) > 290e-6); // 300 samples
}

} // namespace

int main() {
    positions_and_times();
    any_chunking();
    retunes();
    gaps();
    a_clock_learns_the_drift();
    return 0;
}
