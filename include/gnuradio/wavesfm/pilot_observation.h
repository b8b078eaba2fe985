// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/slot.h>

#include <complex>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace wavesfm {

class SplitMatrix;

//! Why a grid or a batch was refused.
struct Refusal {
    std::string field, found, expected;
};

//! Measurements at the pilots of B slots.
struct Observation {
    std::vector<std::complex<float>> ls; //!< received over sent pilots, [B, A, P, Fp]
    std::vector<double> noise_power;  //!< of one element of the grid, mean over the antennas, [B], positive
    std::vector<double> signal_power; //!< the same of the signal

    WAVESFM_API double snr_db(std::size_t slot) const;
};

//! Measures received grids at their pilots: least squares, noise and signal power.
//!
//! The noise power is the mean power of the least squares in modes that no delay within the prefix reaches.
//! The signal power is the mean power of the least squares less the noise power. The SNR is limited to -40 to
//! 80 dB. Thread safe.
class WAVESFM_API PilotObserver {
public:
    //! \param noise_modes  [Fp, n_modes], one column for each mode, conjugated
    PilotObserver(const SlotLayout& layout, const std::complex<float>* noise_modes, std::size_t n_modes);
    ~PilotObserver();

    const SlotLayout& layout() const { return layout_; }

    //! Why a grid cannot be used: values that are not finite, or pilots of zero; none for a good one.
    std::optional<Refusal> refuse(const std::complex<float>* grid) const;
    //! Measures grids [A, S, F] that `refuse` has passed.
    Observation observe(const std::vector<const std::complex<float>*>& grids) const;
    //! Mean |y - h x|^2 at the pilots of a slot over its noise power, of a channel h [A, S, F].
    double residual(const std::complex<float>* channel, const Observation& seen, std::size_t slot) const;

private:
    SlotLayout layout_;
    std::unique_ptr<SplitMatrix> modes_;
    std::size_t n_modes_;
};

//! Lays least squares [A, P, Fp] of a slot out as a tile [2 P, A, Fp] of unit mean power (real part of the
//! first pilot symbol, its imaginary part, real part of the second, ...); returns the root of the power that
//! was taken out.
WAVESFM_API float least_squares_tile(const std::complex<float>* ls, std::size_t antennas,
                                     std::size_t pilot_symbols, std::size_t pilot_carriers, float* tile);

} // namespace wavesfm
