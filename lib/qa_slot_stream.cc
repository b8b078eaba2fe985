// SPDX-License-Identifier: GPL-3.0-or-later
// Slots are the same for any chunking, and the accounts close; tests/parity compares the stream with its
// oracle.
#include "qa.h"

#include <gnuradio/wavesfm/ofdm_demodulator.h>
#include <gnuradio/wavesfm/slot_stream.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

using namespace wavesfm;

namespace {

using Complex = std::complex<float>;

SlotLayout layout() {
    SlotLayout made{2, 32, {5, 3, 3, 3}, {}, 30e3, {0, 2}, {}, {}};
    for (std::int64_t k = -12; k < 12; k++) {
        made.frequencies.push_back(k);
        made.pilot_carriers.push_back(static_cast<std::size_t>(k + 12));
    }
    for (std::size_t i = 0; i < 48; i++) {
        made.pilots.push_back({i % 3 ? 0.70710678f : -0.70710678f, i % 5 ? 0.70710678f : -0.70710678f});
    }
    return made;
}

std::vector<std::vector<Complex>> streams(std::size_t n) {
    return {complex_noise(n, 1), complex_noise(n, 2)};
}

std::vector<Slot> cut(const std::vector<std::vector<Complex>>& samples, std::size_t chunk,
                      SlotStreamStatus& status) {
    SlotStream stream(layout(), {false, 0.0, StreamTime{7, 0.5}, 100, false});
    std::vector<Slot> slots;
    for (std::size_t at = 0; at < samples[0].size(); at += chunk) {
        std::vector<const Complex*> pointers;
        for (const auto& one : samples) {
            pointers.push_back(one.data() + at);
        }
        std::vector<std::uint64_t> marks;
        for (std::uint64_t mark = 177; mark < 1500; mark += 142) {
            if (mark >= 100 + at && mark < 100 + at + chunk) {
                marks.push_back(mark);
            }
        }
        stream.push(pointers, std::min(chunk, samples[0].size() - at), marks, 1.0, slots);
        status = stream.status();
        REQUIRE(status.samples_in == 142 * status.slots + status.samples_skipped + status.samples_pending);
    }
    stream.finish(slots);
    status = stream.status();
    return slots;
}

void any_chunking_gives_the_same_slots() {
    auto samples = streams(2000);
    samples[1][500] = {std::numeric_limits<float>::quiet_NaN(), 0.0f};
    SlotStreamStatus whole_status, status;
    const auto whole = cut(samples, samples[0].size(), whole_status);
    REQUIRE(whole.size() == 10 && whole_status.n_nonfinite == 1 && whole[0].start_sample == 177);
    for (const std::size_t chunk : {1, 7, 142, 999}) {
        const auto slots = cut(samples, chunk, status);
        REQUIRE(slots.size() == whole.size() && status.samples_skipped == whole_status.samples_skipped);
        for (std::size_t i = 0; i < slots.size(); i++) {
            REQUIRE(slots[i].start_sample == whole[i].start_sample);
            REQUIRE(slots[i].n_nonfinite == whole[i].n_nonfinite);
            REQUIRE(std::memcmp(slots[i].grid.data, whole[i].grid.data,
                                layout().grid_size() * sizeof(Complex)) == 0);
        }
    }
}

void a_grid_is_that_of_the_demodulator() {
    const auto samples = streams(500);
    SlotStreamStatus status;
    const auto slots = cut(samples, 500, status);
    const SlotLayout made = layout();
    const OFDMDemodulator demodulator(made.fft_size, made.prefix_samples, made.bins(), made.antennas);
    std::vector<Complex> both, grid(made.grid_size());
    for (const auto& one : samples) {
        both.insert(both.end(), one.begin() + 77, one.begin() + 77 + 142);
    }
    demodulator.demodulate(both.data(), grid.data());
    REQUIRE(std::memcmp(slots.at(0).grid.data, grid.data(), grid.size() * sizeof(Complex)) == 0);
}

void a_wrong_layout_is_refused() {
    SlotLayout wrong = layout();
    wrong.pilot_symbols = {0, 4};
    bool is_refused = false;
    try {
        SlotStream(wrong, {});
    } catch (const std::invalid_argument&) {
        is_refused = true;
    }
    REQUIRE(is_refused);
}

} // namespace

int main() {
    any_chunking_gives_the_same_slots();
    a_grid_is_that_of_the_demodulator();
    a_wrong_layout_is_refused();
    return 0;
}
