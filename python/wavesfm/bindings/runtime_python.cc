// SPDX-License-Identifier: GPL-3.0-or-later
// What GNU Radio's runtime knows and its Python binding does not show. Blocks are passed by their symbol
// names, so that this module shares no pybind11 types with GNU Radio's and may be built with another
// pybind11.
#include "messages_python.h"

#include <algorithm>
#include <boost/thread/thread.hpp>
#include <exception>
#include <gnuradio/block.h>
#include <gnuradio/block_detail.h>
#include <gnuradio/block_registry.h>
#include <pybind11/pybind11.h>
#include <string>

namespace py = pybind11;

namespace {

gr::basic_block_sptr find(const pmt::pmt_t& name) {
    try {
        return global_block_registry.block_lookup(name);
    } catch (const std::exception&) {
        return nullptr; // there is no such block, or it is being destroyed
    }
}

// Messages that wait in one subscriber's queue; 0 for one that takes none any more: it has ended, or has no
// handler.
std::size_t queued_at(const pmt::pmt_t& subscriber) {
    const auto block = find(pmt::car(subscriber));
    if (!block) {
        return 0;
    }
    const auto running = std::dynamic_pointer_cast<gr::block>(block);
    if (running && running->detail() && running->detail()->done()) {
        return 0;
    }
    try {
        const auto port = pmt::cdr(subscriber);
        return block->empty_handled_p(port) ? 0 : block->nmsgs(port);
    } catch (const std::exception&) {
        return 0; // it has no such port
    }
}

std::size_t queued(const std::string& publisher, const std::string& port) {
    const auto block = find(pmt::intern(publisher));
    if (!block) {
        return 0;
    }
    std::size_t most = 0;
    auto subscribers = block->message_subscribers(pmt::intern(port));
    for (; pmt::is_pair(subscribers); subscribers = pmt::cdr(subscribers)) {
        most = std::max(most, queued_at(pmt::car(subscribers)));
    }
    return most;
}

long owners(const std::string& name) {
    const auto block = find(pmt::intern(name));
    return block ? block.use_count() - 1 : 0;
}

bool stop_requested() {
    return boost::this_thread::interruption_requested();
}

} // namespace

PYBIND11_MODULE(_runtime, m) {
    m.doc() = "Queries of GNU Radio's runtime that its Python binding does not offer.";
    m.def("queued", &queued, py::arg("publisher"), py::arg("port"),
          "Messages that wait in the fullest queue of the subscribers of a block's output port.");
    m.def("owners", &owners, py::arg("name"),
          "Shared pointers to a block: its Python object's and each flowgraph's.");
    m.def("stop_requested", &stop_requested,
          "Whether the flowgraph has asked the calling block's thread to end.");
    bind_messages(m);
}
