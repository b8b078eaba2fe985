// SPDX-License-Identifier: GPL-3.0-or-later
#include "resize.h"
#include "sample_conversion.h"
#include "spectrogram_tiler.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

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
                              tile.partial, tile.floor_db, tile.peak_db, tile.n_nonfinite);
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

py::dict version_info() {
    py::dict info;
    info["fftw"] = std::string(fftwf_version);
    info["instruction_set"] = std::string(hot_loops().name);
    return info;
}

} // namespace

PYBIND11_MODULE(_kernels, m) {
    m.doc() = "Spectrogram tiles, resize and sample conversion in C++; the GIL is released while they work.";
    py::class_<BoundTiler>(
        m, "SpectrogramTiler",
        "Streams complex64 samples into tiles, bit-identical for any chunking. One per stream.\n\n"
        "A tile is (float32 [1, height, width], start_sample, n_samples, partial, floor_db, "
        "peak_db, n_nonfinite);\nstart_sample counts from the construction or the last flush. "
        "ValueError names a setting that is out of range.")
        .def(py::init([](std::size_t fft_size, std::size_t hop_samples, const std::string& window,
                         std::size_t frames_averaged, std::size_t rows_per_tile, std::size_t min_rows,
                         double floor_db, std::size_t height, std::size_t width, const std::string& reference,
                         double low_db, double high_db, double mean, double std) {
                 return std::make_unique<BoundTiler>(
                     TilerSettings{fft_size, hop_samples, window, frames_averaged, rows_per_tile, min_rows,
                                   floor_db, height, width, reference, low_db, high_db, mean, std});
             }),
             py::arg("fft_size"), py::arg("hop_samples"), py::arg("window"), py::arg("frames_averaged"),
             py::arg("rows_per_tile"), py::arg("min_rows"), py::arg("floor_db"), py::arg("height"),
             py::arg("width"), py::arg("reference"), py::arg("low_db"), py::arg("high_db"), py::arg("mean"),
             py::arg("std"))
        .def("push", &BoundTiler::push, py::arg("samples").noconvert(),
             "Takes complex64 [n] in and returns the list of tiles that it completes.")
        .def("flush", &BoundTiler::flush,
             "Returns the partial tile if min_rows rows are complete, else None; then the tiler is as new.")
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
    m.def("version_info", &version_info, "FFTW's version and the instruction set chosen at run time.");
}
