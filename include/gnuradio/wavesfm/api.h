// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

//! Visibility of what libgnuradio-wavesfm exports. WAVESFM_STATIC is defined where its objects are linked
//! into another module (the wheel's `_kernels`), which then exports none of them.
#if defined(WAVESFM_STATIC)
#define WAVESFM_API
#elif defined(_WIN32) && defined(gnuradio_wavesfm_EXPORTS)
#define WAVESFM_API __declspec(dllexport)
#elif defined(_WIN32)
#define WAVESFM_API __declspec(dllimport)
#else
#define WAVESFM_API __attribute__((visibility("default")))
#endif
