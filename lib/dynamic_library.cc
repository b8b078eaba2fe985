// SPDX-License-Identifier: GPL-3.0-or-later
#include "dynamic_library.h"

#include <dlfcn.h>

namespace wavesfm {

namespace {

std::string loader_error() {
    const char* text = dlerror();
    return text ? text : "no reason";
}

void* load(const std::string& path) {
    void* handle = path.empty() ? nullptr : dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!handle) {
        throw EngineError(WAVESFM_MISSING,
                          path.empty() ? std::string("no library was named") : loader_error());
    }
    return handle;
}

} // namespace

DynamicLibrary::DynamicLibrary(const std::string& path) : path_(path), handle_(load(path)) {}

void* DynamicLibrary::address(const char* name) const {
    void* found = dlsym(handle_, name);
    if (!found) {
        throw EngineError(WAVESFM_MISSING, path_ + ": no function " + name);
    }
    return found;
}

} // namespace wavesfm
