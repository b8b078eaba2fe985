// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/ofdm_demodulator.h>
#include <gnuradio/wavesfm/slot.h>
#include <gnuradio/wavesfm/slot_synchronisation.h>

#include <complex>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace wavesfm {

//! Options of a SlotStream.
struct SlotStreamOptions {
    bool by_pilots = false;         //!< starts are found by the pilots, else by marks
    double rate_hz = 0.0;           //!< sample rate; 0: the layout's
    std::optional<StreamTime> time; //!< of the first sample
    std::uint64_t start_sample = 0; //!< absolute index of the first sample
    bool correct_offset = false;    //!< corrects each slot by the carrier offset measured so far
};

//! Accounts of a SlotStream; samples_in = samples of slots + samples_skipped + samples_pending.
struct SlotStreamStatus {
    std::uint64_t samples_in = 0, samples_skipped = 0, samples_pending = 0;
    std::uint64_t slots = 0;                //!< emitted
    std::uint64_t slots_missed = 0;         //!< of these, without their pilots
    std::uint64_t slots_cut = 0;            //!< not complete and dropped
    std::uint64_t slots_zero_pilots = 0;    //!< dropped: a pilot symbol is zero on all antennas
    std::uint64_t slots_silent_antenna = 0; //!< emitted although an antenna has a pilot symbol of zeros
    std::uint64_t syncs = 0, lost_sync = 0, searches_failed = 0, marks_late = 0, n_nonfinite = 0;
    bool searching = false;               //!< by pilots, and the start is not known
    std::optional<double> sync_metric;    //!< of the last slot or search
    std::optional<double> sync_threshold; //!< that it is compared with
    std::optional<double> cfo_hz;         //!< carrier frequency offset, where known
    std::string fault;                    //!< present fault in one sentence, or ""
};

//! Sample streams of A antennas to slots with absolute positions and times, bit-equal for any chunking.
//!
//! A slot whose pilot symbol is zero on every antenna is dropped. If only some antennas are silent, the slot
//! is emitted and counted. NaN, infinity and magnitudes from 1e15 on are taken as zero and counted in the
//! slot. By pilots, slots follow without gaps and their start is tracked; a slot without its pilots is
//! emitted with its low metric, and after 8 in a row the search begins again. Used by one thread at a time.
class WAVESFM_API SlotStream {
public:
    //! Throws std::invalid_argument naming a wrong field, or where the layout has too few pilots for a
    //! search.
    SlotStream(const SlotLayout& layout, const SlotStreamOptions& options);

    //! Where the memory of the grids comes from; by default the heap.
    void set_allocator(std::shared_ptr<GridAllocator> allocator);

    //! Appends n samples of each antenna and adds the slots that they complete to `slots`.
    //!
    //! \param streams    A pointers to the first sample
    //! \param marks      absolute indices of slot starts, each noted as `mark` does
    //! \param arrived_s  monotonic clock of the arrival
    void push(const std::vector<const std::complex<float>*>& streams, std::size_t n,
              const std::vector<std::uint64_t>& marks, std::optional<double> arrived_s,
              std::vector<Slot>& slots);
    //! Notes that a slot starts at an absolute sample index that has not been pushed yet; one that was pushed
    //! is counted as late. A slot that has not ended at the next mark is dropped and counted.
    void mark(std::uint64_t sample);
    //! Begins a new segment, as samples are missing before the next one or the radio has changed: `finish`,
    //! and then the new rate and time of the next sample.
    void retune(std::optional<double> rate_hz, std::optional<StreamTime> time, std::vector<Slot>& slots);
    //! Ends the segment; adds its complete slots that were not searched yet. The open slot is dropped and
    //! counted. A further push continues at the next sample with a new synchronisation.
    void finish(std::vector<Slot>& slots);

    //! Absolute index of the next sample.
    std::uint64_t end() const { return first_ + filled_; }
    SlotStreamStatus status() const;

private:
    void append(const std::vector<const std::complex<float>*>& streams, std::size_t first, std::size_t n);
    void drop_to(std::uint64_t sample);
    const std::complex<float>* at(std::uint64_t sample) const { return data_.data() + (sample - first_); }
    void complete(std::vector<Slot>& slots);
    void marked_slots(std::vector<Slot>& slots);
    void tracked_slot(std::vector<Slot>& slots);
    void search(std::uint64_t n);
    std::size_t take_finite(std::uint64_t start, std::size_t n, const std::complex<float>*& samples,
                            std::size_t& stride);
    Grid grid_of(const std::complex<float>* samples, std::size_t stride);
    bool emit(std::uint64_t start, Grid grid, std::size_t n_bad, std::optional<double> metric,
              std::vector<Slot>& slots);
    std::string silence_of(const std::complex<float>* grid, bool& is_dropped) const;
    void skip_to(std::uint64_t sample);
    std::optional<StreamTime> time_of(std::uint64_t sample) const;
    std::string fault() const;
    std::optional<double> threshold() const;

    const SlotLayout layout_;
    const std::size_t n_; // samples of a slot
    const bool correct_offset_;
    double rate_hz_;
    OFDMDemodulator demodulator_;
    std::shared_ptr<GridAllocator> allocator_;
    std::unique_ptr<PilotSearch> search_;
    std::unique_ptr<PilotTracker> tracker_; // while slots are tracked
    CarrierOffset offset_;
    std::vector<std::complex<float>> data_;                // samples still needed, [A, capacity]
    std::vector<std::complex<float>> scratch_, corrected_; // of one slot or search
    const std::size_t capacity_;
    std::uint64_t first_;                // absolute index of the first sample of data_
    std::size_t begin_ = 0, filled_ = 0; // of the needed samples in data_
    std::uint64_t next_, covered_to_;    // start of the next slot or search; end of the last slot
    std::deque<std::uint64_t> marks_;    // ascending
    std::uint64_t segment_start_;
    std::optional<StreamTime> segment_time_;
    std::optional<double> arrived_s_, metric_;
    std::size_t misses_ = 0, failed_in_row_ = 0;
    bool was_marked_ = false;
    std::string silence_; // symbol or antennas whose pilots were all zero in the last slot
    SlotStreamStatus counts_;
};

} // namespace wavesfm
