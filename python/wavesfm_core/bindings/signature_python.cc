// SPDX-License-Identifier: GPL-3.0-or-later
#include "signature_python.h"

#include <gnuradio/wavesfm/tile_signature.h>

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

namespace py = pybind11;
using namespace wavesfm;

namespace {

using Floats = py::array_t<float, py::array::c_style>;

TileSignature measure(const Floats& data, float db, double offset_db, std::uint64_t n_samples,
                      double floor_db, double peak_db) {
    if (data.ndim() != 2) {
        throw py::value_error("tile: found " + std::to_string(data.ndim()) + " dimensions, expected 2");
    }
    const auto* cells = data.data();
    const auto height = static_cast<std::size_t>(data.shape(0)),
               width = static_cast<std::size_t>(data.shape(1));
    py::gil_scoped_release release;
    return tile_signature(cells, height, width, db, offset_db, n_samples, floor_db, peak_db);
}

TileSignature made(std::uint64_t n_samples, double level, double floor, double peak,
                   std::array<double, 5> shape, std::vector<float> columns) {
    return {n_samples, level, floor, peak, shape, std::move(columns)};
}

TileSignature moved_towards(const TileSignature& mean, const TileSignature& seen, double part) {
    TileSignature moved = mean;
    move_towards(moved, seen, part);
    return moved;
}

SignatureTolerances limits(double level, double peak, std::array<double, 5> shape, double column,
                           double columns_rms, std::size_t band, double noise_peak) {
    if (band < 1) {
        throw py::value_error("band: found 0, expected 1 or more");
    }
    return {level, peak, shape, column, columns_rms, band, noise_peak};
}

} // namespace

void bind_signature(py::module_& m) {
    py::class_<TileSignature>(m, "TileSignature", "Power and shape of one tile, in dB; see tile_signature.h.")
        .def(py::init(&made), py::kw_only(), py::arg("n_samples"), py::arg("level"), py::arg("floor"),
             py::arg("peak"), py::arg("shape"), py::arg("columns"))
        .def_readonly("n_samples", &TileSignature::n_samples)
        .def_readonly("level", &TileSignature::level)
        .def_readonly("floor", &TileSignature::floor)
        .def_readonly("peak", &TileSignature::peak)
        .def_readonly("shape", &TileSignature::shape)
        .def_property_readonly("columns",
                               [](const TileSignature& s) {
                                   return Floats(static_cast<py::ssize_t>(s.columns.size()),
                                                 s.columns.data());
                               })
        .def("moved_towards", &moved_towards, py::arg("seen"), py::arg("part"),
             "This signature plus `part` of the difference to another one.");
    py::class_<SignatureTolerances>(
        m, "SignatureTolerances", "Largest differences in dB of tiles that look alike; see tile_signature.h.")
        .def(py::init(&limits), py::kw_only(), py::arg("level"), py::arg("peak"), py::arg("shape"),
             py::arg("column"), py::arg("columns_rms"), py::arg("band"), py::arg("noise_peak"))
        .def_readonly("level", &SignatureTolerances::level)
        .def_readonly("peak", &SignatureTolerances::peak)
        .def_readonly("shape", &SignatureTolerances::shape)
        .def_readonly("column", &SignatureTolerances::column)
        .def_readonly("columns_rms", &SignatureTolerances::columns_rms)
        .def_readonly("band", &SignatureTolerances::band)
        .def_readonly("noise_peak", &SignatureTolerances::noise_peak);
    m.def("tile_signature", &measure, py::arg("data").noconvert(), py::arg("db"), py::arg("offset_db"),
          py::arg("n_samples"), py::arg("floor_db"), py::arg("peak_db"),
          "Measures a standardised tile, float32 [height, width].");
    m.def("alike", &alike, py::arg("a"), py::arg("b"), py::arg("tolerances"), py::arg("factor"),
          "Whether every figure of two tiles is within `factor` times its tolerance.");
}
