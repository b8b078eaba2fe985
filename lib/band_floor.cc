// SPDX-License-Identifier: GPL-3.0-or-later
// The floor of a block: low over time, smooth and open over frequency.
#include <gnuradio/wavesfm/band_detector.h>

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>

namespace wavesfm {

namespace {

// Centred mean over `width` values, at the ends over what there is.
std::vector<double> smoothed(const std::vector<double>& x, std::size_t width) {
    const std::size_t n = x.size(), left = width / 2, right = width - left;
    std::vector<double> sums(n + 1, 0.0), out(n);
    for (std::size_t i = 0; i < n; i++) {
        sums[i + 1] = sums[i] + x[i];
    }
    for (std::size_t i = 0; i < n; i++) {
        const std::size_t low = i > left ? i - left : 0, high = std::min(n, i + right);
        out[i] = (sums[high] - sums[low]) / static_cast<double>(high - low);
    }
    return out;
}

// Running minimum (sign 1) or maximum (sign -1) over i - half to i + half.
std::vector<double> extreme(const std::vector<double>& x, std::size_t half, double sign) {
    const std::size_t n = x.size();
    std::vector<double> out(n);
    std::deque<std::size_t> kept; // positions whose values rise (times sign)
    std::size_t next = 0;
    for (std::size_t i = 0; i < n; i++) {
        for (; next < std::min(n, i + half + 1); next++) {
            while (!kept.empty() && sign * x[kept.back()] >= sign * x[next]) {
                kept.pop_back();
            }
            kept.push_back(next);
        }
        while (kept.front() + half < i) {
            kept.pop_front();
        }
        out[i] = x[kept.front()];
    }
    return out;
}

double mean_of(const std::vector<double>& x, std::ptrdiff_t low, std::ptrdiff_t high) {
    double sum = 0.0;
    for (std::ptrdiff_t i = low; i < high; i++) {
        sum += x[static_cast<std::size_t>(i)];
    }
    return sum / static_cast<double>(high - low);
}

constexpr double contrast = 2.5; // 4 dB: of a wide signal over the floor beside it

// The floor beside position `at`, looking outwards (-1: below it, 1: above it), if a signal ends there
// sharply: a step between two plateaus, away from the band's ends, where receivers roll off. Else 0.
double beside_edge(const std::vector<double>& x, std::ptrdiff_t at, std::ptrdiff_t outwards) {
    const auto n = static_cast<std::ptrdiff_t>(x.size());
    const auto share = [&](double part) {
        return std::max<std::ptrdiff_t>(1, static_cast<std::ptrdiff_t>(part * static_cast<double>(n)));
    };
    const std::ptrdiff_t near = share(0.015), middle = near + share(0.0125), far = middle + share(0.0125);
    if (std::min(at, n - at) < std::max(far, share(0.05))) {
        return 0.0;
    }
    const auto level = [&](std::ptrdiff_t from, std::ptrdiff_t to, std::ptrdiff_t way) {
        return way > 0 ? mean_of(x, at + from, at + to) : mean_of(x, at - to, at - from);
    };
    const double outer = level(middle, far, outwards), inner = level(near, middle, outwards);
    const double first = level(near, middle, -outwards), second = level(middle, far, -outwards);
    const bool flat = std::max(outer, inner) < 1.4 * std::min(outer, inner) &&
                      std::max(first, second) < 1.6 * std::min(first, second);
    return flat && first > contrast * inner ? (outer + inner) / 2.0 : 0.0;
}

// Lowers `opened` under signals that are wider than the opening but end sharply on both sides, or on one with
// the other beyond the band.
void lower_under_wide(const std::vector<double>& smooth, const std::vector<double>& deep,
                      double lowest_of_noise, std::vector<double>& opened) {
    const std::size_t n = smooth.size();
    for (std::size_t low = 0; low < n;) {
        if (!(opened[low] > contrast * deep[low])) {
            low++;
            continue;
        }
        std::size_t stop = low;
        while (stop < n && opened[stop] > contrast * deep[stop]) {
            stop++;
        }
        const double left = low == 0 ? 0.0 : beside_edge(smooth, static_cast<std::ptrdiff_t>(low), -1);
        const double right = stop == n ? 0.0 : beside_edge(smooth, static_cast<std::ptrdiff_t>(stop), 1);
        if ((low == 0 || left > 0.0) && (stop == n || right > 0.0) && left + right > 0.0) {
            const double a = std::log(left > 0.0 ? left : right), b = std::log(right > 0.0 ? right : left);
            for (std::size_t i = low; i < stop; i++) {
                const double part = (static_cast<double>(i - low) + 0.5) / static_cast<double>(stop - low);
                opened[i] = std::exp(a + (b - a) * part) * lowest_of_noise;
            }
        }
        low = stop;
    }
}

} // namespace

std::vector<float> BandDetector::floor(std::size_t rows) {
    const std::size_t n = settings_.fft_size, each = std::min<std::size_t>(8, rows),
                      count = std::max<std::size_t>(1, rows / 8),
                      rank = std::max<std::size_t>(1, (3 * count + 8) / 16);
    AlignedFloats lowest(rank * n, std::numeric_limits<float>::infinity()), group(n);
    for (std::size_t g = 0; g < count; g++) {
        std::fill(group.begin(), group.end(), 0.0f);
        for (std::size_t t = 0; t < each; t++) {
            cells_.add(row(g * each + t), group.data(), n);
        }
        cells_.keep_lowest(group.data(), lowest.data(), rank, n);
    }
    const double one = noise_freedom(each, 1);
    const double blom = (static_cast<double>(rank) - 0.375) / (static_cast<double>(count) + 0.25);
    const double scale = 1.0 / (noise_quantile(one, normal_quantile(blom)) * static_cast<double>(each));
    std::vector<double> low(n);
    for (std::size_t i = 0; i < n; i++) {
        low[i] = static_cast<double>(lowest[(rank - 1) * n + i]) * scale;
    }
    const std::size_t width = std::max<std::size_t>(4, n / 256);
    const double freedom = noise_freedom(each, width);
    const double lowest_of_noise = noise_quantile(freedom, -2.5); // what an opening leaves of it
    const double clip = (1.0 + 1.5 * std::sqrt(2.0 / freedom)) / lowest_of_noise;
    std::vector<double> smooth = smoothed(low, width);
    const auto half = static_cast<std::size_t>(settings_.opening * static_cast<double>(n)) / 2;
    const std::size_t most = n * 17 / 40; // 0.85 of the band
    std::vector<double> opened = extreme(extreme(smooth, half, 1.0), half, -1.0);
    lower_under_wide(smooth, extreme(extreme(smooth, most, 1.0), most, -1.0), lowest_of_noise, opened);
    for (std::size_t i = 0; i < n; i++) {
        smooth[i] = smooth[i] < clip * opened[i] ? smooth[i] : opened[i] / lowest_of_noise;
    }
    const double least = std::pow(10.0, settings_.floor_db / 10.0);
    const std::vector<double> means = smoothed(smooth, 4 * width);
    std::vector<float> floor(n);
    for (std::size_t i = 0; i < n; i++) {
        floor[i] = static_cast<float>(std::max(means[i], least));
    }
    return floor;
}

// Of every row whose power is not that of noise: how far the quietest bins lie over the floor. A signal that
// leaves 5 % of the band free does not raise them, a step of the receiver's gain does.
void BandDetector::follow_gain(std::size_t rows, const std::vector<float>& row_power) {
    constexpr std::size_t stride = 16, least_rows = 16; // shorter ones may be bursts that fill the band
    constexpr double share = 0.05, quiet = 0.5, step = 1.7, least = 1e-4;
    const std::size_t n = settings_.fft_size, each = n >= 64 * stride ? stride : 1;
    const double expected = noise_quantile(noise_freedom(1, 1), normal_quantile(share));
    std::vector<float> bins(n / each);
    std::vector<double> gain(rows, 1.0);
    for (std::size_t t = 0; t < rows; t++) {
        if (std::abs(row_power[t] / static_cast<double>(n) - 1.0) < quiet) {
            continue;
        }
        for (std::size_t i = 0; i < bins.size(); i++) {
            bins[i] = row(t)[i * each];
        }
        const auto place =
            bins.begin() + static_cast<std::ptrdiff_t>(share * static_cast<double>(bins.size()));
        std::nth_element(bins.begin(), place, bins.end());
        gain[t] = static_cast<double>(*place) / expected;
    }
    const auto changed = [&](std::size_t t) {
        return gain[t] > least && (gain[t] > step || gain[t] < 1.0 / step);
    };
    for (std::size_t first = 0; first < rows; first++) {
        std::size_t stop = first;
        while (stop < rows && changed(stop)) {
            stop++;
        }
        if (stop - first >= least_rows) {
            std::vector<double> run(gain.begin() + static_cast<std::ptrdiff_t>(first),
                                    gain.begin() + static_cast<std::ptrdiff_t>(stop));
            const auto middle = run.begin() + static_cast<std::ptrdiff_t>(run.size() / 2);
            std::nth_element(run.begin(), middle, run.end());
            const auto factor = static_cast<float>(1.0 / *middle);
            for (std::size_t t = first; t < stop; t++) {
                for (std::size_t i = 0; i < n; i++) {
                    row(t)[i] *= factor;
                }
            }
        }
        first = std::max(first, stop);
    }
}

} // namespace wavesfm
