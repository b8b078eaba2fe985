// SPDX-License-Identifier: GPL-3.0-or-later
// The paths of slots and channels through a flowgraph, without the interpreter's lock. Slots, streams and
// pipelines are classes of wavesfm_core._kernels; blocks are named by their symbol names, and messages that
// cross to Python are serialised, so that this module shares no pybind11 types with GNU Radio's.
#include "runtime_python.h"

#include "grid_messages.h"
#include "message_outbox.h"

#include "../../wavesfm_core/bindings/grids_python.h"

#include <gnuradio/wavesfm/estimator_session.h>

#include <gnuradio/block.h>
#include <gnuradio/block_detail.h>

#include <pybind11/functional.h>

#include <boost/thread/thread.hpp>

namespace py = pybind11;
using namespace wavesfm;

namespace {

using Release = py::call_guard<py::gil_scoped_release>;
using Slots = std::vector<std::shared_ptr<Slot>>;

bool stop_requested() {
    return boost::this_thread::interruption_requested();
}

std::vector<Slot> copies(const Slots& slots) {
    std::vector<Slot> made;
    for (const auto& slot : slots) {
        made.push_back(*slot);
    }
    return made;
}

// ---- tags

// Offsets of the slot tags of input 0, and whether any input has one of the tags rx_time, rx_rate and
// rx_freq.
std::pair<std::vector<std::uint64_t>, bool> read_tags(const std::string& name, unsigned inputs,
                                                      std::uint64_t first, std::uint64_t count,
                                                      const std::string& slot_tag) {
    static const pmt::pmt_t changes[] = {pmt::intern("rx_time"), pmt::intern("rx_rate"),
                                         pmt::intern("rx_freq")};
    std::pair<std::vector<std::uint64_t>, bool> found;
    const auto block = std::dynamic_pointer_cast<gr::block>(find_block(name));
    if (!block || !block->detail()) {
        return found;
    }
    const pmt::pmt_t slot_key = pmt::intern(slot_tag);
    std::vector<gr::tag_t> tags;
    for (unsigned input = 0; input < inputs; input++) {
        block->detail()->get_tags_in_range(tags, input, first, first + count, block->unique_id());
        for (const auto& tag : tags) {
            if (input == 0 && !slot_tag.empty() && pmt::eq(tag.key, slot_key)) {
                found.first.push_back(tag.offset);
            }
            for (const auto& key : changes) {
                found.second = found.second || pmt::eq(tag.key, key);
            }
        }
    }
    return found;
}

// ---- slots out

void publish_slots(MessageOutbox& outbox, const GridFormat& format, const Slots& slots, bool together) {
    if (together && !slots.empty()) {
        outbox.put(slots_to_pdu(copies(slots), format));
        return;
    }
    for (const auto& slot : slots) {
        outbox.put(slot_to_pdu(*slot, format));
    }
}

// ---- slots in, channels out

// Publishes the channels of a block's runs.
class ChannelPublisher {
public:
    ChannelPublisher(std::shared_ptr<MessageOutbox> outbox, const GridFormat& format, bool together)
        : outbox_(std::move(outbox)), format_(format), together_(together) {}

    void publish(const std::vector<SlotAnswer>& answers) {
        if (together_) {
            outbox_->put(estimates_to_pdu(answers, format_, run, sequence_));
            sequence_ += answers.size();
            return;
        }
        for (const auto& answer : answers) {
            outbox_->put(estimate_to_pdu(answer, format_, run, sequence_++));
        }
    }

    std::uint64_t run = 0; //!< how often the block was started

private:
    const std::shared_ptr<MessageOutbox> outbox_;
    const GridFormat format_;
    const bool together_;
    std::uint64_t sequence_ = 0; // over the block's life
};

// Set by one thread, read by another.
struct Flag {
    std::atomic<bool> value{false};
};

OverrunPolicy policy_of(const std::string& name) {
    if (name != "block" && name != "drop_oldest" && name != "drop_newest") {
        throw py::value_error("policy: found " + name);
    }
    return name == "block"         ? OverrunPolicy::block
           : name == "drop_oldest" ? OverrunPolicy::drop_oldest
                                   : OverrunPolicy::drop_newest;
}

// Python functions as events; each takes the interpreter's lock.
struct PythonEvents {
    std::shared_ptr<py::object> on_answers, on_back_off, on_drop, on_failure;

    template <typename... Values>
    static void call(const std::shared_ptr<py::object>& function, const Values&... values) {
        py::gil_scoped_acquire lock;
        try {
            (*function)(values...);
        } catch (py::error_already_set& error) {
            error.discard_as_unraisable("an event of the channel estimator");
        }
    }

    std::vector<std::string> answer(const std::vector<SlotAnswer>& answers) const {
        py::gil_scoped_acquire lock;
        std::vector<std::shared_ptr<SlotAnswer>> shared;
        for (const auto& one : answers) {
            shared.push_back(std::make_shared<SlotAnswer>(one));
        }
        try {
            const py::object faults = (*on_answers)(shared);
            return faults.is_none() ? std::vector<std::string>() : py::cast<std::vector<std::string>>(faults);
        } catch (py::error_already_set& error) {
            throw std::runtime_error(error.what());
        }
    }
};

// An EstimatorSession whose calls release the interpreter's lock.
class BoundSession {
public:
    BoundSession(std::shared_ptr<ChannelPipeline> pipeline, const EstimatorOptions& options,
                 const std::string& policy, const GridFormat& format,
                 std::shared_ptr<ChannelPublisher> publisher, std::shared_ptr<Flag> wants_answers,
                 PythonEvents events)
        : format_(format) {
        EstimatorEvents made;
        made.on_answers = [publisher, wants_answers, events](const std::vector<SlotAnswer>& answers) {
            if (publisher) {
                publisher->publish(answers);
            }
            return wants_answers->value ? events.answer(answers) : std::vector<std::string>();
        };
        made.on_back_off = [events](const SlotAnswer& answer) {
            PythonEvents::call(events.on_back_off, answer);
        };
        made.on_drop = [events](const std::string& name) { PythonEvents::call(events.on_drop, name); };
        made.on_failure = [events](const std::string& cause, const std::string& text, std::uint64_t n) {
            PythonEvents::call(events.on_failure, cause, text, n);
        };
        session_ = std::make_shared<EstimatorSession>(std::move(pipeline), options, policy_of(policy),
                                                      std::move(made));
    }

    ~BoundSession() {
        py::gil_scoped_release release;
        session_.reset();
    }

    EstimatorSession& session() { return *session_; }

    void take(const Slot& slot, const std::function<bool()>& cancelled) {
        session_->take(slot, cancelled ? cancelled : stop_requested);
    }

    // Takes the messages of a port of a block in, on that block's thread.
    void attach(const std::string& name, const std::string& port) {
        const auto block = find_block(name);
        if (block) {
            block->set_msg_handler(pmt::intern(port),
                                   [session = std::weak_ptr<EstimatorSession>(session_), format = format_](
                                       pmt::pmt_t message) { handle(session.lock(), format, message); });
        }
    }

    // Takes in what waits at the port.
    void take_waiting(const std::string& name, const std::string& port) {
        const auto block = find_block(name);
        while (block) {
            const auto message = block->delete_head_nowait(pmt::intern(port));
            if (!message) {
                return;
            }
            handle(session_, format_, message);
        }
    }

private:
    static void handle(const std::shared_ptr<EstimatorSession>& session, const GridFormat& format,
                       const pmt::pmt_t& message) {
        if (!session) {
            return;
        }
        std::vector<Slot> slots;
        try {
            slots = slots_from_pdu(message, format);
        } catch (const std::exception& error) { // one that left here would end the block's thread
            if (!stop_requested()) {
                session->refuse(error.what());
                return;
            }
            slots.resize(1); // counted below
        }
        for (auto& slot : slots) {
            if (stop_requested()) {
                session->discard();
            } else {
                session->take(std::move(slot), stop_requested);
            }
        }
    }

    const GridFormat format_;
    std::shared_ptr<EstimatorSession> session_;
};

py::dict as_dict(const EstimatorAccounts& a) {
    using namespace py::literals;
    const auto* last = a.last ? &*a.last : nullptr;
    const auto number = [&](double value) {
        return last && !std::isnan(value) ? py::object(py::float_(value)) : py::none();
    };
    return py::dict(
        "grids_in"_a = a.refused + a.slots_in, "refused"_a = a.refused, "slots_in"_a = a.slots_in,
        "estimated"_a = a.estimated, "dropped"_a = a.dropped, "too_old"_a = a.too_old, "failed"_a = a.failed,
        "waiting"_a = a.waiting, "batches"_a = a.batches, "backed_off"_a = a.backed_off,
        "method"_a = last ? last->method : "", "snr_db"_a = number(last ? last->snr_db : 0.0),
        "nmse_db"_a = number(last ? last->nmse_db : 0.0), "residual"_a = number(last ? last->residual : 0.0),
        "backing_off"_a = last && last->backed_off, "last_error"_a = a.last_error);
}

py::bytes serialised(const pmt::pmt_t& message) {
    return py::bytes(pmt::serialize_str(message));
}

void bind_session(py::module_& m) {
    py::class_<BoundSession, std::shared_ptr<BoundSession>>(
        m, "EstimatorSession", "A queue of slots and the thread that estimates their channels.")
        .def(py::init([](std::shared_ptr<ChannelPipeline> pipeline, std::size_t queue_slots,
                         std::size_t batch_slots, double batch_wait_s, double max_age_s,
                         const std::string& policy, const GridFormat& format,
                         std::shared_ptr<ChannelPublisher> publisher, std::shared_ptr<Flag> wants_answers,
                         py::object on_answers, py::object on_back_off, py::object on_drop,
                         py::object on_failure) {
                 return std::make_shared<BoundSession>(
                     std::move(pipeline), EstimatorOptions{queue_slots, batch_slots, batch_wait_s, max_age_s},
                     policy, format, std::move(publisher), std::move(wants_answers),
                     PythonEvents{kept(std::move(on_answers)), kept(std::move(on_back_off)),
                                  kept(std::move(on_drop)), kept(std::move(on_failure))});
             }),
             py::arg("pipeline"), py::arg("queue_slots"), py::arg("batch_slots"), py::arg("batch_wait_s"),
             py::arg("max_age_s"), py::arg("policy"), py::arg("format"), py::arg("publisher"),
             py::arg("wants_answers"), py::arg("on_answers"), py::arg("on_back_off"), py::arg("on_drop"),
             py::arg("on_failure"))
        .def("take", &BoundSession::take, py::arg("slot"), py::arg("cancelled") = nullptr, Release())
        .def("attach", &BoundSession::attach, py::arg("block"), py::arg("port"), Release(),
             "Takes the messages of a port of a block in from now on.")
        .def("take_waiting", &BoundSession::take_waiting, py::arg("block"), py::arg("port"), Release(),
             "Takes the messages in that wait at a port of a block.")
        .def(
            "discard", [](BoundSession& s) { s.session().discard(); }, Release())
        .def(
            "refuse", [](BoundSession& s, const std::string& text) { s.session().refuse(text); },
            py::arg("text"), Release())
        .def(
            "drain",
            [](BoundSession& s, const std::function<bool()>& cancelled) {
                return s.session().drain(cancelled);
            },
            py::arg("cancelled"), Release())
        .def(
            "close",
            [](BoundSession& s, std::optional<double> timeout_s) { return s.session().close(timeout_s); },
            py::arg("timeout_s"), Release())
        .def(
            "set_policy",
            [](BoundSession& s, const std::string& policy) { s.session().set_policy(policy_of(policy)); },
            py::arg("policy"), Release())
        .def_property_readonly("batch_s",
                               [](BoundSession& s) {
                                   py::gil_scoped_release release;
                                   return s.session().batch_s();
                               })
        .def("status", [](BoundSession& s) {
            EstimatorAccounts accounts;
            {
                py::gil_scoped_release release;
                accounts = s.session().accounts();
            }
            return as_dict(accounts);
        });
}

} // namespace

void bind_grids(py::module_& m) {
    py::module_::import("wavesfm_core._kernels"); // it has the classes of slots and pipelines
    py::class_<PmtGrids, GridAllocator, std::shared_ptr<PmtGrids>>(
        m, "PmtGrids", "Grids in the memory of PMT vectors, sent without a copy.")
        .def(py::init<>());
    py::class_<GridFormat>(m, "GridFormat", "What all grids of a numerology have in common.")
        .def(py::init([](std::array<std::size_t, 3> shape, std::string numerology, std::size_t slot_samples) {
                 return GridFormat{shape, std::move(numerology), slot_samples};
             }),
             py::arg("shape"), py::arg("numerology"), py::arg("slot_samples"));
    py::class_<MessageOutbox, std::shared_ptr<MessageOutbox>>(
        m, "Outbox", "Bounded publication of messages that are made in C++, see `outbox.Outbox`.")
        .def(py::init<std::string, std::string, std::size_t, std::size_t>(), py::arg("block"),
             py::arg("port"), py::arg("in_flight"), py::arg("limit"))
        .def("flush", &MessageOutbox::flush, Release())
        .def("drain", &MessageOutbox::drain, Release())
        .def("open", &MessageOutbox::open, Release())
        .def("close", &MessageOutbox::close, Release())
        .def("set_holds_back", &MessageOutbox::set_holds_back, py::arg("holds_back"))
        .def_property_readonly("dropped", &MessageOutbox::dropped)
        .def_property_readonly("stalled", &MessageOutbox::stalled);
    py::class_<Flag, std::shared_ptr<Flag>>(m, "Flag", "A truth value for C++ to look at.")
        .def(py::init<>())
        .def_property(
            "value", [](const Flag& flag) { return flag.value.load(); },
            [](Flag& flag, bool value) { flag.value = value; });
    py::class_<ChannelPublisher, std::shared_ptr<ChannelPublisher>>(
        m, "ChannelPublisher", "Publishes the channels of a block's runs.")
        .def(py::init<std::shared_ptr<MessageOutbox>, const GridFormat&, bool>(), py::arg("outbox"),
             py::arg("format"), py::arg("together"))
        .def_readwrite("run", &ChannelPublisher::run);
    bind_session(m);
    m.def("read_tags", &read_tags, py::arg("block"), py::arg("inputs"), py::arg("first"), py::arg("count"),
          py::arg("slot_tag"), Release(),
          "Offsets of the slot tags of input 0, and whether any input has a tag of time, rate or frequency.");
    m.def("publish_slots", &publish_slots, py::arg("outbox"), py::arg("format"), py::arg("slots"),
          py::arg("together"), Release(), "Publishes slots, each as a PDU or all in one.");
    m.def(
        "slot_bytes",
        [](const std::shared_ptr<Slot>& slot, const GridFormat& format) {
            return serialised(slot_to_pdu(*slot, format));
        },
        py::arg("slot"), py::arg("format"), "The serialised PDU of a slot.");
    m.def(
        "batch_bytes",
        [](const Slots& slots, const GridFormat& format) {
            if (slots.empty()) {
                throw py::value_error("slots: found none, expected one or more");
            }
            return serialised(slots_to_pdu(copies(slots), format));
        },
        py::arg("slots"), py::arg("format"), "The serialised PDU of several slots.");
    m.def(
        "slots_of_bytes",
        [](const std::string& data, const GridFormat& format) {
            Slots made;
            for (auto& slot : slots_from_pdu(pmt::deserialize_str(data), format)) {
                made.push_back(std::make_shared<Slot>(std::move(slot)));
            }
            return made;
        },
        py::arg("data"), py::arg("format"), "The slots of a serialised PDU; ValueError names what is wrong.");
    m.def(
        "answer_bytes",
        [](const std::shared_ptr<SlotAnswer>& answer, const GridFormat& format, std::uint64_t run,
           std::uint64_t sequence) { return serialised(estimate_to_pdu(*answer, format, run, sequence)); },
        py::arg("answer"), py::arg("format"), py::arg("run"), py::arg("sequence"),
        "The serialised PDU of an estimate.");
}
