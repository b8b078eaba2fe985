// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <fftw3.h>

#include <complex>
#include <cstddef>
#include <vector>

namespace wavesfm {

//! Takes the grid [antennas, symbols, subcarriers] out of one slot: prefixes off, FFT, the subcarriers' bins,
//! all divided by the root of fft_size, so that power on a subcarrier is power in the samples. The same bits
//! for the same slot wherever it lies in memory; thread safe.
class OFDMDemodulator {
public:
    //! prefix_samples: of each symbol; bins: of each subcarrier, 0 to fft_size - 1. Throws
    //! std::invalid_argument naming what is out of range.
    OFDMDemodulator(std::size_t fft_size, std::vector<std::size_t> prefix_samples,
                    std::vector<std::size_t> bins, std::size_t antennas);

    std::size_t antennas() const { return antennas_; }
    std::size_t symbols() const { return prefix_samples_.size(); }
    std::size_t subcarriers() const { return bins_.size(); }
    //! Samples of a slot of one antenna.
    std::size_t slot_samples() const { return slot_samples_; }

    //! samples: [antennas, slot_samples]; grid: [antennas, symbols, subcarriers].
    void demodulate(const std::complex<float>* samples, std::complex<float>* grid) const;

private:
    const std::size_t fft_size_, antennas_;
    const std::vector<std::size_t> prefix_samples_, bins_;
    std::size_t slot_samples_ = 0;
    fftwf_plan plan_;
};

} // namespace wavesfm
