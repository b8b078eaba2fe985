// SPDX-License-Identifier: GPL-3.0-or-later
#include "grids_python.h"
#include "slots_python.h"

#include <gnuradio/wavesfm/channel_pipeline.h>

#include <pybind11/functional.h>

namespace py = pybind11;
using namespace wavesfm;

namespace {

using Reals = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Floats = py::array_t<float, py::array::c_style | py::array::forcecast>;

// A copy, since Python may keep it.
template <typename Value>
py::array_t<Value> copy_of(std::vector<py::ssize_t> shape, const Value* data) {
    return py::array_t<Value>(std::move(shape), data);
}

py::ssize_t signed_size(std::size_t n) {
    return static_cast<py::ssize_t>(n);
}

// An exception of Python that crosses C++; the original is raised again where Python called.
class PythonFault : public EstimationFault {
public:
    PythonFault(const EstimationFault& fault, std::shared_ptr<py::object> original)
        : EstimationFault(fault), original(std::move(original)) {}
    const std::shared_ptr<py::object> original;
};

[[noreturn]] void rethrow(py::error_already_set& error) {
    const py::object value = error.value();
    if (py::hasattr(value, "expected") && py::hasattr(value, "field")) {
        const auto part = [&](const char* name) { return py::cast<std::string>(py::str(value.attr(name))); };
        throw PythonFault(EstimationFault(part("where"), part("field"), part("found"), part("expected")),
                          kept(value));
    }
    const std::string name = py::cast<std::string>(py::type::of(value).attr("__name__"));
    const std::string text = py::cast<std::string>(py::str(value));
    throw PythonFault(EstimationFault("worker", "inference", name + ": " + text, "no exception"),
                      kept(value));
}

void translate(std::exception_ptr pointer) {
    try {
        std::rethrow_exception(pointer);
    } catch (const PythonFault& fault) {
        PyErr_SetObject(py::type::of(*fault.original).ptr(), fault.original->ptr());
    } catch (const EstimationFault& fault) {
        const py::object made =
            py::module_::import("wavesfm_core.errors")
                .attr("EngineError")(fault.where, fault.field, fault.found, fault.expected);
        PyErr_SetObject(py::type::of(made).ptr(), made.ptr());
    }
}

// A network that a Python function runs: (tiles, snr_db) -> [B, 2, A, S F]. One take of the lock a batch.
class PythonEngine : public ChannelEngine {
public:
    PythonEngine(const SlotLayout& layout, py::object run) : layout_(layout), run_(kept(std::move(run))) {}

    const float* run(std::size_t batch, const float* tiles, const float* snr_db) override {
        py::gil_scoped_acquire lock;
        const auto b = signed_size(batch), p = signed_size(2 * layout_.pilot_symbols.size());
        try {
            const auto tile = copy_of<float>(
                {b, p, signed_size(layout_.antennas), signed_size(layout_.pilot_carriers.size())}, tiles);
            const auto out = py::cast<Floats>((*run_)(tile, copy_of<float>({b, 1}, snr_db)));
            if (static_cast<std::size_t>(out.size()) != 2 * batch * layout_.grid_size()) {
                throw EstimationFault("channel head", "outputs", std::to_string(out.size()) + " values",
                                      std::to_string(2 * batch * layout_.grid_size()));
            }
            outputs_ = kept(out);
            return out.data();
        } catch (py::error_already_set& error) {
            rethrow(error);
        }
    }

private:
    const SlotLayout layout_;
    const std::shared_ptr<py::object> run_;
    std::shared_ptr<py::object> outputs_; // of the last call
};

// An estimator of Python: (grids [B, A, S, F], ls, noise_power, signal_power) -> [B, A, S, F].
class PythonMethod : public ChannelMethod {
public:
    PythonMethod(const SlotLayout& layout, std::string name, std::string bundle_id, py::object estimate,
                 std::shared_ptr<const ChannelMethod> error_of)
        : ChannelMethod(std::move(name), std::move(bundle_id)), layout_(layout),
          estimate_(kept(std::move(estimate))), error_of_(std::move(error_of)) {}

    void estimate(const SlotBatch& batch, const std::vector<std::complex<float>*>& channels) override {
        py::gil_scoped_acquire lock;
        const auto count = signed_size(channels.size()), a = signed_size(layout_.antennas),
                   s = signed_size(layout_.symbols()), f = signed_size(layout_.subcarriers());
        const std::size_t n = layout_.grid_size();
        try {
            ComplexArray grids({count, a, s, f});
            for (std::size_t i = 0; i < channels.size(); i++) {
                std::copy_n(batch.grids[i], n, grids.mutable_data() + i * n);
            }
            const auto& seen = batch.seen;
            const auto ls = copy_of<std::complex<float>>({count, a, signed_size(layout_.pilot_symbols.size()),
                                                          signed_size(layout_.pilot_carriers.size())},
                                                         seen.ls.data());
            const auto found = py::cast<ComplexArray>(
                (*estimate_)(grids, ls, copy_of<double>({count}, seen.noise_power.data()),
                             copy_of<double>({count}, seen.signal_power.data())));
            if (static_cast<std::size_t>(found.size()) != channels.size() * n) {
                throw EstimationFault(name, "channels", std::to_string(found.size()) + " values",
                                      std::to_string(channels.size() * n));
            }
            for (std::size_t i = 0; i < channels.size(); i++) {
                std::copy_n(found.data() + i * n, n, channels[i]);
            }
        } catch (py::error_already_set& error) {
            rethrow(error);
        }
    }

    double error(double snr_db) const override {
        return error_of_ ? error_of_->error(snr_db) : ChannelMethod::error(snr_db);
    }

private:
    const SlotLayout layout_;
    const std::shared_ptr<py::object> estimate_;
    const std::shared_ptr<const ChannelMethod> error_of_;
};

template <typename Value, typename Array>
Matrix<Value> matrix(const Array& array) {
    if (array.ndim() != 2) {
        throw py::value_error("matrix: found " + std::to_string(array.ndim()) + " dimensions, expected 2");
    }
    return {{array.data(), array.data() + array.size()},
            static_cast<std::size_t>(array.shape(0)),
            static_cast<std::size_t>(array.shape(1))};
}

ComplexArray estimate(ChannelMethod& method, const SlotLayout& layout, const ComplexArray& ls,
                      const Reals& noise_power, const Reals& signal_power) {
    const std::size_t count = static_cast<std::size_t>(noise_power.size()), n = layout.grid_size();
    if (static_cast<std::size_t>(ls.size()) != count * layout.pilot_size() ||
        static_cast<std::size_t>(signal_power.size()) != count) {
        throw py::value_error("ls: of another size than the slot layout");
    }
    ComplexArray channels({signed_size(count), signed_size(layout.antennas), signed_size(layout.symbols()),
                           signed_size(layout.subcarriers())});
    std::vector<std::complex<float>*> pointers;
    for (std::size_t i = 0; i < count; i++) {
        pointers.push_back(channels.mutable_data() + i * n);
    }
    SlotBatch batch{{},
                    {{ls.data(), ls.data() + ls.size()},
                     {noise_power.data(), noise_power.data() + count},
                     {signal_power.data(), signal_power.data() + count}}};
    py::gil_scoped_release release;
    method.estimate(batch, pointers);
    return channels;
}

py::tuple observe(const PilotObserver& observer, const std::vector<ComplexArray>& grids) {
    std::vector<const std::complex<float>*> pointers;
    for (const auto& grid : grids) {
        pointers.push_back(grid_of(grid, observer.layout().grid_size()).data);
    }
    Observation seen;
    {
        py::gil_scoped_release release;
        seen = observer.observe(pointers);
    }
    const auto& layout = observer.layout();
    ComplexArray ls({signed_size(grids.size()), signed_size(layout.antennas),
                     signed_size(layout.pilot_symbols.size()), signed_size(layout.pilot_carriers.size())});
    std::copy(seen.ls.begin(), seen.ls.end(), ls.mutable_data());
    return py::make_tuple(ls, py::array(py::cast(seen.noise_power)), py::array(py::cast(seen.signal_power)));
}

py::object refuse(const PilotObserver& observer, const ComplexArray& grid) {
    const auto refusal = observer.refuse(grid_of(grid, observer.layout().grid_size()).data);
    return refusal ? py::object(py::make_tuple(refusal->field, refusal->found, refusal->expected))
                   : py::none();
}

std::vector<double> residuals(const PilotObserver& observer, const ComplexArray& channels,
                              const ComplexArray& ls, const Reals& noise_power) {
    const std::size_t count = static_cast<std::size_t>(noise_power.size()), n = observer.layout().grid_size();
    if (static_cast<std::size_t>(channels.size()) != count * n ||
        static_cast<std::size_t>(ls.size()) != count * observer.layout().pilot_size()) {
        throw py::value_error("channels: of another size than the slot layout");
    }
    const Observation seen{
        {ls.data(), ls.data() + ls.size()}, {noise_power.data(), noise_power.data() + count}, {}};
    std::vector<double> found;
    for (std::size_t i = 0; i < count; i++) {
        found.push_back(observer.residual(channels.data() + i * n, seen, i));
    }
    return found;
}

py::object refusal_of(const SlotAnswer& answer) {
    const auto& refusal = answer.refusal;
    return refusal ? py::object(py::make_tuple(refusal->field, refusal->found, refusal->expected))
                   : py::none();
}

std::vector<std::shared_ptr<SlotAnswer>> predict(ChannelPipeline& pipeline,
                                                 const std::vector<std::shared_ptr<Slot>>& slots) {
    py::gil_scoped_release release;
    std::vector<Slot> copies;
    for (const auto& slot : slots) {
        copies.push_back(*slot);
    }
    std::vector<std::shared_ptr<SlotAnswer>> answers;
    for (auto& answer : pipeline.predict(std::move(copies))) {
        answers.push_back(std::make_shared<SlotAnswer>(std::move(answer)));
    }
    return answers;
}

void bind_methods(py::module_& m) {
    py::class_<ChannelMethod, std::shared_ptr<ChannelMethod>>(m, "ChannelMethod", "A channel estimator.")
        .def_readonly("name", &ChannelMethod::name)
        .def("estimate", &estimate, py::arg("layout"), py::arg("ls").noconvert(), py::arg("noise_power"),
             py::arg("signal_power"), "Channels complex64 [B, A, S, F] of least squares [B, A, P, Fp].")
        .def("error",
             py::vectorize([](const ChannelMethod* method, double snr_db) { return method->error(snr_db); }),
             py::arg("snr_db"), "Expected squared error over the channel's power; NaN where unknown.");
    py::class_<LeastSquares, ChannelMethod, std::shared_ptr<LeastSquares>>(m, "LeastSquares")
        .def(py::init([](const SlotLayout& layout, std::vector<std::size_t> lower,
                         std::vector<std::size_t> upper, std::vector<float> part, const Floats& symbols,
                         double noise_gain, std::string name) {
                 return std::make_shared<LeastSquares>(
                     layout,
                     InterpolationWeights{std::move(lower),
                                          std::move(upper),
                                          std::move(part),
                                          {symbols.data(), symbols.data() + symbols.size()},
                                          noise_gain},
                     std::move(name));
             }),
             py::arg("layout"), py::arg("lower"), py::arg("upper"), py::arg("part"), py::arg("symbols"),
             py::arg("noise_gain"), py::arg("name"));
    py::class_<LMMSE, ChannelMethod, std::shared_ptr<LMMSE>>(m, "LMMSE")
        .def(py::init([](const SlotLayout& layout, const Reals& power, const Reals& spread_power,
                         const ComplexArray& from_antennas, const ComplexArray& to_antennas,
                         const ComplexArray& from_subcarriers, const ComplexArray& to_subcarriers,
                         const ComplexArray& to_symbols, double least_error, std::string name) {
                 using Complex = std::complex<float>;
                 return std::make_shared<LMMSE>(
                     layout,
                     LMMSEBasis{matrix<double>(power), matrix<double>(spread_power),
                                matrix<Complex>(from_antennas), matrix<Complex>(to_antennas),
                                matrix<Complex>(from_subcarriers), matrix<Complex>(to_subcarriers),
                                matrix<Complex>(to_symbols)},
                     least_error, std::move(name));
             }),
             py::arg("layout"), py::arg("power"), py::arg("spread_power"), py::arg("from_antennas"),
             py::arg("to_antennas"), py::arg("from_subcarriers"), py::arg("to_subcarriers"),
             py::arg("to_symbols"), py::arg("least_error"), py::arg("name"));
    py::class_<ModelMethod, ChannelMethod, std::shared_ptr<ModelMethod>>(m, "ModelMethod")
        .def(py::init([](const SlotLayout& layout, py::object run, float scale, std::string bundle_id,
                         std::shared_ptr<ChannelMethod> error_of) {
                 return std::make_shared<ModelMethod>(layout,
                                                      std::make_shared<PythonEngine>(layout, std::move(run)),
                                                      scale, std::move(bundle_id), std::move(error_of));
             }),
             py::arg("layout"), py::arg("run"), py::arg("scale"), py::arg("bundle_id"), py::arg("error_of"));
    py::class_<PythonMethod, ChannelMethod, std::shared_ptr<PythonMethod>>(m, "PythonMethod")
        .def(py::init([](const SlotLayout& layout, std::string name, std::string bundle_id,
                         py::object estimate, std::shared_ptr<ChannelMethod> error_of) {
                 return std::make_shared<PythonMethod>(layout, std::move(name), std::move(bundle_id),
                                                       std::move(estimate), std::move(error_of));
             }),
             py::arg("layout"), py::arg("name"), py::arg("bundle_id"), py::arg("estimate"),
             py::arg("error_of"));
}

} // namespace

void bind_channels(py::module_& m) {
    py::register_exception_translator([](std::exception_ptr pointer) {
        if (pointer) {
            translate(pointer);
        }
    });
    py::class_<PilotObserver, std::shared_ptr<PilotObserver>>(
        m, "PilotObserver", "Least squares, noise and signal power at the pilots of slots.")
        .def(py::init([](const SlotLayout& layout, const ComplexArray& modes) {
                 if (modes.ndim() != 2 ||
                     static_cast<std::size_t>(modes.shape(0)) != layout.pilot_carriers.size()) {
                     throw py::value_error("modes: expected [pilot subcarriers, modes]");
                 }
                 return std::make_shared<PilotObserver>(layout, modes.data(),
                                                        static_cast<std::size_t>(modes.shape(1)));
             }),
             py::arg("layout"), py::arg("modes").noconvert())
        .def("observe", &observe, py::arg("grids"),
             "Least squares [B, A, P, Fp], noise power [B] and signal power [B] of grids that `refuse` "
             "passed.")
        .def("refuse", &refuse, py::arg("grid").noconvert(),
             "None for a grid that can be used, else (field, found, expected).")
        .def("residuals", &residuals, py::arg("channels").noconvert(), py::arg("ls").noconvert(),
             py::arg("noise_power"), "Mean |y - h x|^2 at the pilots over the noise power, [B].");
    bind_methods(m);
    py::class_<BackOff, std::shared_ptr<BackOff>>(m, "BackOff", "State of a fallback with hysteresis.")
        .def(py::init([](double enter_db, double leave_db, double residual_enter, double residual_leave) {
                 return BackOff{enter_db, leave_db, residual_enter, residual_leave};
             }),
             py::arg("enter_db"), py::arg("leave_db"), py::arg("residual_enter"), py::arg("residual_leave"))
        .def_readonly("enter_db", &BackOff::enter_db)
        .def_readonly("leave_db", &BackOff::leave_db)
        .def_readonly("residual_enter", &BackOff::residual_enter)
        .def_readonly("residual_leave", &BackOff::residual_leave)
        .def_readonly("active", &BackOff::active, "Whether least squares replace the estimator.")
        .def_readonly("switches", &BackOff::switches, "Changes of `active` so far.")
        .def("update", &BackOff::update, py::arg("snr_db"), py::arg("residual"),
             "Updates the state with the next slot; True if least squares replace the estimator for it.")
        .def(
            "reset", [](BackOff& state) { state.active = false; },
            "Becomes inactive for another stream or estimator; `switches` is kept.");
    py::class_<SlotAnswer, std::shared_ptr<SlotAnswer>>(m, "SlotAnswer",
                                                        "A slot and its estimate or its refusal.")
        .def_readonly("slot", &SlotAnswer::slot)
        .def_property_readonly("refusal", &refusal_of, "None, or (field, found, expected).")
        .def(
            "channel",
            [](const SlotAnswer& answer, std::size_t n) { return array_of(answer.estimate.channel, n); },
            py::arg("n"), "The n elements of the channel, complex64 [n], without a copy.")
        .def_property_readonly("method", [](const SlotAnswer& a) { return a.estimate.method; })
        .def_property_readonly("bundle_id", [](const SlotAnswer& a) { return a.estimate.bundle_id; })
        .def_property_readonly("noise_power", [](const SlotAnswer& a) { return a.estimate.noise_power; })
        .def_property_readonly("snr_db", [](const SlotAnswer& a) { return a.estimate.snr_db; })
        .def_property_readonly("residual", [](const SlotAnswer& a) { return a.estimate.residual; })
        .def_property_readonly("nmse_db", [](const SlotAnswer& a) { return a.estimate.nmse_db; })
        .def_property_readonly("backed_off", [](const SlotAnswer& a) { return a.estimate.backed_off; })
        .def_property_readonly("latency_s", [](const SlotAnswer& a) { return a.estimate.latency_s; });
    py::class_<ChannelPipeline, std::shared_ptr<ChannelPipeline>>(m, "ChannelPipeline",
                                                                  "Slots to estimates of their channels.")
        .def(py::init<std::shared_ptr<const PilotObserver>, std::shared_ptr<ChannelMethod>,
                      std::shared_ptr<ChannelMethod>, std::shared_ptr<BackOff>>(),
             py::arg("observer"), py::arg("fallback"), py::arg("method"), py::arg("back_off"))
        .def("predict", &predict, py::arg("slots"))
        .def("set_method", &ChannelPipeline::set_method, py::arg("method"))
        .def("set_allocator", &ChannelPipeline::set_allocator, py::arg("allocator"))
        .def_property_readonly("failed", &ChannelPipeline::failed)
        .def_property_readonly("backed_off", &ChannelPipeline::backed_off);
    m.def(
        "least_squares_tiles",
        [](const ComplexArray& ls) {
            if (ls.ndim() != 4) {
                throw py::value_error("ls: expected [slots, antennas, pilot symbols, pilot subcarriers]");
            }
            const auto b = ls.shape(0), a = ls.shape(1), p = ls.shape(2), f = ls.shape(3);
            Floats tiles({b, 2 * p, a, f}), roots(b);
            for (py::ssize_t i = 0; i < b; i++) {
                roots.mutable_at(i) = least_squares_tile(
                    ls.data() + i * a * p * f, static_cast<std::size_t>(a), static_cast<std::size_t>(p),
                    static_cast<std::size_t>(f), tiles.mutable_data() + 2 * i * a * p * f);
            }
            return py::make_tuple(tiles, roots);
        },
        py::arg("ls").noconvert(),
        "Tiles float32 [B, 2 P, A, Fp] of unit mean power, and the roots of the powers taken out, [B].");
}
