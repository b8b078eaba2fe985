// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/channel_pipeline.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

namespace wavesfm {

//! What happens to a slot that finds the queue full.
enum class OverrunPolicy { block, drop_oldest, drop_newest };

//! Limits of an EstimatorSession.
struct EstimatorOptions {
    std::size_t queue_slots = 64; //!< most slots that wait
    std::size_t batch_slots = 32; //!< a batch is estimated when this many wait
    double batch_wait_s = 0.01;   //!< a smaller one when its first slot has waited this long
    double max_age_s = 0.0;       //!< older slots are dropped when their batch begins; 0: none
};

//! Counts of slots by outcome; at every moment slots_in = estimated + dropped + failed + waiting.
struct EstimatorAccounts {
    std::uint64_t slots_in = 0;          //!< taken
    std::uint64_t estimated = 0;         //!< whose channel was published
    std::uint64_t dropped = 0;           //!< discarded without an estimate
    std::uint64_t too_old = 0;           //!< of these, by max_age_s
    std::uint64_t failed = 0;            //!< whose channel could not be estimated or not be published
    std::uint64_t waiting = 0;           //!< in the queue or in work
    std::uint64_t batches = 0;           //!< that were estimated
    std::uint64_t backed_off = 0;        //!< estimates by least squares in place of the method's
    std::uint64_t refused = 0;           //!< messages that were no slot; not in slots_in
    std::string last_error;              //!< text of the last error, "" for none
    std::optional<ChannelEstimate> last; //!< without its channel
};

//! What an EstimatorSession calls: `on_answers` on its own thread, the others on any.
struct EstimatorEvents {
    //! Called with the estimates of a batch in order; returns for each "" or why it was not published.
    std::function<std::vector<std::string>(const std::vector<SlotAnswer>&)> on_answers;
    //! Called when back-off begins or ends, with the first estimate of the new state.
    std::function<void(const SlotAnswer&)> on_back_off;
    //! Called once, with the policy's name, when slots begin to be dropped.
    std::function<void(const std::string&)> on_drop;
    //! Called with the cause, a sentence and the number of slots that failed.
    std::function<void(const std::string&, const std::string&, std::uint64_t)> on_failure;
};

//! Slots in, estimates out: a bounded queue and a thread that no exception ends, with accounts that close.
class WAVESFM_API EstimatorSession {
public:
    EstimatorSession(std::shared_ptr<ChannelPipeline> pipeline, const EstimatorOptions& options,
                     OverrunPolicy policy, EstimatorEvents events);
    //! Ends the thread as `close` without a limit does.
    ~EstimatorSession();

    //! Queues a slot; under the policy `block` waits for room until `cancelled` returns true. Returns false
    //! if the slot was dropped.
    bool take(Slot slot, const std::function<bool()>& cancelled);
    //! Counts a slot that came while the flowgraph was being stopped as dropped.
    void discard();
    //! Counts a message that is no grid of this numerology.
    void refuse(const std::string& text);
    //! Waits until all estimates were handed over; false if cancelled.
    bool drain(const std::function<bool()>& cancelled);
    //! Drops waiting slots, lets the running batch end, ends the thread. After `timeout_s` the thread is
    //! abandoned: its batch counts as failed, what it still returns is ignored, and false is returned.
    bool close(std::optional<double> timeout_s);

    void set_policy(OverrunPolicy policy);
    OverrunPolicy policy() const;
    //! A consistent copy.
    EstimatorAccounts accounts() const;
    //! Seconds since the running batch began, 0 between batches.
    double batch_s() const;

private:
    struct State; // shared with the thread, which may outlive the session when abandoned
    const std::shared_ptr<State> state_;
};

} // namespace wavesfm
