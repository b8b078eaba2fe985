// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/channel_methods.h>

#include "split_matrix.h"

#include <cmath>
#include <limits>

namespace wavesfm {

namespace {

double ratio(double db) {
    return std::pow(10.0, db / 10.0);
}

SplitMatrix split(const Matrix<std::complex<float>>& matrix) {
    return SplitMatrix(matrix.values.data(), matrix.rows, matrix.columns);
}

void require(bool holds, const char* what) {
    if (!holds) {
        throw std::invalid_argument(std::string(what) + ": of another size than the slot layout");
    }
}

} // namespace

EstimationFault::EstimationFault(std::string where, std::string field, std::string found,
                                 std::string expected)
    : std::runtime_error(where + ": " + field + ": found " + found + ", expected " + expected),
      where(std::move(where)), field(std::move(field)), found(std::move(found)),
      expected(std::move(expected)) {}

ChannelMethod::~ChannelMethod() = default;

double ChannelMethod::error(double) const {
    return std::numeric_limits<double>::quiet_NaN();
}

// ---- LeastSquares

LeastSquares::LeastSquares(const SlotLayout& layout, InterpolationWeights weights, std::string name)
    : ChannelMethod(std::move(name)), layout_(layout), weights_(std::move(weights)) {
    const std::size_t carriers = layout.subcarriers();
    require(weights_.lower.size() == carriers && weights_.upper.size() == carriers &&
                weights_.part.size() == carriers &&
                weights_.symbols.size() == layout.symbols() * layout.pilot_symbols.size(),
            "least squares");
    for (std::size_t k = 0; k < carriers; k++) {
        require(weights_.lower[k] < layout.pilot_carriers.size() &&
                    weights_.upper[k] < layout.pilot_carriers.size(),
                "least squares");
    }
}

void LeastSquares::estimate(const SlotBatch& batch, const std::vector<std::complex<float>*>& channels) {
    const std::size_t carriers = layout_.subcarriers(), pilots = layout_.pilot_carriers.size();
    const std::size_t n_symbols = layout_.pilot_symbols.size(), width = 2 * carriers;
    std::vector<float> rows(n_symbols * width); // real and imaginary parts in turns
    const auto* ls = batch.seen.ls.data();
    for (auto* channel : channels) {
        for (std::size_t antenna = 0; antenna < layout_.antennas; antenna++) {
            for (std::size_t p = 0; p < n_symbols; p++, ls += pilots) {
                for (std::size_t k = 0; k < carriers; k++) {
                    const auto below = ls[weights_.lower[k]], step = ls[weights_.upper[k]] - below;
                    rows[p * width + 2 * k] = below.real() + weights_.part[k] * step.real();
                    rows[p * width + 2 * k + 1] = below.imag() + weights_.part[k] * step.imag();
                }
            }
            for (std::size_t symbol = 0; symbol < layout_.symbols(); symbol++, channel += carriers) {
                auto* out = reinterpret_cast<float*>(channel);
                for (std::size_t p = 0; p < n_symbols; p++) {
                    const float weight = weights_.symbols[symbol * n_symbols + p];
                    const float* row = rows.data() + p * width;
                    for (std::size_t i = 0; i < width; i++) {
                        out[i] = p ? out[i] + weight * row[i] : weight * row[i];
                    }
                }
            }
        }
    }
}

double LeastSquares::error(double snr_db) const {
    return weights_.noise_gain * ratio(-snr_db);
}

// ---- LMMSE

struct LMMSE::Basis {
    Matrix<double> power, spread_power;
    SplitMatrix from_antennas, to_antennas, from_subcarriers, to_subcarriers, to_symbols;
};

LMMSE::LMMSE(const SlotLayout& layout, const LMMSEBasis& basis, double least_error, std::string name)
    : ChannelMethod(std::move(name)), layout_(layout), least_error_(least_error),
      basis_(new Basis{basis.power, basis.spread_power, split(basis.from_antennas), split(basis.to_antennas),
                       split(basis.from_subcarriers), split(basis.to_subcarriers), split(basis.to_symbols)}) {
    const Basis& b = *basis_;
    const std::size_t modes = b.from_antennas.rows, columns = b.from_subcarriers.columns;
    require(
        b.power.rows == modes && b.power.columns == columns && b.spread_power.rows == modes &&
            b.spread_power.columns == columns && b.from_subcarriers.rows == layout.pilot_carriers.size() &&
            b.from_antennas.columns == layout.antennas * layout.pilot_symbols.size() &&
            b.to_subcarriers.rows == columns && b.to_subcarriers.columns == layout.subcarriers() &&
            b.to_symbols.rows == layout.symbols() &&
            b.to_antennas.rows == layout.antennas * b.to_symbols.columns && b.to_antennas.columns == modes,
        "LMMSE");
}

LMMSE::~LMMSE() = default;

void LMMSE::estimate(const SlotBatch& batch, const std::vector<std::complex<float>*>& channels) {
    const Basis& b = *basis_;
    const std::size_t rows = b.from_antennas.columns, columns = b.from_subcarriers.columns;
    const std::size_t pilots = b.from_subcarriers.rows, times = b.to_symbols.columns;
    SplitMatrix ls(rows, pilots), carried(rows, columns), modes(b.from_antennas.rows, columns),
        spread(b.to_antennas.rows, columns), antennas(b.to_antennas.rows, layout_.subcarriers()),
        grid(layout_.symbols(), layout_.subcarriers());
    for (std::size_t slot = 0; slot < channels.size(); slot++) {
        const auto* values = batch.seen.ls.data() + slot * rows * pilots;
        for (std::size_t row = 0; row < rows; row++) {
            for (std::size_t k = 0; k < pilots; k++) {
                ls.set(row, k, values[row * pilots + k]);
            }
        }
        multiply(ls, b.from_subcarriers, carried);
        multiply(b.from_antennas, carried, modes);
        const double noise = batch.seen.noise_power[slot] / batch.seen.signal_power[slot];
        for (std::size_t row = 0; row < modes.rows; row++) {
            const double* power = b.power.values.data() + row * columns;
            for (std::size_t k = 0; k < columns; k++) {
                const auto gain = static_cast<float>(power[k] / (power[k] + noise));
                modes.real[row * modes.stride + k] *= gain;
                modes.imag[row * modes.stride + k] *= gain;
            }
        }
        multiply(b.to_antennas, modes, spread);
        multiply(spread, b.to_subcarriers, antennas);
        auto* out = channels[slot];
        for (std::size_t antenna = 0; antenna < layout_.antennas; antenna++) {
            const std::size_t from = antenna * times * antennas.stride;
            matrix_loops().multiply(b.to_symbols.real.data(), b.to_symbols.imag.data(), b.to_symbols.stride,
                                    antennas.real.data() + from, antennas.imag.data() + from, antennas.stride,
                                    grid.real.data(), grid.imag.data(), grid.stride, grid.rows, times,
                                    grid.stride);
            for (std::size_t symbol = 0; symbol < grid.rows; symbol++) {
                const float *real = grid.real.data() + symbol * grid.stride,
                            *imag = grid.imag.data() + symbol * grid.stride;
                for (std::size_t k = 0; k < layout_.subcarriers(); k++, out++) {
                    *out = {real[k], imag[k]};
                }
            }
        }
    }
}

double LMMSE::error(double snr_db) const {
    const double noise = ratio(-snr_db);
    double known = 0.0;
    for (std::size_t i = 0; i < basis_->power.values.size(); i++) {
        const double power = basis_->power.values[i];
        known += power / (power + noise) * power * basis_->spread_power.values[i];
    }
    return std::max(1.0 - known, least_error_);
}

// ---- ModelMethod

ChannelEngine::~ChannelEngine() = default;

ModelMethod::ModelMethod(const SlotLayout& layout, std::shared_ptr<ChannelEngine> engine, float scale,
                         std::string bundle_id, std::shared_ptr<const ChannelMethod> error_of)
    : ChannelMethod("model", std::move(bundle_id)), layout_(layout), engine_(std::move(engine)),
      scale_(scale), error_of_(std::move(error_of)) {}

void ModelMethod::estimate(const SlotBatch& batch, const std::vector<std::complex<float>*>& channels) {
    const std::size_t count = channels.size(), tile = 2 * layout_.pilot_size(), size = layout_.grid_size();
    std::vector<float> tiles(count * tile), snr_db(count), roots(count);
    for (std::size_t slot = 0; slot < count; slot++) {
        snr_db[slot] = static_cast<float>(batch.seen.snr_db(slot));
        roots[slot] = least_squares_tile(batch.seen.ls.data() + slot * layout_.pilot_size(), layout_.antennas,
                                         layout_.pilot_symbols.size(), layout_.pilot_carriers.size(),
                                         tiles.data() + slot * tile);
    }
    const float* found = engine_->run(count, tiles.data(), snr_db.data());
    std::size_t n_bad = 0;
    for (std::size_t slot = 0; slot < count; slot++) {
        const float scale = scale_ * roots[slot];
        const float *real = found + 2 * slot * size, *imag = real + size;
        auto* out = reinterpret_cast<float*>(channels[slot]);
        int is_finite = 1;
        constexpr float most = std::numeric_limits<float>::max();
        for (std::size_t i = 0; i < size; i++) {
            out[2 * i] = scale * real[i];
            out[2 * i + 1] = scale * imag[i];
            is_finite &=
                static_cast<int>(std::abs(real[i]) <= most) & static_cast<int>(std::abs(imag[i]) <= most);
        }
        n_bad += !is_finite;
    }
    if (n_bad) {
        const std::string bad = std::to_string(n_bad), all = std::to_string(count);
        throw EstimationFault("channel head", "outputs",
                              "NaN or infinity for " + bad + " of " + all + " tiles", "finite values");
    }
}

double ModelMethod::error(double snr_db) const {
    return error_of_ ? error_of_->error(snr_db) : ChannelMethod::error(snr_db);
}

} // namespace wavesfm
