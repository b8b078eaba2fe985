// SPDX-License-Identifier: GPL-3.0-or-later
// ONNX Runtime through its C interface: OrtGetApiBase gives a table of functions to which versions only
// append, so that a place in the table is fixed for all later versions. The places used here are all of the
// table's version 5.
#include "dynamic_library.h"
#include "engine_runtimes.h"

namespace wavesfm {

namespace {

struct Opaque;
using Failure = Opaque*; // null: success

struct ApiBase {
    const void* const* (*table)(std::uint32_t version);
    const char* (*version)();
};

constexpr std::uint32_t api_version = 5;
constexpr int float32 = 1;    // ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
constexpr int log_errors = 3; // ORT_LOGGING_LEVEL_ERROR

//! The functions used, with their places in the table.
struct OnnxRuntime {
    explicit OnnxRuntime(const void* const* table) {
        take(table, 2, error_message);
        take(table, 3, create_env);
        take(table, 7, create_session);
        take(table, 9, run);
        take(table, 10, create_options);
        take(table, 22, set_log_severity);
        take(table, 24, set_threads);
        take(table, 30, input_count);
        take(table, 31, output_count);
        take(table, 33, input_type);
        take(table, 34, output_type);
        take(table, 36, input_name);
        take(table, 37, output_name);
        take(table, 49, tensor_with_data);
        take(table, 55, tensor_info);
        take(table, 60, element_type);
        take(table, 61, dimensions_count);
        take(table, 62, dimensions);
        take(table, 69, cpu_memory);
        take(table, 76, allocator_free);
        take(table, 78, default_allocator);
        take(table, 92, release_env);
        take(table, 93, release_failure);
        take(table, 94, release_memory);
        take(table, 95, release_session);
        take(table, 96, release_value);
        take(table, 98, release_type);
        take(table, 100, release_options);
        take(table, 130, add_config);
    }

    template <typename Function>
    static void take(const void* const* table, std::size_t place, Function*& function) {
        function = reinterpret_cast<Function*>(const_cast<void*>(table[place]));
    }

    void require(Failure failure, wavesfm_status kind, const char* what) const {
        if (failure) {
            const std::string text = std::string(what) + ": " + error_message(failure);
            release_failure(failure);
            throw EngineError(kind, text);
        }
    }

    const char* (*error_message)(const Opaque*);
    Failure (*create_env)(int, const char*, Opaque**);
    Failure (*create_session)(const Opaque*, const char*, const Opaque*, Opaque**);
    Failure (*run)(Opaque*, const Opaque*, const char* const*, const Opaque* const*, std::size_t,
                   const char* const*, std::size_t, Opaque**);
    Failure (*create_options)(Opaque**);
    Failure (*set_log_severity)(Opaque*, int);
    Failure (*set_threads)(Opaque*, int);
    Failure (*input_count)(const Opaque*, std::size_t*);
    Failure (*output_count)(const Opaque*, std::size_t*);
    Failure (*input_type)(const Opaque*, std::size_t, Opaque**);
    Failure (*output_type)(const Opaque*, std::size_t, Opaque**);
    Failure (*input_name)(const Opaque*, std::size_t, Opaque*, char**);
    Failure (*output_name)(const Opaque*, std::size_t, Opaque*, char**);
    Failure (*tensor_with_data)(const Opaque*, void*, std::size_t, const std::int64_t*, std::size_t, int,
                                Opaque**);
    Failure (*tensor_info)(const Opaque*, const Opaque**);
    Failure (*element_type)(const Opaque*, int*);
    Failure (*dimensions_count)(const Opaque*, std::size_t*);
    Failure (*dimensions)(const Opaque*, std::int64_t*, std::size_t);
    Failure (*cpu_memory)(int allocator, int memory, Opaque**);
    Failure (*allocator_free)(Opaque*, void*);
    Failure (*default_allocator)(Opaque**);
    void (*release_env)(Opaque*);
    void (*release_failure)(Opaque*);
    void (*release_memory)(Opaque*);
    void (*release_session)(Opaque*);
    void (*release_value)(Opaque*);
    void (*release_type)(Opaque*);
    void (*release_options)(Opaque*);
    Failure (*add_config)(Opaque*, const char*, const char*);
};

const ApiBase& api_base(const std::string& library) {
    const ApiBase* (*get)();
    DynamicLibrary(library).find("OrtGetApiBase", get);
    return *get();
}

const void* const* table_of(const ApiBase& base) {
    const void* const* table = base.table(api_version);
    if (!table) {
        throw EngineError(WAVESFM_MISSING, std::string("onnxruntime: found version ") + base.version() +
                                               " without the interface of version 5");
    }
    return table;
}

using Held = std::unique_ptr<Opaque, void (*)(Opaque*)>;

class OnnxRuntimeEngine : public EngineAdapter {
public:
    explicit OnnxRuntimeEngine(const wavesfm_engine_options& options)
        : base_(api_base(options.library ? options.library : "")), api_(table_of(base_)),
          env_(nullptr, api_.release_env), memory_(nullptr, api_.release_memory),
          session_(nullptr, api_.release_session) {
        runtime = "onnxruntime";
        version = base_.version();
        precision = "f32";
        const std::string asked = options.precision ? options.precision : "auto";
        if (asked != "auto" && asked != "f32") {
            throw EngineError(WAVESFM_INVALID, "precision: found " + asked + ", expected f32");
        }
        env_ = made(api_.release_env, "environment", WAVESFM_MISSING,
                    [&](Opaque** out) { return api_.create_env(log_errors, "wavesfm", out); });
        memory_ = made(api_.release_memory, "memory", WAVESFM_MISSING,
                       [&](Opaque** out) { return api_.cpu_memory(0, 0, out); });
        open(options);
        inputs = tensors(api_.input_count, api_.input_name, api_.input_type);
        outputs = tensors(api_.output_count, api_.output_name, api_.output_type);
        for (const auto& tensor : inputs) {
            input_names_.push_back(tensor.name.c_str());
        }
        for (const auto& tensor : outputs) {
            output_names_.push_back(tensor.name.c_str());
        }
    }

    void run(std::size_t batch, const float* const* in, float* const* out) override {
        std::vector<Held> held;
        std::vector<const Opaque*> given;
        std::vector<Opaque*> wanted;
        for (std::size_t i = 0; i < inputs.size(); i++) {
            held.push_back(
                value(inputs[i], batch, const_cast<float*>(in[i]))); // the runtime does not write to it
            given.push_back(held.back().get());
        }
        for (std::size_t i = 0; i < outputs.size(); i++) {
            held.push_back(value(outputs[i], batch, out[i]));
            wanted.push_back(held.back().get());
        }
        api_.require(api_.run(session_.get(), nullptr, input_names_.data(), given.data(), given.size(),
                              output_names_.data(), wanted.size(), wanted.data()),
                     WAVESFM_FAILED, "run");
    }

private:
    template <typename Make>
    Held made(void (*release)(Opaque*), const char* what, wavesfm_status kind, Make make) {
        Opaque* object = nullptr;
        api_.require(make(&object), kind, what);
        return Held(object, release);
    }

    void open(const wavesfm_engine_options& options) {
        const auto settings = made(api_.release_options, "options", WAVESFM_MISSING,
                                   [&](Opaque** out) { return api_.create_options(out); });
        api_.require(api_.set_threads(settings.get(), static_cast<int>(options.threads)), WAVESFM_INVALID,
                     "threads");
        api_.require(api_.set_log_severity(settings.get(), log_errors), WAVESFM_INVALID, "log");
        // threads that spin between batches take the core on which the flowgraph computes its next tile
        api_.require(api_.add_config(settings.get(), "session.intra_op.allow_spinning", "0"), WAVESFM_INVALID,
                     "threads");
        session_ = made(api_.release_session, "model", WAVESFM_MODEL, [&](Opaque** out) {
            return api_.create_session(env_.get(), options.model, settings.get(), out);
        });
    }

    std::vector<Engine::Tensor> tensors(Failure (*count)(const Opaque*, std::size_t*),
                                        Failure (*name_of)(const Opaque*, std::size_t, Opaque*, char**),
                                        Failure (*type_of)(const Opaque*, std::size_t, Opaque**)) {
        Opaque* allocator = nullptr; // the runtime's own, which is not released
        api_.require(api_.default_allocator(&allocator), WAVESFM_MISSING, "memory");
        std::size_t n = 0;
        api_.require(count(session_.get(), &n), WAVESFM_MODEL, "model");
        std::vector<Engine::Tensor> result;
        for (std::size_t i = 0; i < n; i++) {
            char* name = nullptr;
            api_.require(name_of(session_.get(), i, allocator, &name), WAVESFM_MODEL, "name of a tensor");
            Engine::Tensor tensor{name, {}};
            api_.require(api_.allocator_free(allocator, name), WAVESFM_MODEL, "name of a tensor");
            const auto type = made(api_.release_type, "type of a tensor", WAVESFM_MODEL,
                                   [&](Opaque** out) { return type_of(session_.get(), i, out); });
            require_float32(tensor, read_type(type.get(), tensor.shape) == float32);
            result.push_back(std::move(tensor));
        }
        return result;
    }

    //! Element type of a tensor, 0 for what is no tensor, and its sizes.
    int read_type(const Opaque* type, std::vector<std::int64_t>& shape) {
        const Opaque* info = nullptr;
        api_.require(api_.tensor_info(type, &info), WAVESFM_MODEL, "type of a tensor");
        if (!info) {
            return 0;
        }
        std::size_t rank = 0;
        int element = 0;
        api_.require(api_.element_type(info, &element), WAVESFM_MODEL, "type of a tensor");
        api_.require(api_.dimensions_count(info, &rank), WAVESFM_MODEL, "shape of a tensor");
        shape.resize(rank);
        api_.require(api_.dimensions(info, shape.data(), rank), WAVESFM_MODEL, "shape of a tensor");
        return element;
    }

    Held value(const Engine::Tensor& tensor, std::size_t batch, float* values) {
        const auto shape = batch_shape(tensor, batch);
        const std::size_t bytes = batch * item_values(tensor) * sizeof(float);
        return made(api_.release_value, "run", WAVESFM_FAILED, [&](Opaque** out) {
            return api_.tensor_with_data(memory_.get(), values, bytes, shape.data(), shape.size(), float32,
                                         out);
        });
    }

    const ApiBase& base_;
    const OnnxRuntime api_;
    Held env_, memory_, session_; // freed in the reverse order
    std::vector<const char*> input_names_, output_names_;
};

} // namespace

std::unique_ptr<EngineAdapter> open_onnxruntime(const wavesfm_engine_options& options) {
    return std::make_unique<OnnxRuntimeEngine>(options);
}

} // namespace wavesfm
