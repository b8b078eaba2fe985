// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/pilot_observation.h>
#include <gnuradio/wavesfm/slot.h>

#include <complex>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace wavesfm {

//! A failure of an estimator: "where: field: found this, expected that".
class WAVESFM_API EstimationFault : public std::runtime_error {
public:
    EstimationFault(std::string where, std::string field, std::string found, std::string expected);
    const std::string where, field, found, expected;
};

//! Grids of B slots and what was measured at their pilots.
struct SlotBatch {
    std::vector<const std::complex<float>*> grids; //!< received, [A, S, F] each
    Observation seen;                              //!< of the same slots
};

//! A channel estimator, used by one thread at a time.
class WAVESFM_API ChannelMethod {
public:
    //! \param name       of the method in messages
    //! \param bundle_id  of the model's bundle, "" without a model
    explicit ChannelMethod(std::string name, std::string bundle_id = "")
        : name(std::move(name)), bundle_id(std::move(bundle_id)) {}
    virtual ~ChannelMethod();

    //! Writes the channel [A, S, F] of each slot, in the unit of the grids. Throws EstimationFault.
    virtual void estimate(const SlotBatch& batch, const std::vector<std::complex<float>*>& channels) = 0;
    //! Expected squared error over the mean power of the channel at an SNR; NaN where there is no theory.
    virtual double error(double snr_db) const;
    //! Whether this is least squares, which nothing backs off from.
    virtual bool is_least_squares() const { return false; }

    const std::string name, bundle_id;
};

//! Weights of LeastSquares; of each subcarrier (or symbol) two pilots and the place between them.
struct InterpolationWeights {
    std::vector<std::size_t> lower, upper; //!< index of the pilot subcarriers of each of the F subcarriers
    std::vector<float> part;               //!< place from the lower one (0) to the upper one (1)
    std::vector<float> symbols;            //!< weights of the pilot symbols for each symbol, [S, P]
    double noise_gain = 0.0;               //!< mean power of the weights: error over noise
};

//! Least squares at the pilots, interpolated over subcarriers and then over symbols.
class WAVESFM_API LeastSquares : public ChannelMethod {
public:
    LeastSquares(const SlotLayout& layout, InterpolationWeights weights, std::string name);

    void estimate(const SlotBatch& batch, const std::vector<std::complex<float>*>& channels) override;
    double error(double snr_db) const override;
    bool is_least_squares() const override { return true; }

private:
    const SlotLayout layout_;
    const InterpolationWeights weights_;
};

//! A matrix in C order.
template <typename Value>
struct Matrix {
    std::vector<Value> values;
    std::size_t rows = 0, columns = 0;
};

//! Eigenbasis of the covariances of LMMSE: M modes over the subcarriers, A' P' over antennas and symbols.
struct LMMSEBasis {
    Matrix<double> power;                      //!< of each mode at the pilots, [A' P', M]
    Matrix<double> spread_power;               //!< mean power on the grid of a mode of unit power, [A' P', M]
    Matrix<std::complex<float>> from_antennas; //!< pilots of all antennas to modes, [A' P', A P]
    Matrix<std::complex<float>> to_antennas;   //!< modes to antennas, [A P', A' P']
    Matrix<std::complex<float>> from_subcarriers; //!< pilot subcarriers to modes, [Fp, M]
    Matrix<std::complex<float>> to_subcarriers;   //!< modes to subcarriers, [M, F]
    Matrix<std::complex<float>> to_symbols;       //!< modes to symbols, [S, P']
};

//! Linear minimum mean squared error estimator for known covariances, computed in their eigenbasis: one gain
//! l / (l + N / P) for each mode of power l at the measured noise and signal power N and P.
class WAVESFM_API LMMSE : public ChannelMethod {
public:
    LMMSE(const SlotLayout& layout, const LMMSEBasis& basis, double least_error, std::string name);
    ~LMMSE() override;

    void estimate(const SlotBatch& batch, const std::vector<std::complex<float>*>& channels) override;
    double error(double snr_db) const override;

private:
    struct Basis;
    const SlotLayout layout_;
    const double least_error_;
    const std::unique_ptr<const Basis> basis_;
};

//! Runs the network of a ModelMethod, used by one thread at a time.
class WAVESFM_API ChannelEngine {
public:
    virtual ~ChannelEngine();
    //! Runs a batch of tiles [B, 2 P, A, Fp] and SNRs in dB [B, 1]; returns [B, 2, A, S F], which stays until
    //! the next call. Throws EstimationFault.
    virtual const float* run(std::size_t batch, const float* tiles, const float* snr_db) = 0;
};

//! The network of a bundle with the layout "least_squares".
class WAVESFM_API ModelMethod : public ChannelMethod {
public:
    //! \param scale      of the network's output
    //! \param error_of   method whose theory serves as the expected error, or null
    ModelMethod(const SlotLayout& layout, std::shared_ptr<ChannelEngine> engine, float scale,
                std::string bundle_id, std::shared_ptr<const ChannelMethod> error_of);

    void estimate(const SlotBatch& batch, const std::vector<std::complex<float>*>& channels) override;
    double error(double snr_db) const override;

private:
    const SlotLayout layout_;
    const std::shared_ptr<ChannelEngine> engine_;
    const float scale_;
    const std::shared_ptr<const ChannelMethod> error_of_;
};

} // namespace wavesfm
