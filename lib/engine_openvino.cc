// SPDX-License-Identifier: GPL-3.0-or-later
// OpenVINO through its C API, found while the program runs. The declarations are of the functions used here,
// as OpenVINO 2024 and 2025 document them; the structures with contents (shape, dimension, version) have kept
// their layout.
#include "dynamic_library.h"
#include "engine_runtimes.h"

#include <cstdlib>
#include <cstring>

namespace wavesfm {

namespace {

using Status = int;
using ElementType = int;
struct Opaque;

struct Version {
    const char* build_number;
    const char* description;
};

struct Shape {
    std::int64_t rank;
    std::int64_t* sizes;
};

struct Dimension {
    std::int64_t min, max; // max -1: no limit
};

struct PartialShape {
    Dimension rank;
    Dimension* sizes;
};

//! The first year whose versions write past blocks of the heap while they compile some models.
constexpr int first_refused = 2026;

//! The version of the library; throws EngineError for one that is refused.
std::string checked_version(const DynamicLibrary& library) {
    Status (*get_version)(Version*);
    void (*version_free)(Version*);
    library.find("ov_get_openvino_version", get_version);
    library.find("ov_version_free", version_free);
    Version found{};
    if (get_version(&found) != 0 || !found.build_number) {
        throw EngineError(WAVESFM_MISSING, "version: openvino does not tell its version");
    }
    std::string text = found.build_number;
    version_free(&found);
    text = text.substr(0, text.find('-'));
    if (std::atoi(text.c_str()) >= first_refused) {
        throw EngineError(WAVESFM_MISSING, "version: found " + text + ", expected a version before " +
                                               std::to_string(first_refused) +
                                               ": later ones corrupt the heap");
    }
    return text;
}

//! The functions of libopenvino_c.
struct OpenVino {
    explicit OpenVino(const DynamicLibrary& library) : version(checked_version(library)) {
        library.find("ov_get_last_err_msg", last_error);
        library.find("ov_free", free_text);
        library.find("ov_core_create", core_create);
        library.find("ov_core_free", core_free);
        library.find("ov_core_get_property", core_get_property);
        library.find("ov_core_read_model", read_model);
        library.find("ov_core_compile_model", compile_model);
        library.find("ov_model_free", model_free);
        library.find("ov_model_inputs_size", inputs_size);
        library.find("ov_model_outputs_size", outputs_size);
        library.find("ov_model_const_input_by_index", input_by_index);
        library.find("ov_model_const_output_by_index", output_by_index);
        library.find("ov_output_const_port_free", port_free);
        library.find("ov_port_get_any_name", port_name);
        library.find("ov_port_get_partial_shape", port_shape);
        library.find("ov_port_get_element_type", port_type);
        library.find("ov_partial_shape_free", partial_shape_free);
        library.find("ov_compiled_model_free", compiled_free);
        library.find("ov_compiled_model_create_infer_request", create_request);
        library.find("ov_infer_request_free", request_free);
        library.find("ov_infer_request_set_tensor", set_tensor);
        library.find("ov_infer_request_infer", infer);
        library.find("ov_tensor_create", tensor_create);
        library.find("ov_tensor_create_from_host_ptr", tensor_from_host);
        library.find("ov_tensor_get_byte_size", tensor_bytes);
        library.find("ov_tensor_free", tensor_free);
        float32 = find_float32();
    }

    void require(Status status, wavesfm_status kind, const char* what) const {
        if (status != 0) {
            const char* reason = last_error();
            throw EngineError(kind, std::string(what) + ": " +
                                        (reason && *reason ? reason : "status " + std::to_string(status)));
        }
    }

    //! The code of float32, which an element type added before it has moved: 4 or 5.
    ElementType find_float32() const {
        for (const ElementType type : {4, 5}) {
            std::int64_t size = 1;
            Opaque* tensor = nullptr;
            std::size_t bytes = 0;
            if (tensor_create(type, Shape{1, &size}, &tensor) == 0) {
                tensor_bytes(tensor, &bytes);
                tensor_free(tensor);
            }
            if (bytes == sizeof(float)) {
                return type;
            }
        }
        throw EngineError(WAVESFM_MISSING, "openvino: found no code for float32, expected 4 or 5");
    }

    const std::string version;
    const char* (*last_error)();
    void (*free_text)(const char*);
    Status (*core_create)(Opaque**);
    void (*core_free)(Opaque*);
    Status (*core_get_property)(const Opaque*, const char*, const char*, char**);
    Status (*read_model)(const Opaque*, const char*, const char*, Opaque**);
    Status (*compile_model)(const Opaque*, const Opaque*, const char*, std::size_t, Opaque**, ...);
    void (*model_free)(Opaque*);
    Status (*inputs_size)(const Opaque*, std::size_t*);
    Status (*outputs_size)(const Opaque*, std::size_t*);
    Status (*input_by_index)(const Opaque*, std::size_t, Opaque**);
    Status (*output_by_index)(const Opaque*, std::size_t, Opaque**);
    void (*port_free)(Opaque*);
    Status (*port_name)(const Opaque*, char**);
    Status (*port_shape)(const Opaque*, PartialShape*);
    Status (*port_type)(const Opaque*, ElementType*);
    void (*partial_shape_free)(PartialShape*);
    void (*compiled_free)(Opaque*);
    Status (*create_request)(const Opaque*, Opaque**);
    void (*request_free)(Opaque*);
    Status (*set_tensor)(Opaque*, const char*, const Opaque*);
    Status (*infer)(Opaque*);
    Status (*tensor_create)(ElementType, Shape, Opaque**);
    Status (*tensor_from_host)(ElementType, Shape, void*, Opaque**);
    Status (*tensor_bytes)(const Opaque*, std::size_t*);
    void (*tensor_free)(Opaque*);
    ElementType float32;
};

//! An object of OpenVINO with the function that frees it.
using Held = std::unique_ptr<Opaque, void (*)(Opaque*)>;

class OpenVinoEngine : public EngineAdapter {
public:
    explicit OpenVinoEngine(const wavesfm_engine_options& options)
        : api_(DynamicLibrary(options.library ? options.library : "")), core_(nullptr, api_.core_free),
          compiled_(nullptr, api_.compiled_free), request_(nullptr, api_.request_free) {
        runtime = "openvino";
        version = api_.version;
        core_ = made(api_.core_free, "core", WAVESFM_MISSING,
                     [&](Opaque** out) { return api_.core_create(out); });
        precision = chosen_precision(options.precision ? options.precision : "auto");
        const auto model = made(api_.model_free, "model", WAVESFM_MODEL, [&](Opaque** out) {
            return api_.read_model(core_.get(), options.model, nullptr, out);
        });
        inputs = tensors(model.get(), api_.inputs_size, api_.input_by_index);
        outputs = tensors(model.get(), api_.outputs_size, api_.output_by_index);
        compile(model.get(), options.threads);
        request_ = made(api_.request_free, "request", WAVESFM_FAILED,
                        [&](Opaque** out) { return api_.create_request(compiled_.get(), out); });
    }

    void run(std::size_t batch, const float* const* in, float* const* out) override {
        for (std::size_t i = 0; i < inputs.size(); i++) {
            bind(inputs[i], batch, const_cast<float*>(in[i])); // the runtime does not write to an input
        }
        for (std::size_t i = 0; i < outputs.size(); i++) {
            bind(outputs[i], batch, out[i]);
        }
        api_.require(api_.infer(request_.get()), WAVESFM_FAILED, "run");
    }

private:
    template <typename Make>
    Held made(void (*release)(Opaque*), const char* what, wavesfm_status kind, Make make) {
        Opaque* object = nullptr;
        api_.require(make(&object), kind, what);
        return Held(object, release);
    }

    std::string chosen_precision(const std::string& asked) {
        if (asked != "auto") {
            return asked;
        }
        char* capabilities = nullptr;
        api_.require(api_.core_get_property(core_.get(), "CPU", "OPTIMIZATION_CAPABILITIES", &capabilities),
                     WAVESFM_MISSING, "the CPU's capabilities");
        const bool native = std::strstr(capabilities, "BF16") != nullptr;
        api_.free_text(capabilities);
        return native ? "bf16" : "f32";
    }

    void compile(const Opaque* model, unsigned threads) {
        const auto n_threads = std::to_string(threads);
        compiled_ = made(api_.compiled_free, "model", WAVESFM_MODEL, [&](Opaque** out) {
            // settings are pairs of texts; their count is of both
            return threads == 0 ? api_.compile_model(core_.get(), model, "CPU", 4, out, "PERFORMANCE_HINT",
                                                     "LATENCY", "INFERENCE_PRECISION_HINT", precision.c_str())
                                : api_.compile_model(core_.get(), model, "CPU", 6, out, "PERFORMANCE_HINT",
                                                     "LATENCY", "INFERENCE_PRECISION_HINT", precision.c_str(),
                                                     "INFERENCE_NUM_THREADS", n_threads.c_str());
        });
    }

    std::vector<Engine::Tensor> tensors(const Opaque* model, Status (*count)(const Opaque*, std::size_t*),
                                        Status (*by_index)(const Opaque*, std::size_t, Opaque**)) {
        std::size_t n = 0;
        api_.require(count(model, &n), WAVESFM_MODEL, "model");
        std::vector<Engine::Tensor> result;
        for (std::size_t i = 0; i < n; i++) {
            const auto port = made(api_.port_free, "tensor", WAVESFM_MODEL,
                                   [&](Opaque** out) { return by_index(model, i, out); });
            result.push_back(tensor(port.get()));
        }
        return result;
    }

    Engine::Tensor tensor(const Opaque* port) {
        char* name = nullptr;
        ElementType type = 0;
        PartialShape shape{};
        api_.require(api_.port_name(port, &name), WAVESFM_MODEL, "name of a tensor");
        Engine::Tensor result{name, {}};
        api_.free_text(name);
        api_.require(api_.port_type(port, &type), WAVESFM_MODEL, "type of a tensor");
        api_.require(api_.port_shape(port, &shape), WAVESFM_MODEL, "shape of a tensor");
        for (std::int64_t i = 0; shape.rank.min == shape.rank.max && i < shape.rank.min; i++) {
            const auto& size = shape.sizes[i];
            result.shape.push_back(size.min == size.max ? size.min : -1);
        }
        api_.partial_shape_free(&shape);
        require_float32(result, type == api_.float32);
        return result;
    }

    void bind(const Engine::Tensor& tensor, std::size_t batch, float* values) {
        auto sizes = batch_shape(tensor, batch);
        const Shape shape{static_cast<std::int64_t>(sizes.size()), sizes.data()};
        const auto bound = made(api_.tensor_free, "run", WAVESFM_FAILED, [&](Opaque** out) {
            return api_.tensor_from_host(api_.float32, shape, values, out);
        });
        api_.require(api_.set_tensor(request_.get(), tensor.name.c_str(), bound.get()), WAVESFM_FAILED,
                     "run");
    }

    const OpenVino api_;
    Held core_, compiled_, request_; // freed in the reverse order
};

} // namespace

std::unique_ptr<EngineAdapter> open_openvino(const wavesfm_engine_options& options) {
    return std::make_unique<OpenVinoEngine>(options);
}

} // namespace wavesfm
