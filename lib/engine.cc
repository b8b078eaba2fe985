// SPDX-License-Identifier: GPL-3.0-or-later
#include <gnuradio/wavesfm/engine.h>

#include "dynamic_library.h"
#include "engine_runtimes.h"

#include <cstring>

namespace wavesfm {

namespace {

constexpr std::size_t error_bytes = 512;

wavesfm_engine* open_plugin(const wavesfm_engine_options& options) {
    wavesfm_plugin_function* open;
    DynamicLibrary(options.library ? options.library : "").find("wavesfm_plugin_open", open);
    wavesfm_engine* engine = nullptr;
    char error[error_bytes] = "";
    const auto status = open(&options, &engine, error, sizeof error);
    if (status != WAVESFM_OK || !engine) {
        throw EngineError(status == WAVESFM_OK ? WAVESFM_FAILED : status, error);
    }
    return engine;
}

wavesfm_engine* open_checked(const wavesfm_engine_options& options) {
    const std::string runtime = options.runtime ? options.runtime : "";
    if (runtime == "plugin") {
        return open_plugin(options);
    }
    if (!options.model) {
        throw EngineError(WAVESFM_INVALID, "model: found nothing, expected the path of an ONNX file");
    }
    if (runtime == "openvino") {
        return make_engine(open_openvino(options));
    }
    if (runtime == "onnxruntime") {
        return make_engine(open_onnxruntime(options));
    }
    throw EngineError(WAVESFM_INVALID,
                      "runtime: found '" + runtime + "', expected openvino, onnxruntime or plugin");
}

std::vector<Engine::Tensor> in_cpp(const wavesfm_tensor_info* tensors, std::size_t n) {
    std::vector<Engine::Tensor> result;
    for (std::size_t i = 0; i < n; i++) {
        result.push_back({tensors[i].name, {tensors[i].shape, tensors[i].shape + tensors[i].rank}});
    }
    return result;
}

//! A share of an engine as an engine of its own.
class LentEngine : public EngineAdapter {
public:
    explicit LentEngine(const std::shared_ptr<Engine>& engine) : engine_(engine) {
        runtime = engine->runtime();
        version = engine->version();
        precision = engine->precision();
        inputs = engine->inputs();
        outputs = engine->outputs();
    }

    void run(std::size_t batch, const float* const* in, float* const* out) override {
        engine_->run(batch, in, out);
    }

private:
    const std::shared_ptr<Engine> engine_;
};

std::size_t index_of(const std::vector<Engine::Tensor>& tensors, const char* kind, const std::string& name) {
    for (std::size_t i = 0; i < tensors.size(); i++) {
        if (tensors[i].name == name) {
            return i;
        }
    }
    throw EngineError(WAVESFM_MODEL, std::string(kind) + " " + name + ": the model has none of this name");
}

} // namespace

std::shared_ptr<Engine> Engine::open(const std::string& runtime, const std::string& library,
                                     const std::string& model, const std::string& precision,
                                     unsigned threads) {
    const wavesfm_engine_options options{WAVESFM_ENGINE_ABI, runtime.c_str(),   library.c_str(),
                                         model.c_str(),      precision.c_str(), threads};
    wavesfm_engine* engine = nullptr;
    char error[error_bytes] = "";
    const auto status = wavesfm_engine_open(&options, &engine, error, sizeof error);
    if (status != WAVESFM_OK) {
        throw EngineError(status, error);
    }
    return std::make_shared<Engine>(engine);
}

Engine::Engine(wavesfm_engine* engine) : engine_(engine) {
    if (!engine || engine->abi_version != WAVESFM_ENGINE_ABI) {
        throw EngineError(WAVESFM_INVALID, "engine: found ABI version " +
                                               std::to_string(engine ? engine->abi_version : 0) +
                                               ", expected " + std::to_string(WAVESFM_ENGINE_ABI));
    }
    const auto& info = *engine->describe(engine->state);
    runtime_ = info.runtime;
    version_ = info.version;
    precision_ = info.precision;
    inputs_ = in_cpp(info.inputs, info.n_inputs);
    outputs_ = in_cpp(info.outputs, info.n_outputs);
}

Engine::~Engine() {
    close();
}

std::size_t Engine::input(const std::string& name) const {
    return index_of(inputs_, "input", name);
}

std::size_t Engine::output(const std::string& name) const {
    return index_of(outputs_, "output", name);
}

void Engine::run(std::size_t batch, const float* const* inputs, float* const* outputs) {
    std::lock_guard<std::mutex> lock(running_);
    if (!engine_) {
        throw EngineError(WAVESFM_CLOSED, "run: found a closed engine, expected an open one");
    }
    char error[error_bytes] = "";
    const auto status = engine_->run(engine_->state, batch, inputs, outputs, error, sizeof error);
    if (status != WAVESFM_OK) {
        throw EngineError(status, error);
    }
}

wavesfm_engine* Engine::lend(const std::shared_ptr<Engine>& engine) {
    return make_engine(std::make_unique<LentEngine>(engine));
}

void Engine::close() {
    std::lock_guard<std::mutex> lock(running_);
    if (engine_) {
        engine_->close(engine_);
        engine_ = nullptr;
    }
}

} // namespace wavesfm

wavesfm_status wavesfm_engine_open(const wavesfm_engine_options* options, wavesfm_engine** engine,
                                   char* error, size_t error_bytes) {
    using namespace wavesfm;
    return guarded(error, error_bytes, [&] {
        if (!options || !engine || options->abi_version != WAVESFM_ENGINE_ABI) {
            throw EngineError(WAVESFM_INVALID, "options: found none or another ABI version, expected " +
                                                   std::to_string(WAVESFM_ENGINE_ABI));
        }
        *engine = open_checked(*options);
    });
}
