// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/engine.h>

#include <memory>
#include <string>
#include <vector>

namespace wavesfm {

//! Base of engines that are written in C++: a constructor fills the description, make_engine puts it behind
//! the C interface.
class WAVESFM_API EngineAdapter {
public:
    virtual ~EngineAdapter() = default;

    //! As wavesfm_engine::run; throws EngineError or any std::exception.
    virtual void run(std::size_t batch, const float* const* inputs, float* const* outputs) = 0;

    std::string runtime, version, precision; //!< see wavesfm_engine_info
    std::vector<Engine::Tensor> inputs, outputs;

protected:
    //! Values of one item of a tensor.
    static std::size_t item_values(const Engine::Tensor& tensor);
    //! Shape of a batch of a tensor.
    static std::vector<std::int64_t> batch_shape(const Engine::Tensor& tensor, std::size_t batch);
    //! Throws EngineError (WAVESFM_MODEL) for a tensor of another type than float32.
    static void require_float32(const Engine::Tensor& tensor, bool is_float32);
};

//! The adapter as an opened engine, which owns it.
WAVESFM_API wavesfm_engine* make_engine(std::unique_ptr<EngineAdapter> adapter);

} // namespace wavesfm
