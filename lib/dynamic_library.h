// SPDX-License-Identifier: GPL-3.0-or-later
#pragma once

#include <gnuradio/wavesfm/engine.h>

#include <string>

namespace wavesfm {

//! A shared library loaded while the program runs. It is never unloaded: runtimes leave threads behind that
//! would go on in memory that is gone.
class DynamicLibrary {
public:
    //! Throws EngineError (WAVESFM_MISSING) with the loader's reason.
    explicit DynamicLibrary(const std::string& path);

    //! Address of a function; throws EngineError (WAVESFM_MISSING) where the library has none of this name.
    template <typename Function>
    void find(const char* name, Function*& function) const {
        function = reinterpret_cast<Function*>(address(name));
    }

private:
    void* address(const char* name) const;

    const std::string path_;
    void* const handle_;
};

} // namespace wavesfm
