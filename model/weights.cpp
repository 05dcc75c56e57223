#include "model/weights.h"

#include <algorithm>

#include "runtime/core/half_vector.h"

namespace annulus {

ValueType master_type(const Program& program, const Parameter& parameter) {
  ValueType type = program.type(parameter.value);
  type.dtype = wide(type.dtype);
  return type;
}

OwnedRange master_range(const Program& program, const MeshAxes& mesh, const Parameter& parameter) {
  const std::int64_t elements = program.type(parameter.value).shape.elements();
  const Master& master = parameter.master;
  if (master.axes.empty()) return {0, elements, 0};
  return owned_range(master.begin, elements, program.type(master.value).shape[0], mesh.index(master.axes));
}

void write_weights(Executor& executor, const Parameter& parameter, const std::byte* values, std::int64_t first,
                   std::int64_t count) {
  const Program& program = executor.program();
  const std::int64_t size = size_of(master_type(program, parameter).dtype);
  const DType dtype = program.type(parameter.value).dtype;
  if (!is_half(dtype)) return executor.write_part(parameter.value, values, first * size, count * size);
  const auto* wide_values = reinterpret_cast<const float*>(values);
  dispatch_half(dtype, [&]<class Half>(Half) {
    std::vector<Half> rounded(static_cast<std::size_t>(count));
    narrow(wide_values, rounded.data(), count);
    executor.write_part(parameter.value, rounded.data(), first * size_of(dtype), count * size_of(dtype));
  });
  if (parameter.master.value == kNoValue) return;
  const OwnedRange range = master_range(program, program.mesh(), parameter);
  const std::int64_t from = std::max(first, range.first), to = std::min(first + count, range.first + range.count);
  if (to <= from) return;
  executor.write_part(parameter.master.value, values + (from - first) * size,
                      (range.in_part + from - range.first) * size, (to - from) * size);
}

std::vector<std::byte> read_weights(const Executor& executor, const Parameter& parameter) {
  const Program& program = executor.program();
  const auto read = [&](ValueId id, std::int64_t offset, std::int64_t size) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(size));
    executor.read_part(id, bytes.data(), offset, size);
    return bytes;
  };
  const ValueType& type = program.type(parameter.value);
  if (!is_half(type.dtype)) return read(parameter.value, 0, type.bytes());
  if (parameter.master.value != kNoValue) {
    const OwnedRange range = master_range(program, program.mesh(), parameter);
    constexpr std::int64_t kSize = size_of(DType::f32);
    return read(parameter.master.value, range.in_part * kSize, range.count * kSize);
  }
  const std::vector<std::byte> halves = read(parameter.value, 0, type.bytes());
  std::vector<std::byte> wide_values(2 * halves.size());
  dispatch_half(type.dtype, [&]<class Half>(Half) {
    widen(reinterpret_cast<const Half*>(halves.data()), reinterpret_cast<float*>(wide_values.data()),
          type.shape.elements());
  });
  return wide_values;
}

}  // namespace annulus
