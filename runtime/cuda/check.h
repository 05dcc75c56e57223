#pragma once

#include <string_view>

namespace annulus {

/// Throws DeviceError unless `code`, a cudaError_t, is success; `what` is what was wanted.
void check(int code, std::string_view what);

}  // namespace annulus
