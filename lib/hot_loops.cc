// SPDX-License-Identifier: GPL-3.0-or-later
// Compiled once per instruction set with WAVESFM_HOT_LOOPS naming the table (see CMakeLists.txt). It includes
// no header with inline functions: the linker could keep their AVX-512 copy for every caller.
#include <gnuradio/wavesfm/hot_loops.h>

#define STRINGIFY_(x) #x
#define STRINGIFY(x) STRINGIFY_(x)

namespace wavesfm {
namespace {

using std::size_t;

bool window_frame(const float* x, const float* window, float* __restrict out, size_t n) {
    std::int32_t limit_bits;
    __builtin_memcpy(&limit_bits, &sample_limit, 4);
    std::int32_t largest = 0; // the bits of |x| order like |x|, with Inf and NaN above every number
    for (size_t i = 0; i < 2 * n; i++) {
        std::int32_t bits;
        __builtin_memcpy(&bits, x + i, 4);
        bits &= 0x7fffffff;
        largest = bits > largest ? bits : largest;
        out[i] = x[i] * window[i];
    }
    return largest < limit_bits;
}

typedef float Lanes __attribute__((vector_size(32)));

void add_samples(const float* x, size_t n, double* sum) {
    constexpr size_t block = 512; // floats that a lane adds before it is widened: n is unlimited
    for (size_t from = 0; from < n; from += block) {
        const size_t count = n - from < block ? n - from : block;
        const float* part = x + 2 * from;
        Lanes lanes = {}, second = {}, third = {},
              fourth = {}; // four sums: one would wait for its own additions
        size_t i = 0;
        for (; i + 16 <= count; i += 16) {
            Lanes a, b, c, d;
            __builtin_memcpy(&a, part + 2 * i, sizeof a);
            __builtin_memcpy(&b, part + 2 * i + 8, sizeof b);
            __builtin_memcpy(&c, part + 2 * i + 16, sizeof c);
            __builtin_memcpy(&d, part + 2 * i + 24, sizeof d);
            lanes += a;
            second += b;
            third += c;
            fourth += d;
        }
        lanes = (lanes + second) + (third + fourth);
        double re = (double(lanes[0]) + lanes[2]) + (double(lanes[4]) + lanes[6]);
        double im = (double(lanes[1]) + lanes[3]) + (double(lanes[5]) + lanes[7]);
        for (; i < count; i++) {
            re += part[2 * i];
            im += part[2 * i + 1];
        }
        sum[0] += re;
        sum[1] += im;
    }
}

float sum_power(const float* power, size_t n) {
    Lanes lanes = {};
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        Lanes v;
        __builtin_memcpy(&v, power + i, sizeof v);
        lanes += v;
    }
    float sum =
        ((lanes[0] + lanes[4]) + (lanes[2] + lanes[6])) + ((lanes[1] + lanes[5]) + (lanes[3] + lanes[7]));
    for (; i < n; i++) {
        sum += power[i];
    }
    return sum;
}

void add_power(const float* spectrum, float* __restrict power, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const float re = spectrum[2 * i], im = spectrum[2 * i + 1];
        power[i] += re * re + im * im;
    }
}

void power_to_db(const float* power, float scale, float floor_db, float* __restrict db, size_t n) {
    constexpr float smallest_normal = 1.17549435e-38f;
    for (size_t i = 0; i < n; i++) {
        float p = power[i] * scale;
        p = p > smallest_normal ? p : smallest_normal;
        std::int32_t bits;
        __builtin_memcpy(&bits, &p, 4);
        const std::int32_t exponent = (bits - 0x3f3504f3) >> 23; // mantissa from sqrt(1/2) to sqrt(2)
        bits -= exponent * (1 << 23);
        float m;
        __builtin_memcpy(&m, &bits, 4);
        const float x = m - 1.0f;
        // ln(1 + x), the minimax polynomial of Cephes' logf.
        float y = 7.0376836292e-2f;
        y = y * x - 1.1514610310e-1f;
        y = y * x + 1.1676998740e-1f;
        y = y * x - 1.2420140846e-1f;
        y = y * x + 1.4249322787e-1f;
        y = y * x - 1.6668057665e-1f;
        y = y * x + 2.0000714765e-1f;
        y = y * x - 2.4999993993e-1f;
        y = y * x + 3.3333331174e-1f;
        const float ln = y * x * (x * x) - 0.5f * (x * x) + x;
        const float value = ln * 4.34294482f + static_cast<float>(exponent) * 3.01029996f;
        db[i] = value > floor_db ? value : floor_db;
    }
}

void banded_dots(const float* in, const std::uint32_t* first, const float* weights, size_t taps, float* out,
                 size_t n_out) {
    for (size_t o = 0; o < n_out; o++) {
        const float* x = in + first[o];
        const float* w = weights + o * taps;
        Lanes sum = {};
        for (size_t t = 0; t < taps; t += 8) {
            Lanes a, b;
            __builtin_memcpy(&a, x + t, sizeof a);
            __builtin_memcpy(&b, w + t, sizeof b);
            sum += a * b;
        }
        out[o] = ((sum[0] + sum[4]) + (sum[2] + sum[6])) + ((sum[1] + sum[5]) + (sum[3] + sum[7]));
    }
}

void weighted_rows(const float* rows, const float* weights, size_t n_rows, size_t width,
                   float* __restrict out) {
    for (size_t c = 0; c < width; c++) {
        out[c] = weights[0] * rows[c];
    }
    for (size_t r = 1; r < n_rows; r++) {
        const float w = weights[r];
        const float* row = rows + r * width;
        for (size_t c = 0; c < width; c++) {
            out[c] += w * row[c];
        }
    }
}

void map_range(float* x, size_t n, float low, float per_db, float mean, float per_std) {
    for (size_t i = 0; i < n; i++) {
        float v = (x[i] - low) * per_db;
        v = v > 0.0f ? v : 0.0f;
        v = v < 1.0f ? v : 1.0f;
        x[i] = (v - mean) * per_std;
    }
}

void from_u8(const std::uint8_t* x, float* __restrict out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = (static_cast<float>(x[i]) - 127.5f) / 127.5f;
    }
}

void from_s8(const std::int8_t* x, float* __restrict out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        out[i] = static_cast<float>(x[i]) * (1.0f / 128.0f);
    }
}

void from_s16(const unsigned char* x, float* __restrict out, size_t n) {
    for (size_t i = 0; i < n; i++) {
        std::int16_t value; // the formats are little-endian, and so are the machines that this is built for
        __builtin_memcpy(&value, x + 2 * i, 2);
        out[i] = static_cast<float>(value) * (1.0f / 32768.0f);
    }
}

} // namespace

extern const HotLoops WAVESFM_HOT_LOOPS;
const HotLoops WAVESFM_HOT_LOOPS = {STRINGIFY(WAVESFM_HOT_LOOPS_NAME),
                                    window_frame,
                                    add_samples,
                                    sum_power,
                                    add_power,
                                    power_to_db,
                                    banded_dots,
                                    weighted_rows,
                                    map_range,
                                    from_u8,
                                    from_s8,
                                    from_s16};

} // namespace wavesfm
