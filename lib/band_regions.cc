// SPDX-License-Identifier: GPL-3.0-or-later
// Cells that stand over the floor, and the connected regions of them.
#include <gnuradio/wavesfm/band_detector.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

namespace wavesfm {

namespace {

constexpr std::size_t near_rows = 3, near_bins = 2;     // that a region may pause for
constexpr std::uint32_t most_bins = 64, most_ratio = 8; // of the widths of two rows of one region
constexpr float stronger_depth = 20.0f; // 13 dB: of a valley, under the stronger signal beside it
constexpr double gap_share = 0.015;     // of a signal's width, that a valley between signals has
constexpr double margin = 1.06;         // 0.25 dB, for the floor's own error

// How deep a valley in the median of so many rows must be: 13 dB, and what chance may do (three sigma of
// either side).
float valley_depth(std::size_t rows) {
    const double sigma = std::sqrt(M_PI / noise_freedom(rows, 3)); // the median's
    return static_cast<float>(20.0 * (1.0 + 3.0 * sigma) / std::max(0.1, 1.0 - 3.0 * sigma));
}

struct Run {
    std::uint32_t row, low, stop, parent;
};

std::uint32_t root(std::vector<Run>& runs, std::uint32_t i) {
    while (runs[i].parent != i) {
        runs[i].parent = runs[runs[i].parent].parent;
        i = runs[i].parent;
    }
    return i;
}

// First position from `at` on whose byte is (or is not) zero.
std::size_t next_set(const std::uint8_t* bytes, std::size_t at, std::size_t n) {
    for (; at + 8 <= n; at += 8) {
        std::uint64_t word;
        std::memcpy(&word, bytes + at, 8);
        if (word) {
            break;
        }
    }
    while (at < n && !bytes[at]) {
        at++;
    }
    return at;
}

std::size_t next_clear(const std::uint8_t* bytes, std::size_t at, std::size_t n) {
    while (at < n && bytes[at]) {
        at++;
    }
    return at;
}

// A burst over much of the band is not one with what it crosses.
bool alike(const Run& a, const Run& b) {
    const std::uint32_t x = a.stop - a.low, y = b.stop - b.low;
    return std::max(x, y) <= std::max(most_bins, most_ratio * std::min(x, y));
}

// The runs of all rows, joined with those up to near_rows before and near_bins beside them.
std::vector<Run> runs_of(const std::uint8_t* mask, std::size_t rows, std::size_t n) {
    std::vector<Run> runs;
    std::size_t starts[near_rows + 1] =
        {}; // of the runs of the rows before, the nearest first; then their end
    for (std::size_t t = 0; t < rows; t++) {
        const std::size_t first = runs.size();
        const std::uint8_t* bytes = mask + t * n;
        std::size_t candidates[near_rows];
        std::copy(starts, starts + near_rows, candidates);
        for (std::size_t low = next_set(bytes, 0, n); low < n;) {
            const std::size_t stop = next_clear(bytes, low, n);
            const auto self = static_cast<std::uint32_t>(runs.size());
            runs.push_back({static_cast<std::uint32_t>(t), static_cast<std::uint32_t>(low),
                            static_cast<std::uint32_t>(stop), self});
            for (std::size_t back = 0; back < near_rows; back++) {
                const std::size_t end = back == 0 ? first : starts[back - 1];
                std::size_t& j = candidates[back];
                while (j < end && runs[j].stop + near_bins < low) {
                    j++;
                }
                for (std::size_t k = j; k < end && runs[k].low <= stop + near_bins; k++) {
                    if (!alike(runs[k], runs[self])) {
                        continue;
                    }
                    const std::uint32_t x = root(runs, static_cast<std::uint32_t>(k)), y = root(runs, self);
                    runs[std::max(x, y)].parent = std::min(x, y);
                }
            }
            if (self > first && runs[self - 1].stop + near_bins >= low) {
                const std::uint32_t x = root(runs, self - 1), y = root(runs, self);
                runs[std::max(x, y)].parent = std::min(x, y);
            }
            low = next_set(bytes, stop, n);
        }
        std::copy_backward(starts, starts + near_rows, starts + near_rows + 1);
        starts[0] = first;
    }
    return runs;
}

// Whether what is under `level` around bin i is wider than a gap in a signal (an OFDM signal's missing
// carrier).
bool is_wide(const float* x, float level, std::size_t low, std::size_t i, std::size_t stop) {
    std::size_t first = i, last = i + 1;
    while (first > low && x[first - 1] < level) {
        first--;
    }
    while (last < stop && x[last] < level) {
        last++;
    }
    const auto narrower = static_cast<double>(std::min(i - low, stop - i));
    return static_cast<double>(last - first) >= std::max(2.0, gap_share * narrower);
}

// Where a spectrum falls between two signals: 13 dB under the stronger and `depth` under the weaker; the
// deepest first.
void find_valleys(const float* x, float depth, std::size_t low, std::size_t stop,
                  std::vector<std::size_t>& valleys) {
    std::vector<std::pair<std::size_t, std::size_t>> spans{{low, stop}};
    std::vector<std::size_t> after; // where the highest after each bin lies
    while (!spans.empty()) {
        const auto [a, b] = spans.back();
        spans.pop_back();
        after.assign(b - a, b - 1);
        for (std::size_t i = b - 1; i-- > a;) {
            const std::size_t next = after[i + 1 - a];
            after[i - a] = x[i + 1] >= x[next] ? i + 1 : next;
        }
        std::size_t before = a, deepest = b;
        for (std::size_t i = a + 1; i + 1 < b; i++) {
            before = x[i - 1] > x[before] ? i - 1 : before;
            const std::size_t next = after[i - a];
            const float weak = std::min(x[before], x[next]), strong = std::max(x[before], x[next]);
            const bool low_enough = x[i] * stronger_depth < strong && x[i] * depth < weak;
            if (low_enough && (deepest == b || x[i] < x[deepest]) &&
                is_wide(x, weak / depth * 2.0f, a, i, b)) {
                deepest = i;
            }
        }
        if (deepest < b) {
            valleys.push_back(deepest);
            spans.emplace_back(a, deepest);
            spans.emplace_back(deepest + 1, b);
        }
    }
}

} // namespace

std::vector<BandDetector::Span> BandDetector::spans(std::size_t bins, float outside, double freedom,
                                                    double expected) {
    const std::size_t n = settings_.fft_size;
    float* values = padded_.data() + box_margin;
    const auto threshold = [&](double z) {
        return static_cast<float>(noise_quantile(freedom, z) * expected * margin);
    };
    std::vector<Span> found;
    const float* compared = values;
    if (bins > 1) {
        std::fill(values - box_margin, values, outside);
        std::fill(values + n, values + n + box_margin, outside);
        cells_.box(values, scratch_.data(), bins, boxed_.data(), n);
        compared = boxed_.data();
    }
    if (!cells_.compare(compared, threshold(grow_z_), threshold(false_z_), codes_.data(), n)) {
        return found;
    }
    for (std::size_t low = next_set(codes_.data(), 0, n); low < n;) {
        const std::size_t stop = next_clear(codes_.data(), low, n);
        const auto *first = codes_.data() + low, *last = codes_.data() + stop;
        if (std::find(first, last, 3) != last) {
            found.push_back({low, stop});
        }
        low = next_set(codes_.data(), stop, n);
    }
    return found;
}

void BandDetector::take(std::size_t rows) {
    const std::size_t n = settings_.fft_size;
    std::fill(taken_.begin(), taken_.begin() + static_cast<std::ptrdiff_t>(rows * n), std::uint8_t{0});
    for (std::size_t t = 0; t < rows; t++) {
        for (std::size_t by = t > 0 ? t - 1 : 0; by < std::min(rows, t + 2); by++) {
            cells_.spread(mask_.data() + t * n, taken_.data() + by * n, n);
        }
    }
}

void BandDetector::sum_untaken(std::size_t first, std::size_t count, float* sum) {
    const std::size_t n = settings_.fft_size;
    cells_.untaken(row(first), taken_.data() + first * n, sum, n);
    for (std::size_t t = first + 1; t < first + count; t++) {
        cells_.untaken(row(t), taken_.data() + t * n, boxed_.data(), n);
        cells_.add(boxed_.data(), sum, n);
    }
}

void BandDetector::mark(const Scale& scale, std::size_t rows) {
    const std::size_t n = settings_.fft_size, each = std::min(scale.rows, rows);
    const double freedom = noise_freedom(each, scale.bins);
    const auto cells = static_cast<double>(scale.bins * each);
    take(rows);
    for (std::size_t first = 0; first + each <= rows; first += each) {
        sum_untaken(first, each, padded_.data() + box_margin);
        for (const Span& span : spans(scale.bins, static_cast<float>(each), freedom, cells)) {
            for (std::size_t t = first; t < first + each; t++) {
                std::memset(mask_.data() + t * n + span.low, 1, span.stop - span.low);
            }
        }
    }
}

void BandDetector::mark_steady(std::size_t rows) {
    const std::size_t n = settings_.fft_size, each = std::min<std::size_t>(group_rows, rows),
                      count = rows / each, rank = (count + 1) / 2;
    take(rows);
    AlignedFloats sums(count * n), lowest(rank * n, std::numeric_limits<float>::infinity());
    for (std::size_t g = 0; g < count; g++) {
        float* sum = padded_.data() + box_margin;
        sum_untaken(g * each, each, sum);
        std::fill(sum - box_margin, sum, static_cast<float>(each));
        std::fill(sum + n, sum + n + box_margin, static_cast<float>(each));
        cells_.box(sum, scratch_.data(), 3, sums.data() + g * n, n);
        cells_.keep_lowest(sums.data() + g * n, lowest.data(), rank, n);
    }
    const double one = noise_freedom(each, 3);
    const double blom = (static_cast<double>(rank) - 0.375) / (static_cast<double>(count) + 0.25);
    const double median = noise_quantile(one, normal_quantile(blom)) * static_cast<double>(3 * each);
    const double freedom = one * (count > 1 ? 2.0 * static_cast<double>(count) / M_PI : 1.0);
    std::copy(lowest.end() - static_cast<std::ptrdiff_t>(n), lowest.end(), padded_.begin() + box_margin);
    const auto present = static_cast<float>(median * (1.0 + std::sqrt(2.0 / one)));
    for (const Span& span : spans(1, static_cast<float>(median), freedom, median)) {
        std::size_t begin = count, end = 0; // groups in which most of it stands out
        for (std::size_t g = 0; g < count; g++) {
            const float* sum = sums.data() + g * n;
            std::size_t over = 0;
            for (std::size_t i = span.low; i < span.stop; i++) {
                over += sum[i] > present;
            }
            if (2 * over > span.stop - span.low) {
                begin = std::min(begin, g);
                end = g + 1;
            }
        }
        for (std::size_t t = begin * each; t < std::min(rows, end == count ? rows : end * each); t++) {
            std::memset(mask_.data() + t * n + span.low, 1, span.stop - span.low);
        }
    }
}

std::vector<BandPiece> BandDetector::pieces(std::size_t rows, const std::vector<float>& floor) {
    const std::size_t n = settings_.fft_size;
    std::vector<Run> runs = runs_of(mask_.data(), rows, n);
    std::vector<BandPiece> found;
    std::vector<std::uint32_t> piece_of(runs.size());
    for (std::uint32_t i = 0; i < runs.size(); i++) {
        const std::uint32_t top = root(runs, i);
        const Run& run = runs[i];
        if (top == i) {
            piece_of[i] = static_cast<std::uint32_t>(found.size());
            found.push_back({run.row, run.row + 1, run.low, run.stop, 0, {}, {}, {}});
        }
        BandPiece& piece = found[piece_of[top]];
        piece.row_stop = std::max(piece.row_stop, run.row + 1);
        piece.bin_low = std::min(piece.bin_low, run.low);
        piece.bin_stop = std::max(piece.bin_stop, run.stop);
        piece.n_cells += run.stop - run.low;
    }
    for (std::uint32_t i = 0; i < runs.size(); i++) {
        BandPiece& piece = found[piece_of[root(runs, i)]];
        const Run& run = runs[i];
        piece.row_low.resize(piece.row_stop - piece.row_first);
        piece.row_stop_bin.resize(piece.row_stop - piece.row_first);
        std::uint32_t &low = piece.row_low[run.row - piece.row_first],
                      &stop = piece.row_stop_bin[run.row - piece.row_first];
        low = stop == 0 ? run.low : std::min(low, run.low);
        stop = std::max(stop, run.stop);
    }
    for (BandPiece& piece : found) {
        const std::size_t width = piece.bin_stop - piece.bin_low;
        AlignedFloats sum(width, 0.0f);
        for (std::size_t t = piece.row_first; t < piece.row_stop; t++) {
            cells_.add(row(t) + piece.bin_low, sum.data(), width);
        }
        const float scale = 1.0f / static_cast<float>(piece.row_stop - piece.row_first);
        piece.spectrum.resize(width);
        for (std::size_t i = 0; i < width; i++) {
            piece.spectrum[i] = sum[i] * scale * floor[piece.bin_low + i];
        }
    }
    return found;
}

void BandDetector::separate(std::size_t rows, const std::vector<float>& floor) {
    const std::size_t n = settings_.fft_size, each = std::min<std::size_t>(group_rows, rows),
                      count = rows / each, rank = (count + 1) / 2;
    AlignedFloats lowest(rank * n, std::numeric_limits<float>::infinity()), group(n),
        sum(n + 2 * box_margin, 0.0f), smooth(n);
    for (std::size_t g = 0; g < count; g++) {
        std::fill(group.begin(), group.end(), 0.0f);
        for (std::size_t t = g * each; t < (g + 1) * each; t++) {
            const std::uint8_t* bytes = mask_.data() + t * n;
            const float* powers = row(t);
            for (std::size_t i = next_set(bytes, 0, n); i < n; i = next_set(bytes, i, n)) {
                for (; i < n && bytes[i]; i++) {
                    group[i] += std::max(powers[i] - 1.0f, 0.0f) * floor[i];
                }
            }
        }
        cells_.keep_lowest(group.data(), lowest.data(), rank, n);
    }
    std::copy(lowest.end() - static_cast<std::ptrdiff_t>(n), lowest.end(), sum.begin() + box_margin);
    cells_.box(sum.data() + box_margin, scratch_.data(), 3, smooth.data(), n);
    std::vector<std::uint8_t> any(n);
    for (std::size_t i = 0; i < n; i++) {
        any[i] = sum[box_margin + i] > 0.0f;
    }
    std::vector<std::size_t> valleys;
    const float depth = valley_depth(rows);
    for (std::size_t low = next_set(any.data(), 0, n); low < n;) {
        const std::size_t stop = next_clear(any.data(), low, n);
        find_valleys(smooth.data(), depth, low, stop, valleys);
        low = next_set(any.data(), stop, n);
    }
    for (const std::size_t i : valleys) {
        for (std::size_t t = 0; t < rows; t++) {
            std::memset(mask_.data() + t * n + i - 1, 0,
                        3); // more than near_bins; a valley is never at a span's end
        }
    }
}

BandBlock BandDetector::finish_block() {
    const std::size_t n = settings_.fft_size, rows = n_rows_;
    BandBlock block{rows_before_, floor(rows), {}, std::vector<float>(rows), {}, bad_};
    AlignedFloats inverse(n), sum(n, 0.0f);
    for (std::size_t i = 0; i < n; i++) {
        inverse[i] = 1.0f / block.floor[i];
    }
    for (std::size_t t = 0; t < rows; t++) {
        cells_.multiply(row(t), inverse.data(), n);
        block.row_power[t] = cells_.total(row(t), n);
    }
    follow_gain(rows, block.row_power);
    for (std::size_t t = 0; t < rows; t++) {
        cells_.add(row(t), sum.data(), n);
        for (const std::size_t end : {std::size_t{0}, std::size_t{1}, n - 2, n - 1}) {
            row(t)[end] = 1.0f; // the other end of the band leaks in here
        }
    }
    block.mean.resize(n);
    for (std::size_t i = 0; i < n; i++) {
        block.mean[i] = sum[i] / static_cast<float>(rows) * block.floor[i];
    }
    std::fill(mask_.begin(), mask_.begin() + static_cast<std::ptrdiff_t>(rows * n), std::uint8_t{0});
    for (const Scale& scale : {Scale{1, 5}, Scale{1, 32}, Scale{4, 3}}) {
        mark(scale, rows);
    }
    mark_steady(rows);
    separate(rows, block.floor);
    block.pieces = pieces(rows, block.floor);
    rows_before_ += rows;
    n_rows_ = 0;
    bad_ = 0;
    return block;
}

} // namespace wavesfm
