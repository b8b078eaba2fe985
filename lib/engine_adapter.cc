// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine_runtimes.h"

#include <algorithm>
#include <cstring>

namespace wavesfm {

namespace {

void write_error(char* error, std::size_t error_bytes, const char* text) {
    if (error && error_bytes) {
        const std::size_t n = std::min(error_bytes - 1, std::strlen(text));
        std::memcpy(error, text, n);
        error[n] = '\0';
    }
}

//! Throws for a tensor whose arrays have no known size.
void require_sizes(const Engine::Tensor& tensor) {
    const auto& shape = tensor.shape;
    if (shape[0] != -1 || std::any_of(shape.begin() + 1, shape.end(), [](auto size) { return size < 1; })) {
        throw EngineError(WAVESFM_MODEL,
                          "tensor " + tensor.name +
                              ": found a fixed batch or another dynamic size, expected a dynamic "
                              "batch and fixed sizes after it");
    }
}

//! The adapter, its description in C, and the structure that users hold.
struct Exported {
    wavesfm_engine engine;
    std::unique_ptr<EngineAdapter> adapter;
    wavesfm_engine_info info;
    std::vector<wavesfm_tensor_info> inputs, outputs;
};

std::vector<wavesfm_tensor_info> in_c(const std::vector<Engine::Tensor>& tensors) {
    std::vector<wavesfm_tensor_info> result;
    for (const auto& tensor : tensors) {
        wavesfm_tensor_info info{tensor.name.c_str(), tensor.shape.size(), {}};
        if (tensor.shape.empty() || tensor.shape.size() > WAVESFM_MAX_RANK) {
            throw EngineError(WAVESFM_MODEL,
                              "tensor " + tensor.name + ": found " + std::to_string(tensor.shape.size()) +
                                  " dimensions, expected 1 to " + std::to_string(WAVESFM_MAX_RANK));
        }
        std::copy(tensor.shape.begin(), tensor.shape.end(), info.shape);
        result.push_back(info);
    }
    return result;
}

const wavesfm_engine_info* describe(void* state) {
    return &static_cast<Exported*>(state)->info;
}

wavesfm_status run(void* state, std::size_t batch, const float* const* inputs, float* const* outputs,
                   char* error, std::size_t error_bytes) {
    auto& exported = *static_cast<Exported*>(state);
    const auto is_null = [](const float* array) { return array == nullptr; };
    if (batch == 0 || !inputs || !outputs || std::any_of(inputs, inputs + exported.inputs.size(), is_null) ||
        std::any_of(outputs, outputs + exported.outputs.size(), is_null)) {
        write_error(error, error_bytes,
                    "run: found a batch of 0 or a null array, expected arrays of 1 item or more");
        return WAVESFM_INVALID;
    }
    return guarded(error, error_bytes, [&] {
        std::for_each(exported.adapter->inputs.begin(), exported.adapter->inputs.end(), require_sizes);
        std::for_each(exported.adapter->outputs.begin(), exported.adapter->outputs.end(), require_sizes);
        exported.adapter->run(batch, inputs, outputs);
    });
}

void close(wavesfm_engine* engine) {
    delete static_cast<Exported*>(engine->state);
}

} // namespace

wavesfm_status guarded(char* error, std::size_t error_bytes, const std::function<void()>& call) {
    try {
        call();
        return WAVESFM_OK;
    } catch (const EngineError& failure) {
        write_error(error, error_bytes, failure.what());
        return failure.status;
    } catch (const std::exception& failure) {
        write_error(error, error_bytes, failure.what());
    } catch (...) {
        write_error(error, error_bytes, "an unknown exception");
    }
    return WAVESFM_FAILED;
}

std::size_t EngineAdapter::item_values(const Engine::Tensor& tensor) {
    std::size_t values = 1;
    for (std::size_t i = 1; i < tensor.shape.size(); i++) {
        values *= static_cast<std::size_t>(tensor.shape[i]);
    }
    return values;
}

std::vector<std::int64_t> EngineAdapter::batch_shape(const Engine::Tensor& tensor, std::size_t batch) {
    auto shape = tensor.shape;
    shape[0] = static_cast<std::int64_t>(batch);
    return shape;
}

void EngineAdapter::require_float32(const Engine::Tensor& tensor, bool is_float32) {
    if (!is_float32) {
        throw EngineError(WAVESFM_MODEL, "tensor " + tensor.name + ": found another type, expected float32");
    }
}

wavesfm_engine* make_engine(std::unique_ptr<EngineAdapter> adapter) {
    auto exported = std::make_unique<Exported>();
    exported->adapter = std::move(adapter);
    const auto& of = *exported->adapter;
    exported->inputs = in_c(of.inputs);
    exported->outputs = in_c(of.outputs);
    exported->info = {of.runtime.c_str(),      of.version.c_str(),      of.precision.c_str(),
                      exported->inputs.size(), exported->inputs.data(), exported->outputs.size(),
                      exported->outputs.data()};
    exported->engine = {WAVESFM_ENGINE_ABI, exported.get(), describe, run, close};
    return &exported.release()->engine;
}

} // namespace wavesfm
