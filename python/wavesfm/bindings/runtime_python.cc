// SPDX-License-Identifier: GPL-3.0-or-later
// What GNU Radio's runtime knows and its Python binding does not show. Blocks are passed by their symbol
// names, so that this module shares no pybind11 types with GNU Radio's and may be built with another
// pybind11.
#include "runtime_python.h"

#include "message_outbox.h"
#include "messages_python.h"

#include <boost/thread/thread.hpp>
#include <string>

namespace py = pybind11;

namespace {

std::size_t queued(const std::string& publisher, const std::string& port) {
    const auto block = wavesfm::find_block(publisher);
    return block ? wavesfm::queued_at_readers(*block, pmt::intern(port)) : 0;
}

long owners(const std::string& name) {
    const auto block = wavesfm::find_block(name);
    return block ? block.use_count() - 1 : 0;
}

bool stop_requested() {
    return boost::this_thread::interruption_requested();
}

} // namespace

PYBIND11_MODULE(_runtime, m) {
    m.doc() =
        "Queries of GNU Radio's runtime that its Python binding does not offer, and the paths of slots and "
        "channels.";
    m.def("queued", &queued, py::arg("publisher"), py::arg("port"),
          "Messages that wait in the fullest queue of the subscribers of a block's output port.");
    m.def("owners", &owners, py::arg("name"),
          "Shared pointers to a block: its Python object's and each flowgraph's.");
    m.def("stop_requested", &stop_requested,
          "Whether the flowgraph has asked the calling block's thread to end.");
    bind_grids(m);
    bind_messages(m);
}
