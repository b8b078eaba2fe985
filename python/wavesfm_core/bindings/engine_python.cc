// SPDX-License-Identifier: GPL-3.0-or-later
#include "engine_python.h"

#include <gnuradio/wavesfm/engine.h>
#include <gnuradio/wavesfm/engine_adapter.h>

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

namespace py = pybind11;
using namespace wavesfm;

namespace {

using Array = py::array_t<float, py::array::c_style>;
using Described = std::vector<std::pair<std::string, std::vector<std::int64_t>>>;

Described described(const std::vector<Engine::Tensor>& tensors) {
    Described result;
    for (const auto& tensor : tensors) {
        result.emplace_back(tensor.name, tensor.shape);
    }
    return result;
}

std::vector<py::ssize_t> shape_of(const Engine::Tensor& tensor, std::size_t batch) {
    std::vector<py::ssize_t> shape(tensor.shape.begin(), tensor.shape.end());
    shape[0] = static_cast<py::ssize_t>(batch);
    return shape;
}

void require_shape(const Engine::Tensor& tensor, const py::array& array, std::size_t batch) {
    const auto shape = shape_of(tensor, batch);
    if (!std::equal(shape.begin(), shape.end(), array.shape(), array.shape() + array.ndim())) {
        throw EngineError(WAVESFM_INVALID,
                          "tensor " + tensor.name + ": found another shape than the model's");
    }
}

//! A Python object with `run(inputs: dict) -> dict` as an engine: one take of the interpreter's lock a batch.
class PythonEngine : public EngineAdapter {
public:
    PythonEngine(py::object engine, const std::string& name, const Described& in, const Described& out)
        : run_(engine.attr("run")) {
        runtime = name;
        for (const auto& [tensor, shape] : in) {
            inputs.push_back({tensor, shape});
        }
        for (const auto& [tensor, shape] : out) {
            outputs.push_back({tensor, shape});
        }
    }

    ~PythonEngine() override {
        py::gil_scoped_acquire acquire;
        run_ = py::object();
    }

    void run(std::size_t batch, const float* const* in, float* const* out) override {
        py::gil_scoped_acquire acquire;
        try {
            py::dict arrays;
            for (std::size_t i = 0; i < inputs.size(); i++) {
                arrays[py::str(inputs[i].name)] = Array(shape_of(inputs[i], batch), in[i]); // a copy
            }
            const py::dict results = run_(arrays);
            for (std::size_t i = 0; i < outputs.size(); i++) {
                const auto result = py::cast<Array>(results[py::str(outputs[i].name)]);
                require_shape(outputs[i], result, batch);
                std::copy(result.data(), result.data() + result.size(), out[i]);
            }
        } catch (const py::error_already_set& error) {
            throw EngineError(WAVESFM_FAILED,
                              error.what()); // the exception itself needs the lock to be freed
        }
    }

private:
    py::object run_;
};

std::shared_ptr<Engine> wrap(py::object engine, const std::string& name, const Described& inputs,
                             const Described& outputs) {
    return std::make_shared<Engine>(
        make_engine(std::make_unique<PythonEngine>(engine, name, inputs, outputs)));
}

std::vector<Array> run(Engine& engine, const std::vector<Array>& inputs) {
    if (inputs.size() != engine.inputs().size() || inputs.empty() || inputs[0].ndim() == 0) {
        throw EngineError(WAVESFM_INVALID, "run: found " + std::to_string(inputs.size()) +
                                               " arrays, expected " + std::to_string(engine.inputs().size()));
    }
    const auto batch = static_cast<std::size_t>(inputs[0].shape(0));
    std::vector<const float*> in;
    std::vector<float*> out;
    std::vector<Array> results;
    for (std::size_t i = 0; i < inputs.size(); i++) {
        require_shape(engine.inputs()[i], inputs[i], batch);
        in.push_back(inputs[i].data());
    }
    for (const auto& tensor : engine.outputs()) {
        auto shape = shape_of(tensor, batch);
        std::replace_if(
            shape.begin(), shape.end(), [](auto size) { return size < 0; }, 0); // the run will refuse it
        results.emplace_back(shape);
        out.push_back(results.back().mutable_data());
    }
    py::gil_scoped_release release;
    engine.run(batch, in.data(), out.data());
    return results;
}

//! The engine for modules that know the C interface only.
py::capsule lend(const std::shared_ptr<Engine>& engine) {
    return py::capsule(Engine::lend(engine), "wavesfm_engine.1", [](PyObject* capsule) {
        auto* lent = static_cast<wavesfm_engine*>(PyCapsule_GetPointer(capsule, "wavesfm_engine.1"));
        py::gil_scoped_release release;
        lent->close(lent);
    });
}

} // namespace

void bind_engine(py::module_& m) {
    static PyObject* failure = PyErr_NewExceptionWithDoc(
        "wavesfm_core._kernels.EngineFailure", "A failure of an engine: (status, text), see engine.h.",
        PyExc_RuntimeError, nullptr);
    m.add_object("EngineFailure", py::reinterpret_borrow<py::object>(failure));
    py::register_exception_translator([](std::exception_ptr thrown) {
        try {
            std::rethrow_exception(thrown);
        } catch (const EngineError& error) {
            py::set_error(failure, py::make_tuple(static_cast<int>(error.status), error.what()));
        }
    });
    py::class_<Engine, std::shared_ptr<Engine>>(m, "Engine",
                                                "A model in a runtime, behind the C interface of engine.h. "
                                                "Methods raise EngineFailure(status, text).")
        .def_static(
            "open", &Engine::open, py::arg("runtime"), py::arg("library"), py::arg("model"),
            py::arg("precision") = "auto", py::arg("threads") = 0, py::call_guard<py::gil_scoped_release>(),
            "Opens an ONNX file with the runtime \"openvino\", \"onnxruntime\" or \"plugin\" of a shared "
            "library.")
        .def_static("wrap", &wrap, py::arg("engine"), py::arg("name"), py::arg("inputs"), py::arg("outputs"),
                    "A Python engine with run(dict) -> dict; inputs and outputs: (name, shape) in order.")
        .def_property_readonly("inputs", [](const Engine& e) { return described(e.inputs()); })
        .def_property_readonly(
            "outputs", [](const Engine& e) { return described(e.outputs()); },
            "List of (name, shape), -1 where a size is dynamic.")
        .def_property_readonly("runtime", &Engine::runtime)
        .def_property_readonly("version", &Engine::version)
        .def_property_readonly("precision", &Engine::precision)
        .def("run", &run, py::arg("inputs"),
             "float32 arrays [B, ...] in the order of `inputs` -> new arrays in that of `outputs`.")
        .def("close", &Engine::close, py::call_guard<py::gil_scoped_release>(),
             "Waits for a run and frees the runtime's memory; closing twice does no harm.")
        .def("lend", &lend, "A capsule \"wavesfm_engine.1\" with a wavesfm_engine that shares this engine.");
}
