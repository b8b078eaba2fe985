// SPDX-License-Identifier: GPL-3.0-or-later
// The engine interface: a plug-in is loaded, described, run, shared and closed, and every failure has its
// status.
#include "qa.h"
#include <gnuradio/wavesfm/engine.h>
#include <gnuradio/wavesfm/engine_adapter.h>

#include <string>
#include <thread>
#include <vector>

using namespace wavesfm;

namespace {

const std::vector<float> two_items = {1, 2, 3, 4, 5, 6, 10, 20, 30, 40, 50, 60};

template <typename Call>
bool fails(wavesfm_status status, const std::string& text, Call call) {
    try {
        call();
    } catch (const EngineError& error) {
        if (error.status == status && std::string(error.what()).find(text) != std::string::npos) {
            return true;
        }
        std::fprintf(stderr, "found status %d: %s\n", error.status, error.what());
    }
    return false;
}

std::vector<float> run(Engine& engine, const std::vector<float>& items) {
    std::vector<float> sums(items.size() / 6);
    const float* in[] = {items.data()};
    float* out[] = {sums.data()};
    engine.run(sums.size(), in, out);
    return sums;
}

void a_plugin_runs(const std::string& library) {
    auto engine = Engine::open("plugin", library, "any");
    REQUIRE(engine->runtime() == "sum" && engine->version() == "1" && engine->precision() == "f32");
    REQUIRE(engine->input("tile") == 0 && engine->output("sum") == 0);
    REQUIRE(engine->inputs()[0].shape == (std::vector<std::int64_t>{-1, 2, 3}));
    REQUIRE(run(*engine, two_items) == (std::vector<float>{22, 211}));
    REQUIRE(fails(WAVESFM_MODEL, "output logits", [&] { engine->output("logits"); }));
    REQUIRE(fails(WAVESFM_FAILED, "a scripted failure", [&] { run(*engine, std::vector<float>(78)); }));
    REQUIRE(run(*engine, two_items)[1] == 211); // a failed run is not the last
    const float* in[] = {nullptr};
    float* out[] = {nullptr};
    REQUIRE(fails(WAVESFM_INVALID, "null array", [&] { engine->run(1, in, out); }));
    engine->close();
    engine->close();
    REQUIRE(fails(WAVESFM_CLOSED, "a closed engine", [&] { run(*engine, two_items); }));
    REQUIRE(engine->runtime() == "sum" && engine->outputs()[0].name == "sum");
}

void a_share_outlives_its_engine(const std::string& library) {
    auto engine = Engine::open("plugin", library, "any");
    Engine share(Engine::lend(engine));
    engine.reset();
    REQUIRE(run(share, two_items)[0] == 22);
}

void threads_share_an_engine(const std::string& library) {
    auto engine = Engine::open("plugin", library, "any");
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; t++) {
        threads.emplace_back([&] {
            for (int i = 0; i < 100; i++) {
                REQUIRE(run(*engine, two_items)[1] == 211);
            }
        });
    }
    for (auto& thread : threads) {
        thread.join();
    }
}

void what_cannot_be_opened(const std::string& library) {
    REQUIRE(fails(WAVESFM_MODEL, "a scripted refusal", [&] { Engine::open("plugin", library, "refused"); }));
    REQUIRE(fails(WAVESFM_INVALID, "ABI version 2", [&] { Engine::open("plugin", library, "abi"); }));
    REQUIRE(fails(WAVESFM_MISSING, "no-such-library",
                  [&] { Engine::open("plugin", "no-such-library.so", "any"); }));
    REQUIRE(fails(WAVESFM_MISSING, "no library was named", [&] { Engine::open("openvino", "", "any"); }));
    REQUIRE(fails(WAVESFM_MISSING, "OrtGetApiBase", [&] { Engine::open("onnxruntime", library, "any"); }));
    REQUIRE(fails(WAVESFM_MISSING, "found 2026.4.1, expected a version before 2026",
                  [&] { Engine::open("openvino", library, "any"); }));
    REQUIRE(fails(WAVESFM_INVALID, "found 'gpu'", [&] { Engine::open("gpu", library, "any"); }));
    wavesfm_engine* engine = nullptr;
    wavesfm_engine_options options{WAVESFM_ENGINE_ABI + 1, "plugin", library.c_str(), "any", nullptr, 0};
    REQUIRE(wavesfm_engine_open(&options, &engine, nullptr, 0) == WAVESFM_INVALID);
    options.abi_version = WAVESFM_ENGINE_ABI;
    char error[8] = "";
    options.model = "refused";
    REQUIRE(wavesfm_engine_open(&options, &engine, error, sizeof error) == WAVESFM_MODEL);
    REQUIRE(std::string(error) == "model: " && engine == nullptr); // cut, and terminated
}

//! An engine without a fixed shape.
class Shapeless : public EngineAdapter {
public:
    Shapeless() {
        inputs = {{"tile", {-1, 2, -1}}};
        outputs = {{"sum", {-1, 1}}};
    }
    void run(std::size_t, const float* const*, float* const*) override { REQUIRE(false); }
};

void a_size_that_nobody_knows() {
    Engine engine(make_engine(std::make_unique<Shapeless>()));
    REQUIRE(fails(WAVESFM_MODEL, "tensor tile", [&] { run(engine, two_items); }));
}

} // namespace

int main(int, char** arguments) {
    const std::string library = arguments[1];
    a_plugin_runs(library);
    a_share_outlives_its_engine(library);
    threads_share_an_engine(library);
    what_cannot_be_opened(library);
    a_size_that_nobody_knows();
    return 0;
}
