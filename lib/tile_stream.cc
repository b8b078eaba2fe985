// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/tile_stream.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace wavesfm {

namespace {

constexpr double same_relative =
    1e-6; // difference up to which two rates or two centre frequencies are the same

bool same(double a, double b) {
    return std::abs(a - b) <= same_relative * std::max(std::abs(a), std::abs(b));
}

double checked_rate(double rate_hz) {
    if (!(std::isfinite(rate_hz) && rate_hz >= 0.0)) {
        throw std::invalid_argument("rate_hz: found " + std::to_string(rate_hz) +
                                    ", expected a sample rate in Hz, or 0 when unknown");
    }
    return rate_hz;
}

} // namespace

TileStream::TileStream(const TilerSettings& settings, double rate_hz, std::optional<double> centre_hz,
                       std::optional<StreamTime> time, std::int64_t start_sample,
                       std::optional<double> tolerance_s)
    : first_sample_(start_sample), tiler_(settings),
      clock_(checked_rate(rate_hz), time, start_sample, tolerance_s), centre_hz_(centre_hz),
      segment_start_(start_sample), covered_to_(start_sample) {}

std::vector<Tile> TileStream::push(const std::complex<float>* samples, std::size_t n,
                                   std::optional<double> arrived_s) {
    accounts_.samples_in += n;
    arrived_s_ = arrived_s;
    std::vector<Tile> tiles;
    for (auto& cells : tiler_.push(samples, n)) {
        tiles.push_back(placed(std::move(cells)));
    }
    return tiles;
}

std::vector<Tile> TileStream::retune(std::optional<double> rate_hz, std::optional<double> centre_hz,
                                     std::optional<StreamTime> time) {
    if (rate_hz && same(checked_rate(*rate_hz), clock_.rate_hz())) {
        rate_hz.reset();
    }
    if (centre_hz && centre_hz_ && same(*centre_hz, *centre_hz_)) {
        centre_hz.reset();
    }
    const bool retuned = rate_hz || centre_hz;
    const std::optional<double> jump_s = time ? clock_.jump_s(*time, position()) : 0.0;
    const bool follows = jump_s && *jump_s == 0.0;
    if (!retuned && follows) {
        return {};
    }
    auto tiles = end_tile(retuned ? &StreamAccounts::skipped_retune : &StreamAccounts::skipped_gap);
    accounts_.retunes += retuned && accounts_.samples_in > 0; // the first tags of a stream are no retune
    if (jump_s && !follows) {
        accounts_.gaps++;
        accounts_.samples_lost +=
            static_cast<std::uint64_t>(std::max(0.0, std::nearbyint(*jump_s * clock_.rate_hz())));
    }
    if (rate_hz) {
        clock_.set_rate(*rate_hz, position());
    }
    if (!follows) {
        clock_.set_time(time, position());
    }
    if (centre_hz) {
        centre_hz_ = centre_hz;
    }
    return tiles;
}

std::vector<Tile> TileStream::gap() {
    accounts_.gaps++;
    return end_tile(&StreamAccounts::skipped_gap);
}

std::vector<Tile> TileStream::finish() {
    return end_tile(&StreamAccounts::skipped_end);
}

StreamAccounts TileStream::accounts() const {
    StreamAccounts accounts = accounts_;
    const auto counts = tiler_.counts();
    accounts.samples_silent = counts.silent;
    accounts.samples_silent_cut = counts.silent_cut;
    accounts.skipped_silence = counts.discarded;
    accounts.samples_nonfinite = counts.nonfinite;
    const std::uint64_t skipped =
        accounts.skipped_retune + accounts.skipped_gap + accounts.skipped_silence + accounts.skipped_end;
    accounts.samples_pending = accounts.samples_in - covered_ - skipped - accounts.samples_silent_cut;
    return accounts;
}

std::vector<Tile> TileStream::end_tile(std::uint64_t StreamAccounts::* reason) {
    std::vector<Tile> tiles;
    if (auto cells = tiler_.flush()) {
        tiles.push_back(placed(std::move(*cells)));
    }
    accounts_.*reason += accounts().samples_pending;
    segment_start_ = covered_to_ = position();
    return tiles;
}

//! The tile at its place, counted.
Tile TileStream::placed(TilerOutput&& cells) {
    const std::int64_t start = segment_start_ + static_cast<std::int64_t>(cells.start_sample);
    const std::int64_t end = start + static_cast<std::int64_t>(cells.n_samples);
    covered_ += static_cast<std::uint64_t>(
        end - std::max(start, covered_to_)); // overlapping frames, overlapping tiles
    covered_to_ = end;
    accounts_.tiles++;
    accounts_.partial_tiles += cells.partial;
    cells.start_sample = static_cast<std::uint64_t>(start);
    return {std::move(cells), clock_.rate_hz(), centre_hz_, clock_.time_of(start), arrived_s_};
}

} // namespace wavesfm
