// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/engine.h>
#include <gnuradio/wavesfm/spectrogram_tiler.h>

#include <memory>
#include <string>
#include <vector>

//! What this example needs of a bundle: the geometry of its tiles, its labels, and its network in an engine.
//! It trusts the bundle: `wavesfm check BUNDLE` verifies hashes and golden outputs.
struct Model {
    wavesfm::TilerSettings tiles;
    std::vector<std::string> labels;
    double temperature; //!< by which logits are divided
    std::shared_ptr<wavesfm::Engine> engine;
    std::size_t tile_input;               //!< index of the input for tiles
    std::vector<std::size_t> rate_inputs; //!< indices of the inputs for log10 of the sample rate, none or one
};

//! Opens a bundle of spectrograms.
//!
//! \param bundle   directory of the bundle
//! \param runtime  "openvino" or "onnxruntime"
//! \param library  path of libopenvino_c.so or libonnxruntime.so
//! \param threads  of the engine, 0 for the runtime's choice
//! \throws std::exception for a bundle that cannot be read, EngineError for one that the runtime refuses
Model open_model(const std::string& bundle, const std::string& runtime, const std::string& library,
                 unsigned threads);
