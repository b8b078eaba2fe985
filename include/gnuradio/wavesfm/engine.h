/* SPDX-License-Identifier: GPL-3.0-or-later */
#pragma once

/*
 * The engine interface: one network in one inference runtime, as a C structure of functions, so that a
 * runtime is loaded while the program runs and is no dependency of the build. C++ programs use
 * wavesfm::Engine below.
 *
 * Tensors are float32 in C order and are passed by index. The first size of each tensor is the batch.
 */

#include <gnuradio/wavesfm/api.h>

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/** Version of the structures below; each holder of one compares it before it reads more. */
#define WAVESFM_ENGINE_ABI 1u

/** Most sizes of a tensor. */
#define WAVESFM_MAX_RANK 8u

typedef enum wavesfm_status {
    WAVESFM_OK = 0,
    WAVESFM_INVALID = 1, /**< a wrong argument: ABI version, index, batch, option */
    WAVESFM_MISSING = 2, /**< the runtime's library, a symbol of it or its version is missing */
    WAVESFM_MODEL = 3,   /**< the runtime refuses the model, or a tensor is not of this interface */
    WAVESFM_FAILED = 4,  /**< the runtime failed while it ran */
    WAVESFM_CLOSED = 5   /**< the engine is closed */
} wavesfm_status;

typedef struct wavesfm_tensor_info {
    const char* name;
    size_t rank; /**< 1 to WAVESFM_MAX_RANK */
    /** [rank] sizes; -1 is dynamic. A model whose batch is fixed, or another size not, is opened but cannot
     * run. */
    int64_t shape[WAVESFM_MAX_RANK];
} wavesfm_tensor_info;

/** What an engine is; the pointers stay valid until it is closed. */
typedef struct wavesfm_engine_info {
    const char* runtime;   /**< "openvino", "onnxruntime", or the name of a plug-in */
    const char* version;   /**< of the runtime */
    const char* precision; /**< "f32", "bf16", ...: the one in use, never "auto" */
    size_t n_inputs;
    const wavesfm_tensor_info* inputs; /**< [n_inputs], in the order of wavesfm_engine::run */
    size_t n_outputs;
    const wavesfm_tensor_info* outputs; /**< [n_outputs] */
} wavesfm_engine_info;

/** An opened engine. */
typedef struct wavesfm_engine {
    uint32_t abi_version; /**< WAVESFM_ENGINE_ABI */
    void* state;          /**< of the implementation */

    /** Describes the engine. Valid until close. */
    const wavesfm_engine_info* (*describe)(void* state);

    /**
     * Runs one batch and returns when the outputs are written. One thread at a time.
     *
     * inputs: [n_inputs] arrays [batch, ...]. outputs: [n_outputs] arrays [batch, ...] that the caller owns.
     * Both are only used during the call. error: one sentence, where the status is not WAVESFM_OK; may be
     * NULL.
     */
    wavesfm_status (*run)(void* state, size_t batch, const float* const* inputs, float* const* outputs,
                          char* error, size_t error_bytes);

    /** Frees everything, the structure included. No run may be under way. */
    void (*close)(struct wavesfm_engine* engine);
} wavesfm_engine;

/** How to open a model. A NULL text means the default. */
typedef struct wavesfm_engine_options {
    uint32_t abi_version; /**< WAVESFM_ENGINE_ABI */
    const char* runtime;  /**< "openvino", "onnxruntime" or "plugin" */
    /**
     * Path of libopenvino_c.so, of libonnxruntime.so, or of a plug-in: a library that exports
     * wavesfm_engine_open.
     */
    const char* library;
    const char* model;     /**< path of the ONNX file */
    const char* precision; /**< "f32", "bf16" or "auto" (the fastest that the processor computes natively) */
    uint32_t threads;      /**< 0: the runtime's choice */
} wavesfm_engine_options;

/**
 * Opens a model. error: one sentence, where the status is not WAVESFM_OK; may be NULL.
 */
WAVESFM_API wavesfm_status wavesfm_engine_open(const wavesfm_engine_options* options, wavesfm_engine** engine,
                                               char* error, size_t error_bytes);

/** Type of the function wavesfm_plugin_open of a plug-in; arguments as in wavesfm_engine_open. */
typedef wavesfm_status wavesfm_plugin_function(const wavesfm_engine_options* options, wavesfm_engine** engine,
                                               char* error, size_t error_bytes);

#ifdef __cplusplus
} // extern "C"

#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <vector>

namespace wavesfm {

//! Failure of an engine, with the status that the C interface returned.
class WAVESFM_API EngineError : public std::runtime_error {
public:
    EngineError(wavesfm_status status, const std::string& what) : std::runtime_error(what), status(status) {}
    const wavesfm_status status;
};

//! An engine that several threads and sessions may share: runs go one after the other. It is closed with the
//! last shared pointer, or by close().
class WAVESFM_API Engine {
public:
    //! Opens a model; throws EngineError. An empty text means the default, as in wavesfm_engine_options.
    static std::shared_ptr<Engine> open(const std::string& runtime, const std::string& library,
                                        const std::string& model, const std::string& precision = "auto",
                                        unsigned threads = 0);

    //! Takes an opened engine over; throws EngineError for another ABI version.
    explicit Engine(wavesfm_engine* engine);
    ~Engine();
    Engine(const Engine&) = delete;
    Engine& operator=(const Engine&) = delete;

    //! An input or output.
    struct Tensor {
        std::string name;
        std::vector<std::int64_t> shape; //!< -1: dynamic; shape[0] is the batch
    };
    //! The description stays after close().
    const std::vector<Tensor>& inputs() const { return inputs_; }
    const std::vector<Tensor>& outputs() const { return outputs_; }
    const std::string& runtime() const { return runtime_; }
    const std::string& version() const { return version_; }
    const std::string& precision() const { return precision_; }
    //! Index of an input or output; throws EngineError where there is none of this name.
    std::size_t input(const std::string& name) const;
    std::size_t output(const std::string& name) const;

    //! Runs one batch: inputs [n_inputs] and outputs [n_outputs] arrays [batch, ...]. Waits for a run on
    //! another thread. Throws EngineError; the outputs are then undefined.
    void run(std::size_t batch, const float* const* inputs, float* const* outputs);

    //! A structure for a holder that knows the C interface only, such as another module. It shares this
    //! engine and has to be closed.
    static wavesfm_engine* lend(const std::shared_ptr<Engine>& engine);

    //! Frees the runtime's memory; waits for a run. A later run throws. Closing twice does no harm.
    void close();

private:
    std::mutex running_;
    wavesfm_engine* engine_;
    std::string runtime_, version_, precision_;
    std::vector<Tensor> inputs_, outputs_;
};

} // namespace wavesfm
#endif
