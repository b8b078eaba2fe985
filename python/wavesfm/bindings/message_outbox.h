// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/basic_block.h>
#include <pmt/pmt.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>

namespace wavesfm {

//! Messages that wait in the fullest queue of the subscribers of a block's output port; a subscriber that has
//! ended or has no handler counts as empty.
std::size_t queued_at_readers(gr::basic_block& block, const pmt::pmt_t& port);

//! The block of a symbol name, or null: there is none, or it is being destroyed.
gr::basic_block_sptr find_block(const std::string& name);

//! A queue between a publisher and the readers of one message port, see `outbox.Outbox` in Python; for
//! messages that are made in C++. Used by any thread without the interpreter's lock.
class MessageOutbox {
public:
    //! \param block      symbol name of the block that publishes
    //! \param in_flight  most messages in a reader's queue
    //! \param limit      most messages that wait here
    MessageOutbox(std::string block, const std::string& port, std::size_t in_flight, std::size_t limit);

    //! Sends a message, or queues it where a reader is slow: when `limit` wait, waits or drops the oldest.
    void put(pmt::pmt_t message);
    //! Sends what the readers have room for; returns whether nothing waits any more.
    bool flush();
    //! Waits until everything was sent, whatever the policy; what a stalled reader does not take is dropped.
    void drain();
    //! Begins a run: nothing was dropped.
    void open();
    //! Ends every wait for a reader, and drops and counts what waits.
    void close();

    //! Whether a full queue makes `put` wait; otherwise the oldest are dropped, as are those older than 1 s.
    void set_holds_back(bool holds_back) { holds_back_ = holds_back; }
    std::uint64_t dropped() const { return dropped_; }
    //! Whether a reader has taken nothing for 5 s; it is not waited for any more.
    bool stalled() const { return stalled_; }

private:
    struct Waiting {
        pmt::pmt_t message;
        double since_s;
    };
    bool may_wait() const;
    bool is_cancelled() const;
    void clear();
    gr::basic_block_sptr block();
    bool is_over() const;

    const std::string name_;
    const pmt::pmt_t port_;
    const std::size_t in_flight_, limit_;
    std::atomic<bool> holds_back_{true}, stalled_{false}, closed_{false};
    std::atomic<std::uint64_t> dropped_{0};
    mutable std::mutex mutex_; // guards what follows, and the order of what is sent
    std::weak_ptr<gr::basic_block> block_;
    std::deque<Waiting> waiting_;
    double progress_s_; // when a reader last took a message
};

} // namespace wavesfm
