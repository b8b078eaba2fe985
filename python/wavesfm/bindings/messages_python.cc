// SPDX-License-Identifier: GPL-3.0-or-later
// Dictionaries as PMT, made and published without GNU Radio's Python types, whose calls cost more than the
// message.
#include "messages_python.h"

#include <gnuradio/basic_block.h>
#include <gnuradio/block_registry.h>
#include <pmt/pmt.h>

#include <string>
#include <vector>

namespace py = pybind11;

namespace {

pmt::pmt_t to_pmt(py::handle value);

pmt::pmt_t dict_to_pmt(py::handle values) {
    std::vector<std::pair<pmt::pmt_t, pmt::pmt_t>> items;
    for (const auto& item : py::reinterpret_borrow<py::dict>(values)) {
        items.emplace_back(pmt::intern(py::str(item.first)), to_pmt(item.second));
    }
    pmt::pmt_t message = pmt::make_dict();
    for (auto item = items.rbegin(); item != items.rend(); ++item) { // a PMT dict grows at its front
        message = pmt::acons(item->first, item->second, message);
    }
    return message;
}

pmt::pmt_t vector_to_pmt(py::handle values) {
    const auto items = py::reinterpret_borrow<py::sequence>(values);
    auto vector = pmt::make_vector(items.size(), pmt::PMT_NIL);
    for (std::size_t i = 0; i < items.size(); i++) {
        pmt::vector_set(vector, i, to_pmt(items[i]));
    }
    return vector;
}

//! Whether it is a `StreamTime`, which becomes a tuple as in rx_time.
bool is_time(py::handle value) {
    return py::hasattr(value, "full_s") && py::hasattr(value, "frac_s");
}

pmt::pmt_t time_to_pmt(py::handle time) {
    return pmt::make_tuple(pmt::from_uint64(py::cast<std::uint64_t>(time.attr("full_s"))),
                           pmt::from_double(py::cast<double>(time.attr("frac_s"))));
}

pmt::pmt_t integer_to_pmt(py::handle value) {
    const double number = PyLong_AsDouble(value.ptr());
    if (PyErr_Occurred()) {
        throw py::error_already_set();
    }
    return number < 0 ? pmt::from_double(number) : pmt::from_uint64(py::cast<std::uint64_t>(value));
}

pmt::pmt_t to_pmt(py::handle value) {
    if (value.is_none()) {
        return pmt::PMT_NIL;
    }
    if (PyBool_Check(value.ptr())) {
        return pmt::from_bool(value.ptr() == Py_True);
    }
    if (PyFloat_Check(value.ptr())) {
        return pmt::from_double(PyFloat_AS_DOUBLE(value.ptr()));
    }
    if (PyLong_Check(value.ptr())) {
        return integer_to_pmt(value);
    }
    if (PyUnicode_Check(value.ptr())) {
        return pmt::intern(py::cast<std::string>(value));
    }
    if (PyDict_Check(value.ptr())) {
        return dict_to_pmt(value);
    }
    if (PyList_Check(value.ptr())) {
        return vector_to_pmt(value);
    }
    if (PyTuple_Check(value.ptr())) {
        return is_time(value) ? time_to_pmt(value) : pmt::to_tuple(vector_to_pmt(value));
    }
    return pmt::intern(py::str(value));
}

//! A message that Python holds and passes on without looking into it.
struct Message {
    explicit Message(const py::dict& values) : value(dict_to_pmt(values)) {}
    pmt::pmt_t value;
};

py::bytes serialised(const Message& message) {
    return pmt::serialize_str(message.value);
}

bool publish(const std::string& publisher, const std::string& port, const Message& message) {
    py::gil_scoped_release release;
    gr::basic_block_sptr block;
    try {
        block = global_block_registry.block_lookup(pmt::intern(publisher));
    } catch (const std::exception&) { // there is no such block, or it is being destroyed
    }
    if (block) {
        block->message_port_pub(pmt::intern(port), message.value);
    }
    return block != nullptr;
}

} // namespace

void bind_messages(py::module_& m) {
    py::class_<Message>(
        m, "Message",
        "A PMT dict of str keys: None, bool, float, str (symbols), int (uint64, or double below 0), "
        "StreamTime\n(a tuple as in rx_time), dict, list (vectors) and tuple.")
        .def(py::init<const py::dict&>(), py::arg("values"))
        .def("serialise", &serialised, "The bytes that pmt.deserialize_str reads.");
    m.def("publish", &publish, py::arg("publisher"), py::arg("port"), py::arg("message"),
          "Publishes a Message on a port of the block of this symbol name; False if there is no such block.");
}
