// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/resize.h>

#include <algorithm>
#include <cmath>

namespace wavesfm {

namespace {

double cubic(double x) {
    constexpr double a = -0.5;
    x = std::abs(x);
    if (x < 1.0) {
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    }
    return x < 2.0 ? (((x - 5.0) * x + 8.0) * x - 4.0) * a : 0.0;
}

} // namespace

ResizeMatrix::ResizeMatrix(std::size_t n_in, std::size_t n_out)
    : n_in(n_in), n_out(n_out), taps(0), first(n_out), count(n_out) {
    const double ratio = static_cast<double>(n_in) / static_cast<double>(n_out);
    const double stretch = std::max(ratio, 1.0); // antialias only when shrinking
    const double support = 2.0 * stretch;
    for (std::size_t o = 0; o < n_out; o++) {
        const double centre = (static_cast<double>(o) + 0.5) * ratio;
        const double from = std::max(std::floor(centre - support + 0.5), 0.0);
        const double to = std::min(std::floor(centre + support + 0.5), static_cast<double>(n_in));
        first[o] = static_cast<std::uint32_t>(from);
        count[o] = static_cast<std::uint32_t>(to - from);
        taps = std::max<std::size_t>(taps, count[o]);
    }
    taps = (taps + 7) / 8 * 8;
    weights.assign(n_out * taps, 0.0f);
    std::vector<double> row(taps);
    for (std::size_t o = 0; o < n_out; o++) {
        const double centre = (static_cast<double>(o) + 0.5) * ratio;
        double sum = 0.0;
        for (std::size_t t = 0; t < count[o]; t++) {
            row[t] = cubic((static_cast<double>(first[o] + t) + 0.5 - centre) / stretch);
            sum += row[t];
        }
        for (std::size_t t = 0; t < count[o]; t++) {
            weights[o * taps + t] = static_cast<float>(row[t] / sum);
        }
    }
}

void resize_image(const float* in, std::size_t channels, std::size_t n_rows, std::size_t n_columns,
                  std::size_t height, std::size_t width, float* out, const HotLoops& loops) {
    const ResizeMatrix across(n_columns, width), down(n_rows, height);
    AlignedFloats row(n_columns + across.taps); // banded_dots reads on, with weight zero
    AlignedFloats rows(n_rows * width);
    for (std::size_t c = 0; c < channels; c++, out += height * width) {
        for (std::size_t y = 0; y < n_rows; y++, in += n_columns) {
            std::copy(in, in + n_columns, row.begin());
            loops.banded_dots(row.data(), across.first.data(), across.weights.data(), across.taps,
                              rows.data() + y * width, width);
        }
        for (std::size_t y = 0; y < height; y++) {
            loops.weighted_rows(rows.data() + down.first[y] * width, down.weights.data() + y * down.taps,
                                down.count[y], width, out + y * width);
        }
    }
}

} // namespace wavesfm
