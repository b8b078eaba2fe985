// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/channel_pipeline.h>
#include <gnuradio/wavesfm/slot.h>

#include <pmt/pmt.h>

#include <array>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <vector>

namespace wavesfm {

//! Grids in c32vectors, from which they are sent without a copy. A vector that nobody holds any more is used
//! again, which saves the pages of new memory.
class PmtGrids : public GridAllocator {
public:
    Grid allocate(std::size_t n) override;

private:
    std::mutex mutex_;
    std::deque<pmt::pmt_t> vectors_; // the longest in use first
};

//! What all grids of a numerology have in common.
struct GridFormat {
    std::array<std::size_t, 3> shape; //!< antennas, symbols, subcarriers
    std::string numerology;           //!< its id
    std::size_t slot_samples = 0;

    std::size_t size() const { return shape[0] * shape[1] * shape[2]; }
};

//! The PDU of a slot, see `pdus.slot_to_pmt`.
pmt::pmt_t slot_to_pdu(const Slot& slot, const GridFormat& format);
//! One PDU of several slots: a c32vector [slots, antennas, symbols, subcarriers], and a dictionary whose
//! facts of single slots are vectors, one value for each slot.
pmt::pmt_t slots_to_pdu(const std::vector<Slot>& slots, const GridFormat& format);
//! The slots of a PDU of either kind. Throws std::invalid_argument, naming the difference, for another
//! message or numerology.
std::vector<Slot> slots_from_pdu(const pmt::pmt_t& message, const GridFormat& format);

//! The PDU of an estimate, with the keys that docs/channel-estimation.md lists for h.
pmt::pmt_t estimate_to_pdu(const SlotAnswer& answer, const GridFormat& format, std::uint64_t run,
                           std::uint64_t sequence);
//! One PDU of several estimates, as `slots_to_pdu`; sequence: of the first.
pmt::pmt_t estimates_to_pdu(const std::vector<SlotAnswer>& answers, const GridFormat& format,
                            std::uint64_t run, std::uint64_t sequence);

} // namespace wavesfm
