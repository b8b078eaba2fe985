// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/fft_handle.h>

#include <complex>
#include <cstddef>
#include <vector>

namespace wavesfm {

//! Demodulates one slot to its grid [antennas, symbols, subcarriers]: removes the prefixes, transforms each
//! symbol, selects the bins of the subcarriers and divides by the root of fft_size, so that power on a
//! subcarrier is power in the samples. The result does not depend on the alignment of the samples. Thread
//! safe.
class WAVESFM_API OFDMDemodulator {
public:
    //! \param fft_size        FFT size of each symbol
    //! \param prefix_samples  cyclic prefix of each symbol
    //! \param bins            FFT bin of each subcarrier, 0 to fft_size - 1
    //! \param antennas        number of antennas
    //! \throws std::invalid_argument naming the parameter that is out of range
    OFDMDemodulator(std::size_t fft_size, std::vector<std::size_t> prefix_samples,
                    std::vector<std::size_t> bins, std::size_t antennas);

    std::size_t antennas() const { return antennas_; }
    std::size_t symbols() const { return prefix_samples_.size(); }
    std::size_t subcarriers() const { return bins_.size(); }
    //! Samples of a slot of one antenna.
    std::size_t slot_samples() const { return slot_samples_; }

    //! samples: [antennas, slot_samples]; grid: [antennas, symbols, subcarriers].
    void demodulate(const std::complex<float>* samples, std::complex<float>* grid) const {
        demodulate(samples, slot_samples_, grid);
    }
    //! The same where the samples of antenna a begin at samples + a * stride.
    void demodulate(const std::complex<float>* samples, std::size_t stride, std::complex<float>* grid) const;

private:
    const std::size_t fft_size_, antennas_;
    const std::vector<std::size_t> prefix_samples_, bins_;
    std::size_t slot_samples_ = 0;
    fftwf_plan plan_;
};

} // namespace wavesfm
