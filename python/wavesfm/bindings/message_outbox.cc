// SPDX-License-Identifier: GPL-3.0-or-later
#include "message_outbox.h"

#include <gnuradio/wavesfm/channel_pipeline.h>

#include <gnuradio/block.h>
#include <gnuradio/block_detail.h>
#include <gnuradio/block_registry.h>

#include <algorithm>
#include <boost/thread/thread.hpp>
#include <chrono>
#include <exception>
#include <thread>

namespace wavesfm {

namespace {

constexpr std::chrono::milliseconds poll{2}; // how often a wait for the reader looks at its queue
constexpr double stalled_s = 5.0;
constexpr double drop_age_s = 1.0;

std::size_t queued_at(const pmt::pmt_t& subscriber) {
    gr::basic_block_sptr block;
    try {
        block = global_block_registry.block_lookup(pmt::car(subscriber));
    } catch (const std::exception&) {
    }
    if (!block) {
        return 0;
    }
    const auto running = std::dynamic_pointer_cast<gr::block>(block);
    if (running && running->detail() && running->detail()->done()) {
        return 0;
    }
    try {
        const auto port = pmt::cdr(subscriber);
        return block->empty_handled_p(port) ? 0 : block->nmsgs(port);
    } catch (const std::exception&) {
        return 0; // it has no such port
    }
}

} // namespace

gr::basic_block_sptr find_block(const std::string& name) {
    try {
        return global_block_registry.block_lookup(pmt::intern(name));
    } catch (const std::exception&) {
        return nullptr;
    }
}

std::size_t queued_at_readers(gr::basic_block& block, const pmt::pmt_t& port) {
    std::size_t most = 0;
    for (auto readers = block.message_subscribers(port); pmt::is_pair(readers); readers = pmt::cdr(readers)) {
        most = std::max(most, queued_at(pmt::car(readers)));
    }
    return most;
}

MessageOutbox::MessageOutbox(std::string block, const std::string& port, std::size_t in_flight,
                             std::size_t limit)
    : name_(std::move(block)), port_(pmt::intern(port)), in_flight_(in_flight), limit_(limit),
      progress_s_(monotonic_s()) {}

void MessageOutbox::put(pmt::pmt_t message) {
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        waiting_.push_back({std::move(message), monotonic_s()});
    }
    flush();
    while (is_over() && may_wait()) {
        std::this_thread::sleep_for(poll);
        flush();
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    for (; waiting_.size() > limit_; dropped_++) {
        waiting_.pop_front();
    }
}

bool MessageOutbox::flush() {
    const std::lock_guard<std::mutex> lock(mutex_);
    const double now_s = monotonic_s();
    if (!holds_back_) {
        for (; !waiting_.empty() && waiting_.front().since_s < now_s - drop_age_s; dropped_++) {
            waiting_.pop_front();
        }
    }
    if (waiting_.empty()) {
        return true;
    }
    const auto publisher = block();
    if (!publisher) {
        return false;
    }
    const std::size_t queued = queued_at_readers(*publisher, port_);
    if (queued < in_flight_) {
        progress_s_ = now_s;
        stalled_ = false;
    } else if (now_s - progress_s_ > stalled_s) {
        stalled_ = true;
    }
    for (std::size_t room = in_flight_ - std::min(queued, in_flight_); room > 0 && !waiting_.empty();
         room--) {
        publisher->message_port_pub(port_, waiting_.front().message);
        waiting_.pop_front();
    }
    return waiting_.empty();
}

void MessageOutbox::drain() {
    while (!flush() && !stalled_ && !is_cancelled()) {
        std::this_thread::sleep_for(poll);
    }
    clear();
}

void MessageOutbox::open() {
    closed_ = false;
    clear();
    dropped_ = 0;
}

void MessageOutbox::close() {
    closed_ = true;
    clear();
}

bool MessageOutbox::may_wait() const {
    return holds_back_ && !stalled_ && !is_cancelled();
}

bool MessageOutbox::is_cancelled() const {
    return closed_ || boost::this_thread::interruption_requested();
}

bool MessageOutbox::is_over() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return waiting_.size() > limit_;
}

void MessageOutbox::clear() {
    const std::lock_guard<std::mutex> lock(mutex_);
    dropped_ += waiting_.size();
    waiting_.clear();
}

gr::basic_block_sptr MessageOutbox::block() {
    auto found = block_.lock();
    if (!found) {
        found = find_block(name_);
        block_ = found;
    }
    return found;
}

} // namespace wavesfm
