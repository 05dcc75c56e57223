// Every attention step of whole programs of halves: as cuDNN's graph, or refused for a reason that is known.
#include <gtest/gtest.h>

#ifdef ANNULUS_CUDA
#include <fstream>
#include <iterator>
#include <set>

#include "model/train_step.h"
#include "parallel/mesh.h"
#include "runtime/cuda/cudnn_attention.h"
#include "runtime/ops/op_table.h"

namespace annulus::testing {
namespace {

StepOptions options_of(std::int64_t heads, std::int64_t kv_heads, RingLayout layout, DType dtype) {
  StepOptions options;
  options.model.layers = 1;
  options.model.heads = heads;
  options.model.kv_heads = kv_heads;
  options.model.head_dim = 64;
  options.model.hidden = heads * 64;
  options.model.ffn = 128;
  options.model.vocabulary = 64;
  options.model.block_size = options.sequence_length = 256;
  options.layout = layout;
  options.dtype = dtype;
  options.micro_sequences = 1;
  return options;
}

/// Why cuDNN would not do steps of the programs of all ranks: empty for those that it does.
std::multiset<std::string> refusals(CudnnAttention& cudnn, const MeshShape& shape, const StepOptions& options) {
  std::multiset<std::string> all;
  for (int rank = 0; rank < shape.ranks(); ++rank) {
    const Program program = record_train_step(make_mesh(shape, rank), options, Tail::gradients).program;
    const auto types = [&](const std::vector<ValueId>& ids) {
      std::vector<ValueType> of;
      for (const ValueId id : ids) of.push_back(program.type(id));
      return of;
    };
    for (const Op& op : program.ops()) {
      if (const auto* step = as<AttentionStep>(*op.definition))
        all.insert(cudnn.refusal(task_of(*step, types(op.inputs), types(op.outputs))));
      if (const auto* step = as<AttentionStepGrad>(*op.definition))
        all.insert(cudnn.refusal(task_of(*step, types(op.inputs), types(op.outputs))));
    }
  }
  return all;
}

class CudnnPrograms : public ::testing::Test {
 protected:
  static CudnnAttention described(Determinism determinism) {
    std::ifstream file(ANNULUS_DEVICE_PROPERTIES);
    const std::string properties{std::istreambuf_iterator<char>(file), {}};
    return CudnnAttention(properties, 90, {.determinism = determinism});
  }
};

TEST_F(CudnnPrograms, EveryStepIsSupported) {
  for (const Determinism determinism : {Determinism::any, Determinism::bitwise}) {
    CudnnAttention cudnn = described(determinism);
    for (const DType dtype : {DType::bf16, DType::f16}) {
      for (const RingLayout layout : {RingLayout::contiguous, RingLayout::striped, RingLayout::zigzag}) {
        for (const int cp : {1, 2, 4}) {
          for (const std::int64_t kv_heads : {1, 2, 4}) {
            for (const int tp : {1, 2}) {
              const MeshShape shape{1, cp, tp, static_cast<int>(kv_heads)};
              const auto all = refusals(cudnn, shape, options_of(4, kv_heads, layout, dtype));
              EXPECT_EQ(all.count(""), all.size()) << name_of(dtype) << " " << name_of(layout) << " cp" << cp << " tp"
                                                   << tp << " of " << kv_heads << " kv heads: " << *all.rbegin();
              EXPECT_EQ(all.size(), static_cast<std::size_t>(2 * cp * shape.ranks()));
            }
          }
        }
      }
    }
  }
}

TEST_F(CudnnPrograms, DropoutAndFloatsAreRefused) {
  CudnnAttention cudnn = described(Determinism::any);
  StepOptions options = options_of(4, 4, RingLayout::zigzag, DType::bf16);
  options.model.dropout.attention = 0.1;
  for (const std::string& why : refusals(cudnn, {1, 1, 1, 4}, options))
    EXPECT_NE(why.find("dropout"), std::string::npos);
  options = options_of(4, 4, RingLayout::zigzag, DType::f32);
  for (const std::string& why : refusals(cudnn, {1, 2, 1, 4}, options)) EXPECT_NE(why.find("bf16"), std::string::npos);
}

}  // namespace
}  // namespace annulus::testing

#else

TEST(CudnnPrograms, Supported) { GTEST_SKIP() << "built without CUDA"; }

#endif
