#pragma once

#include <cstdint>
#include <string_view>

namespace annulus {

/// Throws DeviceError unless `code`, a cudaError_t, is success; `what` is what was wanted.
void check(int code, std::string_view what);

/// Memory of the current GPU, for cudaFree. Throws DeviceError that tells what is free where there is too little.
void* allocate_on_gpu(std::int64_t bytes);

}  // namespace annulus
