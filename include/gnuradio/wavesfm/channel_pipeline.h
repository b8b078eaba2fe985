// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/channel_methods.h>
#include <gnuradio/wavesfm/pilot_observation.h>
#include <gnuradio/wavesfm/slot.h>

#include <cstdint>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

namespace wavesfm {

//! Fallback to least squares by SNR and by the residual at the pilots, with hysteresis; of one stream.
struct BackOff {
    static constexpr double never = std::numeric_limits<double>::infinity();

    double enter_db = never, leave_db = never;             //!< SNR of beginning and end
    double residual_enter = never, residual_leave = never; //!< residual of beginning and end
    bool active = false;                                   //!< whether least squares replace the method
    std::uint64_t switches = 0;                            //!< changes of `active` so far

    //! Updates the state with the next slot; true if least squares replace the method for it.
    WAVESFM_API bool update(double snr_db, double residual);
};

//! An estimate of the channel of one slot, and its quality as measured at the pilots.
struct ChannelEstimate {
    Grid channel;                  //!< [A, S, F], in the units of the received grid
    std::string method, bundle_id; //!< names; bundle_id "" without a model
    double noise_power = 0.0;      //!< per antenna and subcarrier
    double snr_db = 0.0;           //!< limited to -40 to 80 dB
    double residual = 0.0;         //!< mean |y - h x|^2 at the pilots over noise_power
    double nmse_db = 0.0;          //!< expected squared error over the channel's power; NaN when unknown
    bool backed_off = false;       //!< least squares replaced the method; `residual` is of what was rejected
    std::optional<double> latency_s; //!< from the arrival of the last sample to this estimate
};

//! A slot and its estimate, or why there is none.
struct SlotAnswer {
    Slot slot;
    ChannelEstimate estimate;
    std::optional<Refusal> refusal;
};

//! Estimates the channels of one stream of slots; `predict` is used by one thread at a time, the rest by any.
class WAVESFM_API ChannelPipeline {
public:
    //! \param fallback  what replaces the method when it backs off
    ChannelPipeline(std::shared_ptr<const PilotObserver> observer, std::shared_ptr<ChannelMethod> fallback,
                    std::shared_ptr<ChannelMethod> method, std::shared_ptr<BackOff> back_off);

    //! Answers each slot in order; invalid slots do not affect the others. Throws EstimationFault.
    std::vector<SlotAnswer> predict(std::vector<Slot> slots);
    //! Sets the method from the next call of `predict` on.
    void set_method(std::shared_ptr<ChannelMethod> method);
    //! Where the memory of the channels comes from; by default the heap.
    void set_allocator(std::shared_ptr<GridAllocator> allocator);

    const SlotLayout& layout() const { return observer_->layout(); }
    //! Slots so far that could not be estimated.
    std::uint64_t failed() const { return failed_; }
    //! Slots so far for which least squares replaced the method.
    std::uint64_t backed_off() const { return backed_off_; }

private:
    void estimate(ChannelMethod& method, const std::vector<SlotAnswer*>& answers);
    void replace(const std::vector<std::size_t>& places, const SlotBatch& batch,
                 const std::vector<SlotAnswer*>& answers);

    const std::shared_ptr<const PilotObserver> observer_;
    const std::shared_ptr<ChannelMethod> fallback_;
    const std::shared_ptr<BackOff> back_off_;
    std::mutex mutex_; // guards method_ and allocator_
    std::shared_ptr<ChannelMethod> method_, last_;
    std::shared_ptr<GridAllocator> allocator_;
    std::uint64_t failed_ = 0, backed_off_ = 0;
};

//! Seconds of the monotonic clock.
WAVESFM_API double monotonic_s();

} // namespace wavesfm
