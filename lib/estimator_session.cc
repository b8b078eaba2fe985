// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/estimator_session.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <deque>
#include <mutex>
#ifdef __linux__
#include <pthread.h>
#endif
#include <thread>
#include <utility>

namespace wavesfm {

namespace {

constexpr double poll_s = 0.05;      // how often a wait looks whether it was cancelled
constexpr double speed_weight = 0.3; // of the newest batch in the running mean of the seconds per slot
constexpr double forever_s = 3600.0;

const char* name_of(OverrunPolicy policy) {
    return policy == OverrunPolicy::block         ? "block"
           : policy == OverrunPolicy::drop_oldest ? "drop_oldest"
                                                  : "drop_newest";
}

} // namespace

struct EstimatorSession::State {
    struct Waiting {
        Slot slot;
        double queued_s;
    };

    State(std::shared_ptr<ChannelPipeline> pipeline, const EstimatorOptions& options, OverrunPolicy policy,
          EstimatorEvents events)
        : pipeline(std::move(pipeline)), options(options),
          batch_slots(std::min(options.batch_slots, options.queue_slots)), events(std::move(events)),
          policy(policy) {}

    using Lock = std::unique_lock<std::mutex>;

    void work();
    bool next_batch(std::vector<Slot>& batch);
    void process(std::vector<Slot> batch);
    void publish(std::vector<SlotAnswer> answers);
    void note(const SlotAnswer& answer);
    void note_failure(const std::string& cause, const std::string& text, std::uint64_t n_slots);
    void drop_old();
    std::size_t batch_limit() const;
    bool full() const { return queue.size() >= options.queue_slots; }
    void wait(Lock& lock, double seconds) {
        changed.wait_for(lock, std::chrono::duration<double>(std::min(seconds, forever_s)));
    }
    double batch_s() const { return began_s ? monotonic_s() - *began_s : 0.0; }

    const std::shared_ptr<ChannelPipeline> pipeline;
    const EstimatorOptions options;
    const std::size_t batch_slots;
    const EstimatorEvents events;
    std::thread thread;
    mutable std::mutex mutex; // guards what follows
    std::condition_variable changed;
    std::deque<Waiting> queue;
    OverrunPolicy policy;
    EstimatorAccounts accounts;
    std::optional<double> began_s; // of the running batch
    std::size_t in_work = 0;       // slots of the running batch that are not booked yet
    double slot_s = 0.0;           // running mean of the seconds per slot
    bool closed = false, abandoned = false, drop_warned = false, was_backed_off = false;
};

// ---- the caller's side

EstimatorSession::EstimatorSession(std::shared_ptr<ChannelPipeline> pipeline, const EstimatorOptions& options,
                                   OverrunPolicy policy, EstimatorEvents events)
    : state_(std::make_shared<State>(std::move(pipeline), options, policy, std::move(events))) {
    state_->thread = std::thread([state = state_] { state->work(); });
}

EstimatorSession::~EstimatorSession() {
    close(std::nullopt);
}

bool EstimatorSession::take(Slot slot, const std::function<bool()>& cancelled) {
    State& s = *state_;
    bool is_taken = false, is_first_drop = false;
    {
        State::Lock lock(s.mutex);
        bool gave_up = false;
        while (s.full() && s.policy == OverrunPolicy::block && !s.closed && !gave_up) {
            s.wait(lock, poll_s);
            gave_up = cancelled && cancelled();
        }
        s.accounts.slots_in++;
        if (s.closed || gave_up || (s.full() && s.policy == OverrunPolicy::drop_newest)) {
            s.accounts.dropped++;
        } else {
            if (s.full()) {
                s.queue.pop_front();
                s.accounts.dropped++;
                s.accounts.waiting--;
            }
            s.queue.push_back({std::move(slot), monotonic_s()});
            s.accounts.waiting++;
            is_taken = true;
            s.changed.notify_all();
        }
        is_first_drop = s.accounts.dropped && !s.drop_warned && !gave_up && !s.closed;
        s.drop_warned = s.drop_warned || is_first_drop;
    }
    if (is_first_drop && s.events.on_drop && !(cancelled && cancelled())) {
        s.events.on_drop(name_of(policy()));
    }
    return is_taken;
}

void EstimatorSession::discard() {
    const State::Lock lock(state_->mutex);
    state_->accounts.slots_in++;
    state_->accounts.dropped++;
}

void EstimatorSession::refuse(const std::string& text) {
    {
        const State::Lock lock(state_->mutex);
        state_->accounts.refused++;
    }
    state_->note_failure("refused " + text.substr(0, text.find(':')), "grid: " + text + "; it is ignored", 1);
}

bool EstimatorSession::drain(const std::function<bool()>& cancelled) {
    State& s = *state_;
    State::Lock lock(s.mutex);
    while (!s.queue.empty() || s.began_s) {
        if (cancelled) {
            lock.unlock(); // it may ask for the accounts
            const bool is_cancelled = cancelled();
            lock.lock();
            if (is_cancelled) {
                return false;
            }
            if (s.queue.empty() && !s.began_s) {
                break;
            }
        }
        s.wait(lock, poll_s);
    }
    return true;
}

bool EstimatorSession::close(std::optional<double> timeout_s) {
    State& s = *state_;
    State::Lock lock(s.mutex);
    if (s.abandoned) {
        return false;
    }
    s.closed = true;
    s.accounts.dropped += s.queue.size();
    s.accounts.waiting -= s.queue.size();
    s.queue.clear();
    s.changed.notify_all();
    if (!s.thread.joinable()) {
        return true;
    }
    const double end_s = timeout_s ? monotonic_s() + *timeout_s : 0.0;
    while (s.began_s && (!timeout_s || monotonic_s() < end_s)) {
        s.wait(lock, timeout_s ? std::max(0.0, end_s - monotonic_s()) : forever_s);
    }
    if (s.began_s) {
        s.abandoned = true;
        s.accounts.waiting -= s.in_work;
        s.accounts.failed += s.in_work;
        s.in_work = 0;
        char text[64];
        std::snprintf(text, sizeof text, "the engine has not returned for %.0f s", s.batch_s());
        s.accounts.last_error = text;
        s.thread.detach();
        return false;
    }
    lock.unlock();
    s.thread.join();
    return true;
}

void EstimatorSession::set_policy(OverrunPolicy policy) {
    const State::Lock lock(state_->mutex);
    state_->policy = policy;
    state_->changed.notify_all();
}

OverrunPolicy EstimatorSession::policy() const {
    const State::Lock lock(state_->mutex);
    return state_->policy;
}

EstimatorAccounts EstimatorSession::accounts() const {
    const State::Lock lock(state_->mutex);
    return state_->accounts;
}

double EstimatorSession::batch_s() const {
    const State::Lock lock(state_->mutex);
    return state_->batch_s();
}

// ---- the thread

void EstimatorSession::State::work() {
#ifdef __linux__
    pthread_setname_np(pthread_self(), "wavesfm-channel");
#endif
    std::vector<Slot> batch;
    while (next_batch(batch)) {
        process(std::move(batch));
        batch.clear();
        const Lock lock(mutex);
        began_s.reset();
        changed.notify_all();
    }
}

// Waits for slots; false once closed. The slots still count as waiting.
bool EstimatorSession::State::next_batch(std::vector<Slot>& batch) {
    Lock lock(mutex);
    for (;;) {
        while (queue.empty() && !closed) {
            changed.wait(lock);
        }
        drop_old();
        while (!queue.empty() && queue.size() < batch_limit() && !closed) {
            const double left_s = queue.front().queued_s + options.batch_wait_s - monotonic_s();
            if (left_s <= 0.0) {
                break;
            }
            wait(lock, left_s);
        }
        if (closed) {
            return false;
        }
        if (!queue.empty()) {
            break;
        }
    }
    const std::size_t count = std::min(batch_limit(), queue.size());
    began_s = monotonic_s();
    in_work = count;
    for (std::size_t i = 0; i < count; i++) {
        batch.push_back(std::move(queue.front().slot));
        queue.pop_front();
    }
    changed.notify_all();
    return true;
}

// Most slots of a batch: with an age limit no more than are estimated within that time.
std::size_t EstimatorSession::State::batch_limit() const {
    if (options.max_age_s > 0.0 && slot_s > 0.0) {
        const double most = std::min(options.max_age_s / slot_s, static_cast<double>(batch_slots));
        return std::max<std::size_t>(1, static_cast<std::size_t>(most));
    }
    return batch_slots;
}

void EstimatorSession::State::drop_old() {
    if (options.max_age_s <= 0.0) {
        return;
    }
    const double oldest_s = monotonic_s() - options.max_age_s;
    while (!queue.empty() && queue.front().slot.arrived_s.value_or(queue.front().queued_s) < oldest_s) {
        queue.pop_front();
        accounts.dropped++;
        accounts.waiting--;
        accounts.too_old++;
        changed.notify_all();
    }
}

void EstimatorSession::State::process(std::vector<Slot> batch) {
    const std::size_t count = batch.size();
    const double start_s = monotonic_s();
    std::vector<SlotAnswer> answers;
    std::string cause, text;
    try {
        answers = pipeline->predict(std::move(batch));
    } catch (const EstimationFault& fault) {
        cause = fault.field;
        text = fault.what();
    } catch (const std::exception& error) {
        cause = "inference";
        text = std::string("worker: inference: found ") + error.what() + ", expected no exception";
    }
    std::vector<SlotAnswer> good;
    std::vector<std::pair<std::string, std::string>> refused; // cause and sentence
    for (auto& answer : answers) {
        if (answer.refusal) {
            const Refusal& r = *answer.refusal;
            refused.emplace_back(r.field, "slot at sample " + std::to_string(answer.slot.start_sample) +
                                              ": " + r.field + ": found " + r.found + ", expected " +
                                              r.expected);
        } else {
            good.push_back(std::move(answer));
        }
    }
    const bool has_failed = !text.empty();
    {
        const Lock lock(mutex);
        if (abandoned) {
            return; // it was booked then
        }
        const double each_s = (monotonic_s() - start_s) / static_cast<double>(count);
        slot_s += has_failed ? 0.0 : slot_s > 0.0 ? speed_weight * (each_s - slot_s) : each_s;
        accounts.waiting -= count;
        accounts.estimated += good.size();
        accounts.failed += has_failed ? count : refused.size();
        accounts.batches++;
        in_work = 0;
    }
    if (has_failed) {
        note_failure(cause, text, count);
    }
    for (const auto& [field, sentence] : refused) {
        note_failure(field, sentence, 1);
    }
    if (!good.empty()) {
        publish(std::move(good));
    }
}

void EstimatorSession::State::publish(std::vector<SlotAnswer> answers) {
    std::vector<std::string> faults;
    try {
        faults = events.on_answers(answers);
    } catch (const std::exception& error) {
        faults.assign(answers.size(), error.what());
    }
    for (std::size_t i = 0; i < answers.size(); i++) {
        if (i >= faults.size() || faults[i].empty()) {
            note(answers[i]);
            continue;
        }
        {
            const Lock lock(mutex);
            accounts.estimated--;
            accounts.failed++;
        }
        const std::string text =
            "slot at sample " + std::to_string(answers[i].slot.start_sample) + ": " + faults[i];
        note_failure("publishing " + faults[i].substr(0, faults[i].find(':')), text, 1);
    }
}

void EstimatorSession::State::note(const SlotAnswer& answer) {
    bool is_changed = false;
    {
        const Lock lock(mutex);
        accounts.backed_off += answer.estimate.backed_off;
        accounts.last = answer.estimate;
        accounts.last->channel = Grid();
        is_changed = answer.estimate.backed_off != was_backed_off;
        was_backed_off = answer.estimate.backed_off;
    }
    if (is_changed && events.on_back_off) {
        events.on_back_off(answer);
    }
}

void EstimatorSession::State::note_failure(const std::string& cause, const std::string& text,
                                           std::uint64_t n_slots) {
    {
        const Lock lock(mutex);
        accounts.last_error = text;
    }
    if (events.on_failure) {
        events.on_failure(cause, text, n_slots);
    }
}

} // namespace wavesfm
