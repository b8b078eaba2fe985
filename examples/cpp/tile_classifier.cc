// SPDX-License-Identifier: GPL-3.0-or-later
#include "tile_classifier.h"

#include <gnuradio/io_signature.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace {

constexpr std::size_t queue_tiles = 64;

double probability_of_best(const std::vector<float>& logits, std::size_t best, double temperature) {
    double sum = 0.0;
    for (const float logit : logits) {
        sum += std::exp((static_cast<double>(logit) - static_cast<double>(logits[best])) / temperature);
    }
    return 1.0 / sum;
}

} // namespace

tile_classifier::sptr tile_classifier::make(Model model, double rate_hz) {
    return gnuradio::get_initial_sptr(new tile_classifier(std::move(model), rate_hz));
}

tile_classifier::tile_classifier(Model model, double rate_hz)
    : gr::sync_block("tile_classifier", gr::io_signature::make(1, 1, sizeof(gr_complex)),
                     gr::io_signature::make(0, 0, 0)),
      model_(std::move(model)), stream_(model_.tiles, rate_hz), thread_([this] { run(); }) {}

tile_classifier::~tile_classifier() {
    finish();
}

int tile_classifier::work(int n, gr_vector_const_void_star& in, gr_vector_void_star&) {
    submit(stream_.push(static_cast<const gr_complex*>(in[0]), static_cast<std::size_t>(n)));
    return n;
}

void tile_classifier::finish() {
    if (thread_.joinable()) {
        submit(stream_.finish());
        {
            std::lock_guard<std::mutex> lock(mutex_);
            ended_ = true;
        }
        changed_.notify_all();
        thread_.join();
    }
}

void tile_classifier::submit(std::vector<wavesfm::Tile>&& tiles) {
    for (auto& tile : tiles) {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return waiting_.size() < queue_tiles; });
        waiting_.push_back(std::move(tile));
        changed_.notify_all();
    }
}

void tile_classifier::run() {
    for (;;) {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [this] { return !waiting_.empty() || ended_; });
        if (waiting_.empty()) {
            return;
        }
        const auto tile = std::move(waiting_.front());
        waiting_.pop_front();
        lock.unlock();
        changed_.notify_all();
        try {
            classify(tile);
        } catch (const wavesfm::EngineError& error) {
            std::fprintf(stderr, "tile at sample %llu: %s\n",
                         static_cast<unsigned long long>(tile.cells.start_sample), error.what());
        }
    }
}

void tile_classifier::classify(const wavesfm::Tile& tile) {
    const float log10_rate = tile.rate_hz > 0.0 ? static_cast<float>(std::log10(tile.rate_hz)) : 0.0f;
    std::vector<const float*> inputs(model_.engine->inputs().size());
    inputs[model_.tile_input] = tile.cells.data.data();
    for (const auto index : model_.rate_inputs) {
        inputs[index] = &log10_rate;
    }
    std::vector<float> logits(model_.labels.size());
    float* outputs[] = {logits.data()};
    model_.engine->run(1, inputs.data(), outputs);
    const auto best =
        static_cast<std::size_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    std::printf("%llu %llu %s %.3f\n", static_cast<unsigned long long>(tile.cells.start_sample),
                static_cast<unsigned long long>(tile.cells.n_samples), model_.labels[best].c_str(),
                probability_of_best(logits, best, model_.temperature));
}
