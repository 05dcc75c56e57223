#include "runtime/cpu/half_operands.h"

#include <cstddef>

#include "runtime/core/half_vector.h"
#include "runtime/cpu/kernels.h"
#include "runtime/cpu/parallel.h"

namespace annulus {
namespace {

constexpr std::int64_t kGrain = 16384, kAlignment = 64;

std::int64_t wide_bytes(const Shape& shape) {
  const std::int64_t bytes = shape.elements() * size_of(DType::f32);
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

/// False for inputs of which a kernel looks at the type alone.
bool is_read(const OpDefinition& op, std::size_t input) {
  if (as<EmbedGrad>(op)) return input != 1;
  if (as<Nll>(op)) return input != 0;
  return true;
}

/// The input in whose memory an output lies, or -1.
int aliased_input(const std::vector<Alias>& aliases, std::size_t output) {
  for (const Alias& alias : aliases)
    if (alias.output == static_cast<int>(output)) return alias.input;
  return -1;
}

void copy_wide(const Tensor& from, const Tensor& to) {
  dispatch_half(from.dtype, [&]<class Half>(Half) {
    const Half* source = from.as<Half>();
    float* target = to.as<float>();
    parallel_ranges(from.elements(), kGrain,
                    [=](std::int64_t begin, std::int64_t end) { widen(source + begin, target + begin, end - begin); });
  });
}

void copy_rounded(const Tensor& from, const Tensor& to) {
  dispatch_half(to.dtype, [&]<class Half>(Half) {
    const float* source = from.as<float>();
    Half* target = to.as<Half>();
    parallel_ranges(to.elements(), kGrain,
                    [=](std::int64_t begin, std::int64_t end) { narrow(source + begin, target + begin, end - begin); });
  });
}

}  // namespace

std::vector<ValueType> widened(OpDefinition::Types types) {
  std::vector<ValueType> all(types.begin(), types.end());
  for (ValueType& type : all) type.dtype = wide(type.dtype);
  return all;
}

std::int64_t widening_bytes(const OpDefinition& op, OpDefinition::Types inputs, OpDefinition::Types outputs) {
  const std::vector<Alias> aliases = op.aliases();
  std::int64_t bytes = 0;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    if (is_half(inputs[i].dtype) && is_read(op, i)) bytes += wide_bytes(inputs[i].shape);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    if (is_half(outputs[i].dtype) && aliased_input(aliases, i) < 0) bytes += wide_bytes(outputs[i].shape);
  return bytes;
}

void run_wide(const OpDefinition& op, const KernelArguments& arguments,
              const std::function<void(const KernelArguments&)>& run) {
  const std::vector<Alias> aliases = op.aliases();
  KernelArguments wide_arguments = arguments;
  const auto take = [&](const Shape& shape) {
    const Tensor tensor{wide_arguments.workspace, DType::f32, shape};
    wide_arguments.workspace += wide_bytes(shape);
    wide_arguments.workspace_bytes -= wide_bytes(shape);
    return tensor;
  };
  std::vector<Tensor> inputs(arguments.inputs.begin(), arguments.inputs.end());
  std::vector<Tensor> outputs(arguments.outputs.begin(), arguments.outputs.end());
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    Tensor& input = inputs[i];
    if (!is_half(input.dtype)) continue;
    input.dtype = DType::f32;  // of one that nobody reads this is all
    if (!is_read(op, i)) continue;
    input = take(input.shape);
    copy_wide(arguments.inputs[i], input);
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!is_half(outputs[i].dtype)) continue;
    const int input = aliased_input(aliases, i);
    outputs[i] = input < 0 ? take(outputs[i].shape) : inputs[static_cast<std::size_t>(input)];
  }
  wide_arguments.inputs = inputs;
  wide_arguments.outputs = outputs;
  run(wide_arguments);
  for (std::size_t i = 0; i < outputs.size(); ++i)
    if (is_half(arguments.outputs[i].dtype)) copy_rounded(outputs[i], arguments.outputs[i]);
}

void run(const Cast&, const KernelArguments& arguments) {
  const Tensor &x = arguments.inputs[0], &y = arguments.outputs[0];
  dispatch_stored(x.dtype, [&]<class From>(From) {
    dispatch_stored(y.dtype, [&]<class To>(To) {
      const From* from = x.as<From>();
      To* to = y.as<To>();
      parallel_ranges(y.elements(), kGrain, [=](std::int64_t begin, std::int64_t end) {
        if constexpr (kIsHalf<From> && std::is_same_v<To, float>) {
          widen(from + begin, to + begin, end - begin);
        } else if constexpr (std::is_same_v<From, float> && kIsHalf<To>) {
          narrow(from + begin, to + begin, end - begin);
        } else {
          for (std::int64_t i = begin; i < end; ++i)
            to[i] = static_cast<To>(static_cast<Wide<To>>(Wide<From>(from[i])));
        }
      });
    });
  });
}

}  // namespace annulus
