// SPDX-License-Identifier: GPL-3.0-or-later
#include "model.h"

#include <boost/property_tree/json_parser.hpp>
#include <boost/property_tree/ptree.hpp>

using boost::property_tree::ptree;

namespace {

wavesfm::TilerSettings tiles_of(const ptree& p) {
    wavesfm::TilerSettings tiles;
    tiles.fft_size = p.get<std::size_t>("fft_size");
    tiles.hop_samples = p.get<std::size_t>("hop_samples");
    tiles.window = p.get<std::string>("window");
    tiles.frames_averaged = p.get<std::size_t>("frames_averaged");
    tiles.rows_per_tile = p.get<std::size_t>("rows_per_tile");
    tiles.min_rows = p.get<std::size_t>("min_rows");
    tiles.floor_db = p.get<double>("floor_db");
    tiles.height = p.get<std::size_t>("height");
    tiles.width = p.get<std::size_t>("width");
    tiles.reference = p.get<std::string>("reference");
    tiles.low_db = p.get<double>("low_db");
    tiles.high_db = p.get<double>("high_db");
    tiles.mean = p.get<double>("mean");
    tiles.std = p.get<double>("std");
    tiles.remove_dc = p.get<bool>("remove_dc", false);
    return tiles;
}

} // namespace

Model open_model(const std::string& bundle, const std::string& runtime, const std::string& library,
                 unsigned threads) {
    ptree description;
    boost::property_tree::read_json(bundle + "/bundle.json", description);
    Model model;
    model.tiles = tiles_of(description.get_child("preprocess"));
    for (const auto& label : description.get_child("head.labels")) {
        model.labels.push_back(label.second.get_value<std::string>());
    }
    model.temperature = description.get<double>("head.temperature", 1.0);
    model.engine = wavesfm::Engine::open(runtime, library, bundle + "/model.onnx", "f32", threads);
    for (const auto& input : description.get_child("inputs")) {
        const auto index = model.engine->input(input.second.get<std::string>("name"));
        if (input.second.get<std::string>("source") == "tile") {
            model.tile_input = index;
        } else {
            model.rate_inputs.push_back(index);
        }
    }
    return model;
}
