// SPDX-License-Identifier: GPL-3.0-or-later
#include "slots_python.h"

#include "grids_python.h"

#include <gnuradio/wavesfm/slot_stream.h>
#include <gnuradio/wavesfm/slot_synchronisation.h>

#include <mutex>

namespace py = pybind11;
using namespace wavesfm;

namespace {

SlotLayout make_layout(std::size_t antennas, std::size_t fft_size, std::vector<std::size_t> prefix_samples,
                       std::vector<std::int64_t> frequencies, double spacing_hz,
                       std::vector<std::size_t> pilot_symbols, std::vector<std::size_t> pilot_carriers,
                       const ComplexArray& pilots) {
    SlotLayout layout{antennas,
                      fft_size,
                      std::move(prefix_samples),
                      std::move(frequencies),
                      spacing_hz,
                      std::move(pilot_symbols),
                      std::move(pilot_carriers),
                      {pilots.data(), pilots.data() + pilots.size()}};
    layout.check();
    return layout;
}

using Slots = std::vector<std::shared_ptr<Slot>>;

Slots shared(std::vector<Slot>&& slots) {
    Slots made;
    for (auto& slot : slots) {
        made.push_back(std::make_shared<Slot>(std::move(slot)));
    }
    return made;
}

// A SlotStream whose calls release the interpreter's lock.
class BoundStream {
public:
    BoundStream(const SlotLayout& layout, const SlotStreamOptions& options) : stream_(layout, options) {}

    Slots push(const py::sequence& streams, const std::vector<std::uint64_t>& marks,
               std::optional<double> arrived_s) {
        std::vector<ComplexArray> arrays;
        std::vector<const std::complex<float>*> pointers;
        for (const auto& stream : streams) {
            arrays.push_back(py::cast<ComplexArray>(stream));
            pointers.push_back(arrays.back().data());
            if (arrays.back().ndim() != 1 || arrays.back().size() != arrays.front().size()) {
                throw py::value_error("streams: expected arrays of one dimension and of equal lengths");
            }
        }
        const std::size_t n = arrays.empty() ? 0 : static_cast<std::size_t>(arrays.front().size());
        return locked([&](std::vector<Slot>& slots) { stream_.push(pointers, n, marks, arrived_s, slots); });
    }

    Slots retune(std::optional<double> rate_hz, const PlainTime& time) {
        return locked([&](std::vector<Slot>& slots) { stream_.retune(rate_hz, time_from(time), slots); });
    }

    Slots finish() {
        return locked([&](std::vector<Slot>& slots) { stream_.finish(slots); });
    }

    void mark(std::uint64_t sample) {
        const std::lock_guard<std::mutex> lock(mutex_);
        stream_.mark(sample);
    }

    void set_allocator(std::shared_ptr<GridAllocator> allocator) {
        const std::lock_guard<std::mutex> lock(mutex_);
        stream_.set_allocator(std::move(allocator));
    }

    std::uint64_t end() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return stream_.end();
    }

    SlotStreamStatus status() {
        py::gil_scoped_release release;
        const std::lock_guard<std::mutex> lock(mutex_);
        return stream_.status();
    }

private:
    template <typename Work>
    Slots locked(const Work& work) {
        py::gil_scoped_release release;
        const std::lock_guard<std::mutex> lock(mutex_);
        std::vector<Slot> slots;
        work(slots);
        return shared(std::move(slots));
    }

    std::mutex mutex_; // a monitor's thread asks for the status
    SlotStream stream_;
};

py::dict as_dict(const SlotStreamStatus& status) {
    using namespace py::literals;
    return py::dict("searching"_a = status.searching, "sync_metric"_a = status.sync_metric,
                    "sync_threshold"_a = status.sync_threshold, "cfo_hz"_a = status.cfo_hz,
                    "samples_in"_a = status.samples_in, "samples_skipped"_a = status.samples_skipped,
                    "slots"_a = status.slots, "slots_missed"_a = status.slots_missed,
                    "slots_cut"_a = status.slots_cut, "slots_zero_pilots"_a = status.slots_zero_pilots,
                    "slots_silent_antenna"_a = status.slots_silent_antenna, "syncs"_a = status.syncs,
                    "lost_sync"_a = status.lost_sync, "searches_failed"_a = status.searches_failed,
                    "marks_late"_a = status.marks_late, "n_nonfinite"_a = status.n_nonfinite,
                    "samples_pending"_a = status.samples_pending, "fault"_a = status.fault);
}

py::tuple find(PilotSearch& search, const ComplexArray& samples) {
    if (samples.ndim() != 2 || static_cast<std::size_t>(samples.shape(1)) < search.span_samples()) {
        throw py::value_error("samples: expected [antennas, span_samples or more]");
    }
    const auto n = static_cast<std::size_t>(samples.shape(1));
    const auto start = search.find(samples.data(), n, n);
    return py::make_tuple(start, search.metric());
}

} // namespace

void bind_slots(py::module_& m) {
    py::class_<SlotLayout, std::shared_ptr<SlotLayout>>(
        m, "SlotLayout", "Parameters of an OFDM slot and its pilots; ValueError names what contradicts.")
        .def(py::init(&make_layout), py::arg("antennas"), py::arg("fft_size"), py::arg("prefix_samples"),
             py::arg("frequencies"), py::arg("spacing_hz"), py::arg("pilot_symbols"),
             py::arg("pilot_carriers"), py::arg("pilots").noconvert());
    py::class_<GridAllocator, std::shared_ptr<GridAllocator>>(m, "GridAllocator",
                                                              "Makes the memory of grids and channels.");
    py::class_<Slot, std::shared_ptr<Slot>>(m, "Slot", "A received grid and its place, see `types.Slot`.")
        .def(py::init([](const ComplexArray& grid, std::uint64_t start_sample, std::uint64_t n_samples,
                         double rate_hz, const PlainTime& time, std::uint64_t n_nonfinite,
                         std::optional<double> sync_metric, std::optional<double> arrived_s) {
                 return Slot{grid_of(grid, static_cast<std::size_t>(grid.size())),
                             start_sample,
                             n_samples,
                             rate_hz,
                             time_from(time),
                             n_nonfinite,
                             sync_metric,
                             arrived_s};
             }),
             py::arg("grid").noconvert(), py::arg("start_sample"), py::arg("n_samples"), py::arg("rate_hz"),
             py::arg("time"), py::arg("n_nonfinite"), py::arg("sync_metric"), py::arg("arrived_s"))
        .def(
            "grid", [](const Slot& slot, std::size_t n) { return array_of(slot.grid, n); }, py::arg("n"),
            "The n elements of the grid, complex64 [n], without a copy.")
        .def_readonly("start_sample", &Slot::start_sample)
        .def_readonly("n_samples", &Slot::n_samples)
        .def_readonly("rate_hz", &Slot::rate_hz)
        .def_property_readonly("time", [](const Slot& slot) { return time_to(slot.time); })
        .def_readonly("n_nonfinite", &Slot::n_nonfinite)
        .def_readonly("sync_metric", &Slot::sync_metric)
        .def_readonly("arrived_s", &Slot::arrived_s);
    py::class_<BoundStream>(m, "SlotStream", "Sample streams to slots, see `channel.slots.SlotStream`.")
        .def(py::init([](const SlotLayout& layout, bool by_pilots, double rate_hz, const PlainTime& time,
                         std::uint64_t start_sample, bool correct_offset) {
                 return std::make_unique<BoundStream>(
                     layout,
                     SlotStreamOptions{by_pilots, rate_hz, time_from(time), start_sample, correct_offset});
             }),
             py::arg("layout"), py::arg("by_pilots"), py::arg("rate_hz"), py::arg("time"),
             py::arg("start_sample"), py::arg("correct_offset"))
        .def("push", &BoundStream::push, py::arg("streams"), py::arg("marks"), py::arg("arrived_s"),
             "Takes complex64 [n] of each antenna in; returns the list of slots that they complete.")
        .def("mark", &BoundStream::mark, py::arg("sample"))
        .def("retune", &BoundStream::retune, py::arg("rate_hz"), py::arg("time"))
        .def("finish", &BoundStream::finish)
        .def("set_allocator", &BoundStream::set_allocator, py::arg("allocator"))
        .def_property_readonly("end", &BoundStream::end, "Absolute index of the next sample.")
        .def("status", [](BoundStream& stream) { return as_dict(stream.status()); });
    py::class_<PilotSearch>(m, "PilotSearch", "Search for the start of a slot at any sample.")
        .def(py::init<const SlotLayout&>(), py::arg("layout"))
        .def("find", &find, py::arg("samples").noconvert(),
             "(start or None, metric of the best start) of complex64 [antennas, n]; the starts 0 to n - "
             "span_samples are tried.\n\nSuccessive searches must cover adjoining ranges of equal length.")
        .def_property_readonly("threshold", &PilotSearch::threshold, "Threshold of the last search.")
        .def_property_readonly("span_samples", &PilotSearch::span_samples,
                               "Samples from the start of a slot to the end of its last pilot symbol.");
    m.def("reach_samples", &reach_samples, py::arg("layout"),
          "Range around the start in which paths lie: the shortest prefix of a pilot symbol, or the comb's "
          "range.");
    m.def("threshold_over_mean", &threshold_over_mean, py::arg("terms"), py::arg("false_alarm"),
          "Value that the mean of exponential variables of mean 1 exceeds with a given probability.");
}
