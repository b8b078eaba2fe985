// SPDX-License-Identifier: GPL-3.0-or-later
#include "qa.h"
#include <gnuradio/wavesfm/zoom.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

using namespace wavesfm;

namespace {

using Samples = std::vector<std::complex<float>>;

Samples tone(std::size_t n, double turns) {
    Samples x(n);
    for (std::size_t i = 0; i < n; i++) {
        const double phase = 2.0 * M_PI * turns * static_cast<double>(i);
        x[i] = {static_cast<float>(std::cos(phase)), static_cast<float>(std::sin(phase))};
    }
    return x;
}

std::vector<Samples> zoomed(Zoom& zoom, const Samples& x, std::size_t chunk) {
    std::vector<Samples> out(zoom.n_channels());
    for (std::size_t at = 0; at < x.size(); at += chunk) {
        zoom.push(x.data() + at, std::min(chunk, x.size() - at), out);
    }
    zoom.finish(out);
    return out;
}

void a_tone_keeps_its_phase_and_power() {
    const double offset = 20.3; // bins from the middle of the view
    Zoom zoom(4096, {{-700, 256}});
    const auto out = zoomed(zoom, tone(50000, (-700.0 + offset) / 4096.0), 999)[0];
    REQUIRE(out.size() == 3125);
    for (std::size_t m = 64; m + 64 < out.size(); m++) {
        const double phase = 2.0 * M_PI * offset / 256.0 * static_cast<double>(m);
        REQUIRE(std::abs(out[m] - std::complex<float>(std::polar(1.0, phase))) < 1e-3f);
    }
}

void what_lies_outside_does_not_come_back() {
    Zoom zoom(4096, {{0, 128}});
    for (const double bin : {65.0, 100.0, 128.0, 200.0, -90.5, 2000.0}) {
        const auto out = zoomed(zoom, tone(40000, bin / 4096.0), 40000)[0];
        for (std::size_t m = 64; m + 64 < out.size(); m++) {
            REQUIRE(20.0 * std::log10(std::abs(out[m]) + 1e-9) < -60.0);
        }
    }
}

void chunks_and_company_do_not_matter() {
    const Samples x = complex_noise(30000, 4);
    Zoom alone(4096, {{5, 136}}), both(4096, {{-1000, 1024}, {5, 136}});
    const auto whole = zoomed(alone, x, x.size())[0];
    for (const std::size_t chunk : {1000, 4096, 29999}) {
        REQUIRE(zoomed(alone, x, chunk)[0] == whole);
        REQUIRE(zoomed(both, x, chunk)[1] == whole);
    }
}

void nothing_gives_nothing() {
    Zoom zoom(1024, {{0, 128}});
    REQUIRE(zoomed(zoom, {}, 1)[0].empty());
    REQUIRE(zoomed(zoom, Samples(3), 1)[0].size() == 1);
}

void wrong_channels_are_named() {
    for (const ZoomChannel& channel :
         {ZoomChannel{0, 100}, ZoomChannel{0, 120}, ZoomChannel{0, 8192}, ZoomChannel{2048, 128}}) {
        try {
            Zoom zoom(4096, {channel});
            REQUIRE(false);
        } catch (const std::invalid_argument&) {
        }
    }
}

} // namespace

int main() {
    a_tone_keeps_its_phase_and_power();
    what_lies_outside_does_not_come_back();
    chunks_and_company_do_not_matter();
    nothing_gives_nothing();
    wrong_channels_are_named();
    return 0;
}
