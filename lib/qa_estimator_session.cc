// SPDX-License-Identifier: GPL-3.0-or-later
// The estimator's session with several threads: accounts close under every policy, with failures, with a
// method that hangs and while settings change.
#include "qa.h"

#include <gnuradio/wavesfm/estimator_session.h>

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <thread>

using namespace wavesfm;

namespace {

using Complex = std::complex<float>;

SlotLayout layout() {
    return {2, 8, {2, 2, 2}, {-2, -1, 0, 1}, 30e3, {1}, {0, 1, 2, 3}, {{1, 0}, {0, 1}, {-1, 0}, {0, -1}}};
}

// Writes the received grid as the channel; may fail or wait.
class Echo : public ChannelMethod {
public:
    Echo() : ChannelMethod("echo") {}

    void estimate(const SlotBatch& batch, const std::vector<Complex*>& channels) override {
        {
            std::unique_lock<std::mutex> lock(mutex);
            calls++;
            changed.notify_all();
            changed.wait(lock, [this] { return !held; });
        }
        if (fails) {
            throw EstimationFault("echo", "estimate", "a failure", "none");
        }
        for (std::size_t i = 0; i < channels.size(); i++) {
            std::copy_n(batch.grids[i], layout().grid_size(), channels[i]);
        }
    }

    void hold(bool value) {
        const std::lock_guard<std::mutex> lock(mutex);
        held = value;
        changed.notify_all();
    }

    void await_call() {
        std::unique_lock<std::mutex> lock(mutex);
        changed.wait(lock, [this] { return calls > 0; });
    }

    std::atomic<bool> fails{false};

private:
    std::mutex mutex;
    std::condition_variable changed;
    bool held = false;
    int calls = 0;
};

Slot slot(std::uint64_t start) {
    const auto values = complex_noise(layout().grid_size(), static_cast<unsigned>(start));
    Slot made;
    made.grid = HeapGrids().allocate(values.size());
    std::copy(values.begin(), values.end(), made.grid.data);
    made.start_sample = start;
    return made;
}

struct Fixture {
    Fixture(OverrunPolicy policy, EstimatorOptions options) {
        const std::vector<Complex> modes(4, Complex(0.5f, 0.0f));
        auto observer = std::make_shared<PilotObserver>(layout(), modes.data(), 1);
        pipeline = std::make_shared<ChannelPipeline>(observer, method, method, std::make_shared<BackOff>());
        EstimatorEvents events;
        events.on_answers = [this](const std::vector<SlotAnswer>& answers) {
            published += answers.size();
            return std::vector<std::string>();
        };
        events.on_failure = [this](const std::string&, const std::string&, std::uint64_t n) { failed += n; };
        session = std::make_unique<EstimatorSession>(pipeline, options, policy, events);
    }

    bool closes() const {
        const auto a = session->accounts();
        return a.slots_in == a.estimated + a.dropped + a.failed + a.waiting;
    }

    std::shared_ptr<Echo> method = std::make_shared<Echo>();
    std::shared_ptr<ChannelPipeline> pipeline;
    std::atomic<std::uint64_t> published{0}, failed{0};
    std::unique_ptr<EstimatorSession> session;
};

void two_senders_lose_nothing() {
    Fixture f(OverrunPolicy::block, {4, 3, 0.0, 0.0});
    std::vector<std::thread> senders;
    for (std::uint64_t sender = 0; sender < 2; sender++) {
        senders.emplace_back([&f, sender] {
            for (std::uint64_t i = 0; i < 200; i++) {
                REQUIRE(f.session->take(slot(1000 * sender + i), nullptr));
            }
        });
    }
    for (int i = 0; i < 100; i++) {
        REQUIRE(f.closes());
        f.pipeline->set_method(f.method);
    }
    for (auto& sender : senders) {
        sender.join();
    }
    REQUIRE(f.session->drain(nullptr) && f.published == 400 && f.closes());
    REQUIRE(f.session->close(std::nullopt) && f.session->accounts().estimated == 400);
}

void what_does_not_fit_is_dropped_and_counted(OverrunPolicy policy) {
    Fixture f(policy, {2, 1, 0.0, 0.0});
    f.method->hold(true);
    f.session->take(slot(0), nullptr);
    f.method->await_call();
    for (std::uint64_t i = 1; i < 8; i++) {
        f.session->take(slot(i), nullptr);
    }
    REQUIRE(f.session->accounts().dropped == 5 && f.closes());
    f.method->hold(false);
    REQUIRE(f.session->drain(nullptr) && f.published == 3 && f.closes());
}

void failures_are_counted_and_the_rest_goes_on() {
    Fixture f(OverrunPolicy::block, {4, 1, 0.0, 0.0});
    f.method->fails = true;
    f.session->take(slot(0), nullptr);
    REQUIRE(f.session->drain(nullptr));
    f.method->fails = false;
    Slot silent = slot(1);
    std::fill_n(silent.grid.data, layout().grid_size(), Complex(0.0f));
    f.session->take(std::move(silent), nullptr);
    f.session->take(slot(2), nullptr);
    f.session->refuse("shape: found 1, expected 2");
    f.session->discard();
    REQUIRE(f.session->drain(nullptr) && f.closes());
    const auto accounts = f.session->accounts();
    REQUIRE(accounts.failed == 2 && accounts.estimated == 1 && accounts.refused == 1 &&
            accounts.dropped == 1);
    REQUIRE(f.failed == 3 && f.published == 1);
}

void a_method_that_hangs_is_given_up() {
    auto f = std::make_unique<Fixture>(OverrunPolicy::block, EstimatorOptions{4, 1, 0.0, 0.0});
    const auto method = f->method;
    method->hold(true);
    f->session->take(slot(0), nullptr);
    f->session->take(slot(1), nullptr);
    method->await_call();
    REQUIRE(!f->session->drain([] { return true; }));
    REQUIRE(!f->session->close(0.01) && f->closes());
    REQUIRE(f->session->accounts().failed == 1 && f->session->accounts().dropped == 1);
    f.reset();
    method->hold(false); // the thread ends after its session
}

} // namespace

int main() {
    two_senders_lose_nothing();
    what_does_not_fit_is_dropped_and_counted(OverrunPolicy::drop_oldest);
    what_does_not_fit_is_dropped_and_counted(OverrunPolicy::drop_newest);
    failures_are_counted_and_the_rest_goes_on();
    a_method_that_hangs_is_given_up();
    return 0;
}
