// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/channel_pipeline.h>

#include <algorithm>
#include <chrono>
#include <cmath>

namespace wavesfm {

bool BackOff::update(double snr_db, double residual) {
    const bool was_active = active;
    active = active ? !(snr_db < leave_db && residual < residual_leave)
                    : snr_db >= enter_db || residual >= residual_enter;
    switches += active != was_active;
    return active;
}

double monotonic_s() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

ChannelPipeline::ChannelPipeline(std::shared_ptr<const PilotObserver> observer,
                                 std::shared_ptr<ChannelMethod> fallback,
                                 std::shared_ptr<ChannelMethod> method, std::shared_ptr<BackOff> back_off)
    : observer_(std::move(observer)), fallback_(std::move(fallback)), back_off_(std::move(back_off)),
      method_(std::move(method)), allocator_(std::make_shared<HeapGrids>()) {}

void ChannelPipeline::set_method(std::shared_ptr<ChannelMethod> method) {
    const std::lock_guard<std::mutex> lock(mutex_);
    method_ = std::move(method);
}

void ChannelPipeline::set_allocator(std::shared_ptr<GridAllocator> allocator) {
    const std::lock_guard<std::mutex> lock(mutex_);
    allocator_ = std::move(allocator);
}

std::vector<SlotAnswer> ChannelPipeline::predict(std::vector<Slot> slots) {
    std::vector<SlotAnswer> answers(slots.size());
    std::vector<SlotAnswer*> good;
    std::shared_ptr<ChannelMethod> method;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        method = method_;
        for (std::size_t i = 0; i < slots.size(); i++) {
            answers[i].slot = std::move(slots[i]);
            answers[i].refusal = observer_->refuse(answers[i].slot.grid.data);
            if (!answers[i].refusal) {
                answers[i].estimate.channel = allocator_->allocate(layout().grid_size());
                good.push_back(&answers[i]);
            }
        }
    }
    if (back_off_ && method != last_) {
        back_off_->active = false; // of another estimator
    }
    last_ = method;
    failed_ += answers.size() - good.size();
    if (!good.empty()) {
        estimate(*method, good);
    }
    return answers;
}

void ChannelPipeline::estimate(ChannelMethod& method, const std::vector<SlotAnswer*>& answers) {
    SlotBatch batch;
    std::vector<std::complex<float>*> channels;
    for (const auto* answer : answers) {
        batch.grids.push_back(answer->slot.grid.data);
        channels.push_back(answer->estimate.channel.data);
    }
    batch.seen = observer_->observe(batch.grids);
    method.estimate(batch, channels);
    std::vector<std::size_t> replaced;
    for (std::size_t i = 0; i < answers.size(); i++) {
        auto& estimate = answers[i]->estimate;
        estimate.method = method.name;
        estimate.bundle_id = method.bundle_id;
        estimate.noise_power = batch.seen.noise_power[i];
        estimate.snr_db = batch.seen.snr_db(i);
        estimate.residual = observer_->residual(channels[i], batch.seen, i);
        const double beyond =
            std::max(estimate.residual - 1.0, 0.0) * std::pow(10.0, -estimate.snr_db / 10.0);
        estimate.nmse_db = 10.0 * std::log10(method.error(estimate.snr_db) + beyond);
        if (back_off_ && !method.is_least_squares() &&
            back_off_->update(estimate.snr_db, estimate.residual)) {
            replaced.push_back(i);
        }
    }
    if (!replaced.empty()) {
        replace(replaced, batch, answers);
    }
    const double now_s = monotonic_s();
    for (auto* answer : answers) {
        if (answer->slot.arrived_s) {
            answer->estimate.latency_s = now_s - *answer->slot.arrived_s;
        }
    }
}

void ChannelPipeline::replace(const std::vector<std::size_t>& places, const SlotBatch& batch,
                              const std::vector<SlotAnswer*>& answers) {
    const auto n = static_cast<std::ptrdiff_t>(layout().pilot_size());
    SlotBatch part;
    std::vector<std::complex<float>*> channels;
    for (const auto place : places) {
        const auto ls = batch.seen.ls.begin() + static_cast<std::ptrdiff_t>(place) * n;
        part.seen.ls.insert(part.seen.ls.end(), ls, ls + n);
        part.seen.noise_power.push_back(batch.seen.noise_power[place]);
        part.seen.signal_power.push_back(batch.seen.signal_power[place]);
        part.grids.push_back(batch.grids[place]);
        channels.push_back(answers[place]->estimate.channel.data);
    }
    fallback_->estimate(part, channels);
    for (const auto place : places) {
        auto& estimate = answers[place]->estimate;
        estimate.method = fallback_->name;
        estimate.bundle_id = "";
        estimate.backed_off = true;
        estimate.nmse_db = 10.0 * std::log10(fallback_->error(estimate.snr_db));
    }
    backed_off_ += places.size();
}

} // namespace wavesfm
