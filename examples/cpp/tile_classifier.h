// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include "model.h"

#include <gnuradio/sync_block.h>
#include <gnuradio/wavesfm/tile_stream.h>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

//! A sink that cuts its stream into tiles and prints the most probable label of each. The engine runs on a
//! thread of the block; a full queue holds the stream back.
class tile_classifier : public gr::sync_block {
public:
    using sptr = std::shared_ptr<tile_classifier>;
    static sptr make(Model model, double rate_hz);
    ~tile_classifier() override;

    int work(int n, gr_vector_const_void_star& in, gr_vector_void_star& out) override;
    //! Classifies what is left, after the flowgraph has ended.
    void finish();

private:
    tile_classifier(Model model, double rate_hz);
    void submit(std::vector<wavesfm::Tile>&& tiles);
    void run();
    void classify(const wavesfm::Tile& tile);

    const Model model_;
    wavesfm::TileStream stream_;
    std::mutex mutex_; // guards what follows
    std::condition_variable changed_;
    std::deque<wavesfm::Tile> waiting_;
    bool ended_ = false;
    std::thread thread_;
};
