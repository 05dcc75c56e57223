#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "runtime/core/communicator.h"

namespace annulus {

/// Whether what is written goes to memory by way of the caches. Past them, a line is not read before it is written:
/// right for large buffers that nobody reads soon, wrong for all others.
enum class Stores : std::uint8_t { cached, streaming };

/// outputs[..] = inputs[0] + inputs[1] + ..., in this order (rank order), element by element, or their maximum: the
/// same bits wherever it is computed. Maxima hand NaN on. Halves are summed as f32 and rounded once. `count` elements;
/// an output may be one of the inputs.
void reduce_in_order(std::span<const std::byte* const> inputs, std::span<std::byte* const> outputs, std::int64_t count,
                     DType dtype, Reduction reduction, Stores stores = Stores::cached);

/// memcpy of any size that leaves a copy onto itself alone.
void copy_bytes(void* target, const void* source, std::int64_t bytes, Stores stores = Stores::cached);

}  // namespace annulus
