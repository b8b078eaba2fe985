// SPDX-License-Identifier: GPL-3.0-or-later
// classify_file BUNDLE RUNTIME LIBRARY RECORDING RATE_HZ: the labels of a file of complex floats, one line a
// tile: first sample, number of samples, label, probability.
#include "tile_classifier.h"

#include <gnuradio/blocks/file_source.h>
#include <gnuradio/top_block.h>

#include <cstdlib>
#include <iostream>

int main(int count, char** arguments) {
    if (count != 6) {
        std::cerr << "usage: classify_file BUNDLE openvino|onnxruntime LIBRARY RECORDING RATE_HZ\n";
        return 2;
    }
    try {
        auto model = open_model(arguments[1], arguments[2], arguments[3], 1);
        auto flowgraph = gr::make_top_block("classify_file");
        auto source = gr::blocks::file_source::make(sizeof(gr_complex), arguments[4]);
        auto sink = tile_classifier::make(std::move(model), std::atof(arguments[5]));
        flowgraph->connect(source, 0, sink, 0);
        flowgraph->run();
        sink->finish();
    } catch (const std::exception& error) {
        std::cerr << "classify_file: " << error.what() << '\n';
        return 1;
    }
    return 0;
}
