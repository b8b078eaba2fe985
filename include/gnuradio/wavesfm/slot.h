// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/stream_time.h>

#include <complex>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

namespace wavesfm {

//! Parameters of an OFDM slot and its pilots; the fields are those of `OFDMSpec` in Python.
struct WAVESFM_API SlotLayout {
    std::size_t antennas = 0;                //!< A
    std::size_t fft_size = 0;                //!< of each symbol
    std::vector<std::size_t> prefix_samples; //!< cyclic prefix of each of the S symbols
    std::vector<std::int64_t> frequencies;   //!< of each of the F subcarriers, in units of spacing_hz
    double spacing_hz = 0.0;                 //!< subcarrier spacing
    std::vector<std::size_t> pilot_symbols;  //!< indices of the P symbols with pilots, ascending
    std::vector<std::size_t> pilot_carriers; //!< indices of the Fp subcarriers with pilots, ascending
    std::vector<std::complex<float>> pilots; //!< transmitted pilots of unit power, [P, Fp]

    std::size_t symbols() const { return prefix_samples.size(); }
    std::size_t subcarriers() const { return frequencies.size(); }
    //! Samples of a slot of one antenna, with its prefixes.
    std::size_t slot_samples() const;
    //! Elements of a grid, A S F.
    std::size_t grid_size() const { return antennas * symbols() * subcarriers(); }
    //! Pilots of all antennas, A P Fp.
    std::size_t pilot_size() const { return antennas * pilots.size(); }
    //! First sample after the prefix of each symbol.
    std::vector<std::size_t> symbol_starts() const;
    //! FFT bin of each subcarrier.
    std::vector<std::size_t> bins() const;
    double rate_hz() const { return static_cast<double>(fft_size) * spacing_hz; }
    //! Throws std::invalid_argument naming the field that contradicts another.
    void check() const;
};

//! Complex values and the object that keeps their memory alive.
struct Grid {
    std::complex<float>* data = nullptr;
    std::shared_ptr<void> memory;
};

//! Makes the memory of grids and channels, so that they can be written where they will be sent from.
class WAVESFM_API GridAllocator {
public:
    virtual ~GridAllocator();
    //! Memory for n values, of any content.
    virtual Grid allocate(std::size_t n) = 0;
};

//! Grids on the heap.
class WAVESFM_API HeapGrids : public GridAllocator {
public:
    Grid allocate(std::size_t n) override;
};

//! The received grid of one slot and its place in the stream.
struct Slot {
    Grid grid;                         //!< [A, S, F], subcarriers in the order of rising frequency
    std::uint64_t start_sample = 0;    //!< absolute index of the first sample, that of the first prefix
    std::uint64_t n_samples = 0;       //!< samples that the slot covers
    double rate_hz = 0.0;              //!< 0 when unknown
    std::optional<StreamTime> time;    //!< of the first sample
    std::uint64_t n_nonfinite = 0;     //!< samples that were no finite numbers and were taken as zero
    std::optional<double> sync_metric; //!< correlation that found the slot, 0 to 1; none where a mark did
    std::optional<double> arrived_s;   //!< monotonic clock at the arrival of the last sample; none offline
};

} // namespace wavesfm
