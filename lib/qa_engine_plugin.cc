// SPDX-License-Identifier: GPL-3.0-or-later
// A plug-in engine for the tests: output[i] = sum of item i plus 1. The model "refused" is refused, a batch
// of 13 fails, and "abi" comes with another ABI version. It also is an OpenVINO of a version that is refused.
#include <gnuradio/wavesfm/engine_adapter.h>

#include <numeric>

namespace {

class Sum : public wavesfm::EngineAdapter {
public:
    Sum() {
        runtime = "sum";
        version = "1";
        precision = "f32";
        inputs = {{"tile", {-1, 2, 3}}};
        outputs = {{"sum", {-1, 1}}};
    }

    void run(std::size_t batch, const float* const* in, float* const* out) override {
        if (batch == 13) {
            throw std::runtime_error("a scripted failure");
        }
        for (std::size_t i = 0; i < batch; i++) {
            out[0][i] = std::accumulate(in[0] + i * 6, in[0] + (i + 1) * 6, 1.0f);
        }
    }
};

} // namespace

extern "C" __attribute__((visibility("default"))) wavesfm_status wavesfm_plugin_open(
    const wavesfm_engine_options* options, wavesfm_engine** engine, char* error, size_t error_bytes) {
    const std::string model = options->model ? options->model : "";
    if (model == "refused") {
        std::snprintf(error, error_bytes, "model: a scripted refusal");
        return WAVESFM_MODEL;
    }
    if (model == "abi") { // nobody may call a structure of another version, not even to close it
        static wavesfm_engine other{WAVESFM_ENGINE_ABI + 1, nullptr, nullptr, nullptr, nullptr};
        *engine = &other;
        return WAVESFM_OK;
    }
    *engine = wavesfm::make_engine(std::make_unique<Sum>());
    return WAVESFM_OK;
}

struct Version {
    const char *build_number, *description;
};

extern "C" __attribute__((visibility("default"))) int ov_get_openvino_version(Version* version) {
    *version = {"2026.4.1-22760-something", ""};
    return 0;
}

extern "C" __attribute__((visibility("default"))) void ov_version_free(Version*) {}
