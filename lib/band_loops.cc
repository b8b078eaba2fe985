// SPDX-License-Identifier: GPL-3.0-or-later
// Compiled once per instruction set with WAVESFM_BAND_LOOPS naming the table, as hot_loops.cc is; no header
// with inline functions for the same reason.
#include <gnuradio/wavesfm/band_loops.h>

namespace wavesfm {
namespace {

using std::size_t;
using std::uint8_t;

void multiply(float* __restrict values, const float* __restrict factors, size_t n) {
    for (size_t i = 0; i < n; i++) {
        values[i] *= factors[i];
    }
}

void add(const float* __restrict values, float* __restrict sum, size_t n) {
    for (size_t i = 0; i < n; i++) {
        sum[i] += values[i];
    }
}

void keep_lowest(const float* __restrict values, float* __restrict lowest, size_t rank, size_t n) {
    constexpr size_t block = 64; // values that stay in registers while the ranks go by
    for (size_t from = 0; from < n; from += block) {
        const size_t count = n - from < block ? n - from : block;
        float x[block];
        __builtin_memcpy(x, values + from, count * sizeof(float));
        for (size_t r = 0; r < rank; r++) {
            float* kept = lowest + r * n + from;
            if (count == block) {
                for (size_t i = 0; i < block; i++) {
                    const float low = x[i] < kept[i] ? x[i] : kept[i];
                    x[i] = x[i] < kept[i] ? kept[i] : x[i];
                    kept[i] = low;
                }
                continue;
            }
            for (size_t i = 0; i < count; i++) {
                const float low = x[i] < kept[i] ? x[i] : kept[i];
                x[i] = x[i] < kept[i] ? kept[i] : x[i];
                kept[i] = low;
            }
        }
    }
}

void untaken(const float* __restrict values, const uint8_t* __restrict taken, float* __restrict out,
             size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = taken[i] ? 1.0f : values[i];
    }
}

void box(const float* __restrict values, float* __restrict scratch, size_t width, float* __restrict out,
         size_t n) {
    const float* x = values - width / 2;
    if (width == 3) {
        for (size_t i = 0; i < n; i++) {
            out[i] = x[i] + x[i + 1] + x[i + 2];
        }
        return;
    }
    if (width == 5) {
        for (size_t i = 0; i < n; i++) {
            out[i] = (x[i] + x[i + 1]) + (x[i + 2] + x[i + 3]) + x[i + 4];
        }
        return;
    }
    // 32: sums of 8, then four of those
    for (size_t i = 0; i < n + 24; i++) {
        scratch[i] =
            ((x[i] + x[i + 1]) + (x[i + 2] + x[i + 3])) + ((x[i + 4] + x[i + 5]) + (x[i + 6] + x[i + 7]));
    }
    for (size_t i = 0; i < n; i++) {
        out[i] = (scratch[i] + scratch[i + 8]) + (scratch[i + 16] + scratch[i + 24]);
    }
}

bool compare(const float* __restrict values, float low, float high, uint8_t* __restrict codes, size_t n) {
    unsigned any = 0;
    for (size_t i = 0; i < n; i++) {
        const unsigned code = (values[i] > low ? 1u : 0u) | (values[i] > high ? 2u : 0u);
        codes[i] = static_cast<uint8_t>(code);
        any |= code;
    }
    return any & 2u;
}

void spread(const uint8_t* __restrict in, uint8_t* __restrict out, size_t n) {
    for (size_t i = 2; i + 2 < n; i++) {
        out[i] = static_cast<uint8_t>(out[i] | in[i - 2] | in[i - 1] | in[i] | in[i + 1] | in[i + 2]);
    }
    for (size_t k = 0; k < 4; k++) {
        const size_t i = k < 2 ? k : n - 4 + k;
        for (size_t j = i < 2 ? 0 : i - 2; j < n && j <= i + 2; j++) {
            out[i] = static_cast<uint8_t>(out[i] | in[j]);
        }
    }
}

float total(const float* values, size_t n) {
    float lanes[16] = {};
    size_t i = 0;
    for (; i + 16 <= n; i += 16) {
        for (size_t k = 0; k < 16; k++) {
            lanes[k] += values[i + k];
        }
    }
    float sum = 0.0f;
    for (; i < n; i++) {
        sum += values[i];
    }
    for (const float lane : lanes) {
        sum += lane;
    }
    return sum;
}

void weigh(const float* __restrict bins, const float* __restrict weights, float re, float im,
           float* __restrict out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const float a = bins[2 * i] * weights[i], b = bins[2 * i + 1] * weights[i];
        out[2 * i] = a * re - b * im;
        out[2 * i + 1] = a * im + b * re;
    }
}

} // namespace

extern const BandLoops WAVESFM_BAND_LOOPS;
const BandLoops WAVESFM_BAND_LOOPS = {multiply, add,    keep_lowest, untaken, box,
                                      compare,  spread, total,       weigh};

} // namespace wavesfm
