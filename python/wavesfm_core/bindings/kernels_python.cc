// SPDX-License-Identifier: GPL-3.0-or-later
#include "band_python.h"
#include "engine_python.h"
#include "signature_python.h"
#include "slots_python.h"
#include "streams_python.h"
#include <gnuradio/wavesfm/ofdm_demodulator.h>
#include <gnuradio/wavesfm/pilot_image.h>
#include <gnuradio/wavesfm/resize.h>
#include <gnuradio/wavesfm/sample_conversion.h>
#include <gnuradio/wavesfm/spectrogram_tiler.h>
#include <gnuradio/wavesfm/version.h>
#include <gnuradio/wavesfm/waveform_correlation.h>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <mutex>

namespace py = pybind11;
using namespace wavesfm;

namespace {

using Samples = py::array_t<std::complex<float>, py::array::c_style>;

// The tiler with its lock: the GIL is released while it works, so that two threads could meet in it.
class BoundTiler {
public:
    explicit BoundTiler(const TilerSettings& settings) : settings_(settings), tiler_(settings) {}

    py::list push(const Samples& samples) {
        if (samples.ndim() != 1) {
            throw py::value_error("samples: found " + std::to_string(samples.ndim()) +
                                  " dimensions, expected 1");
        }
        const auto* data = samples.data();
        const auto n = static_cast<std::size_t>(samples.size());
        std::vector<TilerOutput> tiles;
        {
            py::gil_scoped_release release;
            std::lock_guard<std::mutex> lock(mutex_);
            tiles = tiler_.push(data, n);
        }
        py::list result;
        for (auto& tile : tiles) {
            result.append(as_tuple(std::move(tile)));
        }
        return result;
    }

    py::object flush() {
        std::optional<TilerOutput> tile;
        {
            py::gil_scoped_release release;
            std::lock_guard<std::mutex> lock(mutex_);
            tile = tiler_.flush();
        }
        return tile ? as_tuple(std::move(*tile)) : py::object(py::none());
    }

    py::dict counts() {
        TilerCounts counts;
        {
            py::gil_scoped_release release;
            std::lock_guard<std::mutex> lock(mutex_);
            counts = tiler_.counts();
        }
        py::dict result;
        result["silent"] = counts.silent;
        result["silent_cut"] = counts.silent_cut;
        result["discarded"] = counts.discarded;
        result["nonfinite"] = counts.nonfinite;
        return result;
    }

    std::uint64_t pending_samples() {
        py::gil_scoped_release release;
        std::lock_guard<std::mutex> lock(mutex_);
        return tiler_.pending_samples();
    }

private:
    py::object as_tuple(TilerOutput&& tile) const {
        auto owned = std::make_unique<std::vector<float>>(std::move(tile.data));
        float* data = owned->data();
        py::capsule owner(owned.get(), [](void* p) { delete static_cast<std::vector<float>*>(p); });
        owned.release();
        const std::vector<py::ssize_t> shape{1, static_cast<py::ssize_t>(settings_.height),
                                             static_cast<py::ssize_t>(settings_.width)};
        return py::make_tuple(py::array_t<float>(shape, data, owner), tile.start_sample, tile.n_samples,
                              tile.partial, tile.floor_db, tile.peak_db, tile.n_nonfinite,
                              tile.n_gap_samples);
    }

    const TilerSettings settings_;
    SpectrogramTiler tiler_;
    std::mutex mutex_;
};

// A contiguous view of any object with the buffer protocol, released with it.
struct Bytes {
    Py_buffer view;
    explicit Bytes(const py::object& object) {
        if (PyObject_GetBuffer(object.ptr(), &view, PyBUF_SIMPLE) != 0) {
            throw py::error_already_set();
        }
    }
    ~Bytes() { PyBuffer_Release(&view); }
    Bytes(const Bytes&) = delete;
    Bytes& operator=(const Bytes&) = delete;
};

Samples to_complex64(const py::object& raw, const std::string& sample_format) {
    const std::size_t per_sample = sample_bytes(sample_format);
    const Bytes bytes(raw);
    const auto length = static_cast<std::size_t>(bytes.view.len);
    if (length % per_sample != 0) {
        throw py::value_error("raw: found " + std::to_string(length) + " bytes, expected a multiple of " +
                              std::to_string(per_sample) + " for " + sample_format);
    }
    Samples out(static_cast<py::ssize_t>(length / per_sample));
    auto* data = out.mutable_data();
    {
        py::gil_scoped_release release;
        to_complex(bytes.view.buf, length / per_sample, sample_format, data);
    }
    return out;
}

using Image = py::array_t<float, py::array::c_style>;

constexpr std::size_t side_limit = 65536;
constexpr std::size_t values_limit = std::size_t{1} << 28; // 1 GiB, of what is made and of the step between

void require_size(const char* name, std::size_t found, std::size_t limit) {
    if (found < 1 || found > limit) {
        throw py::value_error(std::string(name) + ": found " + std::to_string(found) + ", expected 1 to " +
                              std::to_string(limit));
    }
}

Image resize(const Image& image, std::size_t height, std::size_t width) {
    if (image.ndim() != 3) {
        throw py::value_error("image: found " + std::to_string(image.ndim()) + " dimensions, expected 3");
    }
    const auto channels = static_cast<std::size_t>(image.shape(0)),
               rows = static_cast<std::size_t>(image.shape(1)),
               columns = static_cast<std::size_t>(image.shape(2));
    require_size("channels", channels, side_limit);
    require_size("rows", rows, side_limit);
    require_size("columns", columns, side_limit);
    require_size("height", height, side_limit);
    require_size("width", width, side_limit);
    // sides of 16 bits each: none of these products overflows
    require_size("rows * width", rows * width, values_limit);
    require_size("channels * height * width", channels * height * width, values_limit);
    Image out(std::vector<py::ssize_t>{image.shape(0), static_cast<py::ssize_t>(height),
                                       static_cast<py::ssize_t>(width)});
    const float* from = image.data();
    float* to = out.mutable_data();
    {
        py::gil_scoped_release release;
        resize_image(from, channels, rows, columns, height, width, to);
    }
    return out;
}

std::string shape_of(const Samples& array) {
    std::string text;
    for (py::ssize_t i = 0; i < array.ndim(); i++) {
        text += (i ? ", " : "") + std::to_string(array.shape(i));
    }
    return "[" + text + "]";
}

void require_shape(const char* name, const Samples& array, const std::vector<std::size_t>& shape) {
    bool same = array.ndim() == static_cast<py::ssize_t>(shape.size());
    std::string expected;
    for (std::size_t i = 0; i < shape.size(); i++) {
        same = same && array.shape(static_cast<py::ssize_t>(i)) == static_cast<py::ssize_t>(shape[i]);
        expected += (i ? ", " : "") + std::to_string(shape[i]);
    }
    if (!same) {
        throw py::value_error(std::string(name) + ": found " + shape_of(array) + ", expected [" + expected +
                              "]");
    }
}

Samples demodulate(const OFDMDemodulator& demodulator, const Samples& samples) {
    require_shape("samples", samples, {demodulator.antennas(), demodulator.slot_samples()});
    Samples grid(std::vector<py::ssize_t>{static_cast<py::ssize_t>(demodulator.antennas()),
                                          static_cast<py::ssize_t>(demodulator.symbols()),
                                          static_cast<py::ssize_t>(demodulator.subcarriers())});
    const auto* from = samples.data();
    auto* to = grid.mutable_data();
    {
        py::gil_scoped_release release;
        demodulator.demodulate(from, to);
    }
    return grid;
}

void require_indices(const char* name, const std::vector<std::size_t>& indices, std::size_t limit) {
    for (const auto index : indices) {
        if (index >= limit) {
            throw py::value_error(std::string(name) + ": found " + std::to_string(index) +
                                  ", expected below " + std::to_string(limit));
        }
    }
}

Image image_of_pilots(const Samples& grid, const Samples& pilots,
                      const std::vector<std::size_t>& pilot_symbols,
                      const std::vector<std::size_t>& pilot_subcarriers) {
    if (grid.ndim() != 3) {
        throw py::value_error("grid: found " + shape_of(grid) +
                              ", expected [antennas, symbols, subcarriers]");
    }
    const auto antennas = static_cast<std::size_t>(grid.shape(0)),
               symbols = static_cast<std::size_t>(grid.shape(1)),
               subcarriers = static_cast<std::size_t>(grid.shape(2));
    require_shape("pilots", pilots, {pilot_symbols.size(), pilot_subcarriers.size()});
    require_indices("pilot_symbols", pilot_symbols, symbols);
    require_indices("pilot_subcarriers", pilot_subcarriers, subcarriers);
    Image image(std::vector<py::ssize_t>{2, grid.shape(0) + 1, pilots.size()});
    const auto *from = grid.data(), *sent = pilots.data();
    float* to = image.mutable_data();
    {
        py::gil_scoped_release release;
        pilot_image(from, antennas, symbols, subcarriers, sent, pilot_symbols, pilot_subcarriers, to);
    }
    return image;
}

Image correlate(const Samples& samples, const Samples& waveform) {
    if (samples.ndim() != 2 || samples.shape(0) < 1) {
        throw py::value_error("samples: found " + shape_of(samples) + ", expected [antennas, samples]");
    }
    const auto antennas = static_cast<std::size_t>(samples.shape(0)),
               n = static_cast<std::size_t>(samples.shape(1)), k = static_cast<std::size_t>(waveform.size());
    if (waveform.ndim() != 1 || k < 1 || k > std::min(n, side_limit)) {
        throw py::value_error("waveform: found " + shape_of(waveform) + ", expected 1 to " +
                              std::to_string(std::min(n, side_limit)) + " samples");
    }
    Image out(static_cast<py::ssize_t>(n - k + 1));
    const auto *from = samples.data(), *shape = waveform.data();
    float* to = out.mutable_data();
    {
        py::gil_scoped_release release;
        waveform_correlation(from, antennas, n, n, shape, k, to);
    }
    return out;
}

py::dict version_info() {
    py::dict info;
    info["fftw"] = fftw_version();
    info["instruction_set"] = std::string(hot_loops().name);
    return info;
}

} // namespace

PYBIND11_MODULE(_kernels, m) {
    m.doc() = "Spectrogram tiles, resize, sample conversion and OFDM grids in C++; the GIL is released while "
              "they work, but for copies.";
    py::class_<BoundTiler>(
        m, "SpectrogramTiler",
        "Streams complex64 samples into tiles, bit-identical for any chunking. One per stream.\n\n"
        "A tile is (float32 [1, height, width], start_sample, n_samples, partial, floor_db, "
        "peak_db, n_nonfinite, n_gap_samples);\nstart_sample counts from the construction or the last flush. "
        "ValueError names a setting that is out of range.")
        .def(py::init([](std::size_t fft_size, std::size_t hop_samples, const std::string& window,
                         std::size_t frames_averaged, std::size_t rows_per_tile, std::size_t min_rows,
                         double floor_db, std::size_t height, std::size_t width, const std::string& reference,
                         double low_db, double high_db, double mean, double std, bool remove_dc) {
                 return std::make_unique<BoundTiler>(TilerSettings{
                     fft_size, hop_samples, window, frames_averaged, rows_per_tile, min_rows, floor_db,
                     height, width, reference, low_db, high_db, mean, std, remove_dc});
             }),
             py::arg("fft_size"), py::arg("hop_samples"), py::arg("window"), py::arg("frames_averaged"),
             py::arg("rows_per_tile"), py::arg("min_rows"), py::arg("floor_db"), py::arg("height"),
             py::arg("width"), py::arg("reference"), py::arg("low_db"), py::arg("high_db"), py::arg("mean"),
             py::arg("std"), py::arg("remove_dc") = false)
        .def("push", &BoundTiler::push, py::arg("samples").noconvert(),
             "Takes complex64 [n] in and returns the list of tiles that it completes.")
        .def("flush", &BoundTiler::flush,
             "Returns the partial tile if min_rows rows are complete, else None; then the tiler is as new.")
        .def_property_readonly(
            "counts", &BoundTiler::counts,
            "Samples since the construction: silent, silent_cut (of these, outside of tiles), "
            "discarded (received,\ntoo few for a tile before silence) and nonfinite.")
        .def_property_readonly("pending_samples", &BoundTiler::pending_samples,
                               "Samples taken in since the current tile's start.");
    m.def(
        "to_complex64", &to_complex64, py::arg("raw"), py::arg("sample_format"),
        "Converts bytes of cu8 ((x - 127.5) / 127.5), cs8 (x / 128), cs16 (x / 32768) or cf32 to complex64 "
        "[n].\n\n"
        "raw: any contiguous buffer. ValueError for an unknown format or a length that is no whole sample.");
    m.def("resize", &resize, py::arg("image").noconvert(), py::arg("height"), py::arg("width"),
          "Resizes float32 [C, H, W] of finite values to [C, height, width]: bicubic, antialiased, edges "
          "cut.\n\n"
          "ValueError names a size outside 1 to 65536, or what would be more than 2^28 values.");
    py::class_<OFDMDemodulator>(
        m, "OFDMDemodulator",
        "Takes the grid out of a slot: prefixes off, FFT, the subcarriers' bins, over the root of "
        "fft_size.\n\n"
        "prefix_samples: of each symbol; bins: of each subcarrier. ValueError names what is out of range.")
        .def(py::init<std::size_t, std::vector<std::size_t>, std::vector<std::size_t>, std::size_t>(),
             py::arg("fft_size"), py::arg("prefix_samples"), py::arg("bins"), py::arg("antennas"))
        .def("demodulate", &demodulate, py::arg("samples").noconvert(),
             "complex64 [antennas, slot_samples] -> complex64 [antennas, symbols, subcarriers].")
        .def_property_readonly("slot_samples", &OFDMDemodulator::slot_samples,
                               "Samples of a slot of one antenna.");
    m.def("pilot_image", &image_of_pilots, py::arg("grid").noconvert(), py::arg("pilots").noconvert(),
          py::arg("pilot_symbols"), py::arg("pilot_subcarriers"),
          "Lays the pilots of a grid [A, S, F] beside those sent [P, Fp]: float32 [2, 1 + A, P * Fp].\n\n"
          "Real and imaginary parts; row 0 what was sent; pilot symbol after pilot symbol.");
    m.def("waveform_correlation", &correlate, py::arg("samples").noconvert(), py::arg("waveform").noconvert(),
          "The part, 0 to 1, of the power of samples [A, n] that has the shape of waveform [k] from each "
          "sample "
          "on:\nfloat32 [n - k + 1], the mean over antennas. Samples must be finite, the waveform not all "
          "zero.");
    m.def("version_info", &version_info, "FFTW's version and the instruction set chosen at run time.");
    bind_band(m);
    bind_slots(m);
    bind_channels(m);
    bind_engine(m);
    bind_signature(m);
    bind_streams(m);
}
