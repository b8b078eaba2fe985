// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/aligned.h>
#include <gnuradio/wavesfm/api.h>
#include <gnuradio/wavesfm/band_loops.h>
#include <gnuradio/wavesfm/fft_handle.h>

#include <complex>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace wavesfm {

//! A part of the band: `bins` of the transform's bins around `centre_bin` (0: the middle of the band,
//! negative below it). Its samples come at rate * bins / fft_size.
struct ZoomChannel {
    std::int64_t centre_bin; //!< more than -fft_size / 2 and less than fft_size / 2
    std::size_t bins;        //!< a multiple of 8, 128 to fft_size
};

//! Mixes several parts of the band down and decimates them, over one shared transform (overlap and save). The
//! same for any chunking. Not thread safe.
//!
//! Output m of a channel is (h * (x exp(-2 pi i f t)))(m fft_size / bins), t = 0 at the first sample, f the
//! centre bin's frequency, h a Kaiser low pass of fft_size / 4 samples without delay: flat within 0.01 dB to
//! 0.5 - 18 / bins of the output rate on either side, and 70 dB down from half of it on. Before and after the
//! stream x is 0.
class WAVESFM_API Zoom {
public:
    //! Throws std::invalid_argument naming what is out of range. fft_size: a power of two, 1024 to 1048576.
    Zoom(std::size_t fft_size, const std::vector<ZoomChannel>& channels);

    //! Takes n samples in; appends what they complete to out[channel]; `out` has one vector for each channel.
    void push(const std::complex<float>* samples, std::size_t n,
              std::vector<std::vector<std::complex<float>>>& out);

    //! The rest, up to ceil(samples * bins / fft_size) of each channel; then the zoom is as new.
    void finish(std::vector<std::vector<std::complex<float>>>& out);

    std::size_t fft_size() const { return fft_size_; }
    std::size_t n_channels() const { return channels_.size(); }

private:
    using Weights = std::shared_ptr<const AlignedFloats>;
    struct Channel {
        ZoomChannel of;
        fftwf_plan plan;
        Weights weights; //!< [bins], in the order of `plan`'s input, with its scale
    };
    static Weights weights(std::size_t fft_size, std::size_t bins);
    void transform(std::vector<std::vector<std::complex<float>>>& out);
    void cut(const Channel& channel, std::vector<std::complex<float>>& out);
    void restart();

    const std::size_t fft_size_, overlap_;
    const BandLoops& loops_;
    const fftwf_plan plan_;
    std::vector<Channel> channels_;
    AlignedFloats span_, spectrum_, part_, made_;
    std::size_t filled_ = 0;
    std::int64_t start_ = 0; // of the span, in samples of the stream
    std::uint64_t taken_ = 0;
};

} // namespace wavesfm
