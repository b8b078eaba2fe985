// SPDX-License-Identifier: GPL-3.0-or-later
#include "streams_python.h"

#include <gnuradio/wavesfm/sample_clock.h>
#include <gnuradio/wavesfm/tile_stream.h>

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <memory>
#include <mutex>

namespace py = pybind11;
using namespace wavesfm;

namespace {

using Samples = py::array_t<std::complex<float>, py::array::c_style>;
using Time = std::optional<std::pair<std::int64_t, double>>; // (full_s, frac_s)

std::optional<StreamTime> to_time(const Time& time) {
    return time ? std::optional<StreamTime>({time->first, time->second}) : std::nullopt;
}

Time from_time(const std::optional<StreamTime>& time) {
    return time ? Time({time->full_s, time->frac_s}) : std::nullopt;
}

// The interpreter's lock is released while it works, so that two threads could meet in it.
class BoundTileStream {
public:
    BoundTileStream(const TilerSettings& settings, double rate_hz, std::optional<double> centre_hz,
                    const Time& time, std::int64_t start_sample, std::optional<double> tolerance_s)
        : settings_(settings),
          stream_(settings, rate_hz, centre_hz, to_time(time), start_sample, tolerance_s) {}

    py::list push(const Samples& samples, std::optional<double> arrived_s) {
        if (samples.ndim() != 1) {
            throw py::value_error("samples: found " + std::to_string(samples.ndim()) +
                                  " dimensions, expected 1");
        }
        const auto* data = samples.data();
        const auto n = static_cast<std::size_t>(samples.size());
        return locked([&] { return stream_.push(data, n, arrived_s); });
    }

    py::list retune(std::optional<double> rate_hz, std::optional<double> centre_hz, const Time& time) {
        return locked([&] { return stream_.retune(rate_hz, centre_hz, to_time(time)); });
    }

    py::list gap() {
        return locked([&] { return stream_.gap(); });
    }

    py::list finish() {
        return locked([&] { return stream_.finish(); });
    }

    StreamAccounts accounts() {
        py::gil_scoped_release release;
        std::lock_guard<std::mutex> lock(mutex_);
        return stream_.accounts();
    }

    double rate_hz() const { return stream_.rate_hz(); }
    std::optional<double> centre_hz() const { return stream_.centre_hz(); }

private:
    template <typename Call>
    py::list locked(Call call) {
        std::vector<Tile> tiles;
        {
            py::gil_scoped_release release;
            std::lock_guard<std::mutex> lock(mutex_);
            tiles = call();
        }
        py::list result;
        for (auto& tile : tiles) {
            result.append(as_tuple(std::move(tile)));
        }
        return result;
    }

    py::tuple as_tuple(Tile&& tile) const {
        auto owned = std::make_unique<std::vector<float>>(std::move(tile.cells.data));
        float* data = owned->data();
        py::capsule owner(owned.get(), [](void* p) { delete static_cast<std::vector<float>*>(p); });
        owned.release();
        const std::vector<py::ssize_t> shape{1, static_cast<py::ssize_t>(settings_.height),
                                             static_cast<py::ssize_t>(settings_.width)};
        const auto& cells = tile.cells;
        return py::make_tuple(py::array_t<float>(shape, data, owner), cells.start_sample, cells.n_samples,
                              tile.rate_hz, tile.centre_hz, from_time(tile.time), cells.partial,
                              cells.floor_db, cells.peak_db, cells.n_nonfinite, tile.arrived_s,
                              cells.n_gap_samples);
    }

    const TilerSettings settings_;
    TileStream stream_;
    std::mutex mutex_;
};

py::dict as_dict(const StreamAccounts& a) {
    py::dict result;
    result["samples_in"] = a.samples_in;
    result["samples_pending"] = a.samples_pending;
    result["skipped_retune"] = a.skipped_retune;
    result["skipped_gap"] = a.skipped_gap;
    result["skipped_silence"] = a.skipped_silence;
    result["skipped_end"] = a.skipped_end;
    result["samples_silent"] = a.samples_silent;
    result["samples_silent_cut"] = a.samples_silent_cut;
    result["samples_nonfinite"] = a.samples_nonfinite;
    result["retunes"] = a.retunes;
    result["gaps"] = a.gaps;
    result["samples_lost"] = a.samples_lost;
    result["tiles"] = a.tiles;
    result["partial_tiles"] = a.partial_tiles;
    return result;
}

void bind_clock(py::module_& m) {
    py::class_<SampleClock>(m, "SampleClock", "Times are (full_s, frac_s) or None; see sample_clock.h.")
        .def(py::init([](double rate_hz, const Time& time, std::int64_t sample,
                         std::optional<double> tolerance_s) {
                 return SampleClock(rate_hz, to_time(time), sample, tolerance_s);
             }),
             py::arg("rate_hz"), py::arg("time"), py::arg("sample"), py::arg("tolerance_s"))
        .def_property_readonly("rate_hz", &SampleClock::rate_hz)
        .def_property_readonly("limit_s", &SampleClock::limit_s)
        .def(
            "set_time",
            [](SampleClock& c, const Time& time, std::int64_t s) { c.set_time(to_time(time), s); },
            py::arg("time"), py::arg("sample"))
        .def("set_rate", &SampleClock::set_rate, py::arg("rate_hz"), py::arg("sample"))
        .def(
            "time_of", [](const SampleClock& c, std::int64_t s) { return from_time(c.time_of(s)); },
            py::arg("sample"))
        .def(
            "jump_s",
            [](SampleClock& c, const std::pair<std::int64_t, double>& time, std::int64_t s) {
                return c.jump_s({time.first, time.second}, s);
            },
            py::arg("time"), py::arg("sample"));
}

} // namespace

void bind_streams(py::module_& m) {
    bind_clock(m);
    py::class_<BoundTileStream>(
        m, "TileStream",
        "Cuts a stream into tiles: (float32 [1, height, width], start_sample, n_samples, rate_hz, centre_hz, "
        "time,\n"
        "partial, floor_db, peak_db, n_nonfinite, arrived_s, n_gap_samples); see tile_stream.h.")
        .def(py::init([](std::size_t fft_size, std::size_t hop_samples, const std::string& window,
                         std::size_t frames_averaged, std::size_t rows_per_tile, std::size_t min_rows,
                         double floor_db, std::size_t height, std::size_t width, const std::string& reference,
                         double low_db, double high_db, double mean, double std, bool remove_dc,
                         double rate_hz, std::optional<double> centre_hz, const Time& time,
                         std::int64_t start_sample, std::optional<double> tolerance_s) {
                 return std::make_unique<BoundTileStream>(
                     TilerSettings{fft_size, hop_samples, window, frames_averaged, rows_per_tile, min_rows,
                                   floor_db, height, width, reference, low_db, high_db, mean, std, remove_dc},
                     rate_hz, centre_hz, time, start_sample, tolerance_s);
             }),
             py::kw_only(), py::arg("fft_size"), py::arg("hop_samples"), py::arg("window"),
             py::arg("frames_averaged"), py::arg("rows_per_tile"), py::arg("min_rows"), py::arg("floor_db"),
             py::arg("height"), py::arg("width"), py::arg("reference"), py::arg("low_db"), py::arg("high_db"),
             py::arg("mean"), py::arg("std"), py::arg("remove_dc"), py::arg("rate_hz"), py::arg("centre_hz"),
             py::arg("time"), py::arg("start_sample"), py::arg("tolerance_s"))
        .def("push", &BoundTileStream::push, py::arg("samples").noconvert(), py::arg("arrived_s"))
        .def("retune", &BoundTileStream::retune, py::arg("rate_hz"), py::arg("centre_hz"), py::arg("time"))
        .def("gap", &BoundTileStream::gap)
        .def("finish", &BoundTileStream::finish)
        .def("accounts", [](BoundTileStream& s) { return as_dict(s.accounts()); })
        .def_property_readonly("rate_hz", &BoundTileStream::rate_hz)
        .def_property_readonly("centre_hz", &BoundTileStream::centre_hz);
}
