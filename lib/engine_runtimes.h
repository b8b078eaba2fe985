// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/engine_adapter.h>

#include <functional>

namespace wavesfm {

std::unique_ptr<EngineAdapter> open_openvino(const wavesfm_engine_options& options);
std::unique_ptr<EngineAdapter> open_onnxruntime(const wavesfm_engine_options& options);

//! Calls, and turns an exception into its status and text; error may be null.
wavesfm_status guarded(char* error, std::size_t error_bytes, const std::function<void()>& call);

} // namespace wavesfm
