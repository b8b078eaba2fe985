// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/slot.h>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <complex>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>

using ComplexArray = pybind11::array_t<std::complex<float>, pybind11::array::c_style>;
using PlainTime = std::optional<std::pair<std::int64_t, double>>; //!< StreamTime of Python, which is a tuple

inline std::optional<wavesfm::StreamTime> time_from(const PlainTime& time) {
    return time ? std::optional<wavesfm::StreamTime>({time->first, time->second}) : std::nullopt;
}

inline PlainTime time_to(const std::optional<wavesfm::StreamTime>& time) {
    return time ? PlainTime({time->full_s, time->frac_s}) : std::nullopt;
}

//! A Python object that may be released on a thread without the interpreter's lock.
inline std::shared_ptr<pybind11::object> kept(pybind11::object object) {
    return {new pybind11::object(std::move(object)), [](pybind11::object* held) {
                if (Py_IsInitialized()) {
                    pybind11::gil_scoped_acquire lock;
                    delete held;
                }
            }};
}

//! The array of a grid, without a copy; it keeps the grid's memory.
inline ComplexArray array_of(const wavesfm::Grid& grid, std::size_t n) {
    pybind11::capsule owner(new std::shared_ptr<void>(grid.memory),
                            [](void* p) { delete static_cast<std::shared_ptr<void>*>(p); });
    return ComplexArray({static_cast<pybind11::ssize_t>(n)}, grid.data, owner);
}

//! The grid of an array, without a copy; it keeps the array. n: elements that it must have.
inline wavesfm::Grid grid_of(const ComplexArray& array, std::size_t n) {
    if (static_cast<std::size_t>(array.size()) != n) {
        throw pybind11::value_error("grid: found " + std::to_string(array.size()) + " values, expected " +
                                    std::to_string(n));
    }
    return {const_cast<std::complex<float>*>(array.data()), kept(array)};
}
