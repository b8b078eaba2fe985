// SPDX-License-Identifier: GPL-3.0-or-later
#include "band_python.h"

#include <gnuradio/wavesfm/band_detector.h>
#include <gnuradio/wavesfm/zoom.h>

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <mutex>

namespace py = pybind11;
using namespace wavesfm;

namespace {

using Samples = py::array_t<std::complex<float>, py::array::c_style>;

void require_vector(const Samples& samples) {
    if (samples.ndim() != 1) {
        throw py::value_error("samples: found " + std::to_string(samples.ndim()) + " dimensions, expected 1");
    }
}

template <typename T>
py::array_t<T> as_array(std::vector<T>&& values) {
    auto owned = std::make_unique<std::vector<T>>(std::move(values));
    T* data = owned->data();
    const auto size = static_cast<py::ssize_t>(owned->size());
    py::capsule owner(owned.get(), [](void* p) { delete static_cast<std::vector<T>*>(p); });
    owned.release();
    return py::array_t<T>(size, data, owner);
}

py::tuple as_tuple(BandBlock&& block) {
    py::list pieces;
    for (BandPiece& piece : block.pieces) {
        pieces.append(py::make_tuple(piece.row_first, piece.row_stop, piece.bin_low, piece.bin_stop,
                                     piece.n_cells, as_array(std::move(piece.spectrum)),
                                     as_array(std::move(piece.row_low)),
                                     as_array(std::move(piece.row_stop_bin))));
    }
    return py::make_tuple(block.first_row, as_array(std::move(block.floor)), as_array(std::move(block.mean)),
                          as_array(std::move(block.row_power)), pieces, block.n_nonfinite);
}

class BoundDetector {
public:
    explicit BoundDetector(const BandSettings& settings) : detector_(settings) {}

    py::list push(const Samples& samples) {
        require_vector(samples);
        const auto* data = samples.data();
        const auto n = static_cast<std::size_t>(samples.size());
        std::vector<BandBlock> blocks;
        {
            py::gil_scoped_release release;
            std::lock_guard<std::mutex> lock(mutex_);
            blocks = detector_.push(data, n);
        }
        py::list result;
        for (BandBlock& block : blocks) {
            result.append(as_tuple(std::move(block)));
        }
        return result;
    }

    py::object flush() {
        std::optional<BandBlock> block;
        {
            py::gil_scoped_release release;
            std::lock_guard<std::mutex> lock(mutex_);
            block = detector_.flush();
        }
        return block ? as_tuple(std::move(*block)) : py::object(py::none());
    }

private:
    BandDetector detector_;
    std::mutex mutex_;
};

class BoundZoom {
public:
    BoundZoom(std::size_t fft_size, const std::vector<std::pair<std::int64_t, std::size_t>>& channels)
        : zoom_(fft_size, as_channels(channels)) {}

    py::list push(const Samples& samples) {
        require_vector(samples);
        const auto* data = samples.data();
        const auto n = static_cast<std::size_t>(samples.size());
        std::vector<std::vector<std::complex<float>>> out(zoom_.n_channels());
        {
            py::gil_scoped_release release;
            std::lock_guard<std::mutex> lock(mutex_);
            zoom_.push(data, n, out);
        }
        return as_list(std::move(out));
    }

    py::list finish() {
        std::vector<std::vector<std::complex<float>>> out(zoom_.n_channels());
        {
            py::gil_scoped_release release;
            std::lock_guard<std::mutex> lock(mutex_);
            zoom_.finish(out);
        }
        return as_list(std::move(out));
    }

private:
    static std::vector<ZoomChannel>
    as_channels(const std::vector<std::pair<std::int64_t, std::size_t>>& pairs) {
        std::vector<ZoomChannel> channels;
        for (const auto& pair : pairs) {
            channels.push_back({pair.first, pair.second});
        }
        return channels;
    }

    static py::list as_list(std::vector<std::vector<std::complex<float>>>&& out) {
        py::list result;
        for (auto& samples : out) {
            result.append(as_array(std::move(samples)));
        }
        return result;
    }

    Zoom zoom_;
    std::mutex mutex_;
};

} // namespace

void bind_band(py::module_& m) {
    py::class_<BoundDetector>(m, "BandDetector",
                              "Streams complex64 samples into judged blocks of rows, bit-identical for any "
                              "chunking. One per stream.\n\n"
                              "A block is (first_row, floor float32 [fft_size], mean float32 [fft_size], "
                              "row_power float32 [rows], pieces,\n"
                              "n_nonfinite), a piece (row_first, row_stop, bin_low, bin_stop, n_cells, "
                              "spectrum float32 [bins],\n"
                              "row_low uint32 [rows], row_stop_bin uint32 [rows]); see band_detector.h. "
                              "ValueError names a setting that is out of range.")
        .def(py::init([](std::size_t fft_size, std::size_t block_rows, double false_rate, double grow_rate,
                         double opening, double floor_db) {
                 return std::make_unique<BoundDetector>(
                     BandSettings{fft_size, block_rows, false_rate, grow_rate, opening, floor_db});
             }),
             py::arg("fft_size"), py::arg("block_rows") = 128, py::arg("false_rate") = 1e-9,
             py::arg("grow_rate") = 1e-3, py::arg("opening") = 0.4, py::arg("floor_db") = -160.0)
        .def("push", &BoundDetector::push, py::arg("samples").noconvert())
        .def("flush", &BoundDetector::flush);
    py::class_<BoundZoom>(
        m, "Zoom",
        "Mixes parts of the band down and decimates them, several over one transform.\n\n"
        "channels: pairs (centre_bin, bins) of a transform of fft_size; each comes at rate * bins / "
        "fft_size, its sample 0 at the stream's sample 0; see zoom.h. ValueError names what is out of "
        "range.")
        .def(py::init<std::size_t, const std::vector<std::pair<std::int64_t, std::size_t>>&>(),
             py::arg("fft_size"), py::arg("channels"))
        .def("push", &BoundZoom::push, py::arg("samples").noconvert())
        .def("finish", &BoundZoom::finish);
}
