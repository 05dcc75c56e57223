// The closed form against recorded programs: parameters, products, attended pairs, collectives, stored activations.
#include <gtest/gtest.h>

#include <initializer_list>
#include <iostream>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "model/analytic/communication.h"
#include "model/analytic/flops.h"
#include "model/analytic/gradients.h"
#include "model/analytic/memory.h"
#include "model/analytic/of_step.h"
#include "model/analytic/parameters.h"
#include "runtime/program/schedule.h"

namespace annulus {
namespace {

struct Composition {
  MeshShape mesh;
  StepOptions options;

  std::string str() const {
    return "dp=" + std::to_string(mesh.dp) + " cp=" + std::to_string(mesh.cp) + " tp=" + std::to_string(mesh.tp) +
           " kv_heads=" + std::to_string(mesh.kv_heads) + " " + std::string(name_of(options.layout)) +
           (options.sequence_parallel == SequenceParallel::on ? " SP" : "") +
           " micro_batches=" + std::to_string(options.micro_batches) + " " + std::string(name_of(options.dtype)) +
           (options.optimizer_sharding == OptimizerSharding::zero1 ? " zero1" : "") +
           (options.model.dropout.residual > 0 ? " dropout" : "");
  }
};

Composition random_composition(std::mt19937& random) {
  const auto pick = [&](std::initializer_list<int> values) { return values.begin()[random() % values.size()]; };
  Composition made;
  made.mesh = {.dp = pick({1, 2, 3}), .cp = pick({1, 2, 3, 4}), .tp = pick({1, 2, 3, 4}), .kv_heads = 0};
  made.mesh.kv_heads = made.mesh.tp == 4   ? pick({1, 2, 4, 12})
                       : made.mesh.tp == 3 ? pick({1, 3, 12})
                                           : pick({1, 2, 12});
  const double dropout = pick({0, 1}) * 0.1;
  StepOptions& options = made.options;
  options.model = {.layers = pick({1, 2, 3}),
                   .hidden = 24,
                   .heads = 12,
                   .kv_heads = made.mesh.kv_heads,
                   .head_dim = pick({2, 5}),
                   .ffn = pick({12, 48}),
                   .vocabulary = pick({37, 64, 101}),
                   .vocabulary_padding = pick({1, 4}),
                   .block_size = pick({144, 150}),
                   .dropout = {dropout, dropout, dropout}};
  constexpr DType kDTypes[] = {DType::f32, DType::f64, DType::bf16, DType::f16};
  options.dtype = kDTypes[random() % std::size(kDTypes)];
  options.sequence_parallel = random() % 2 == 0 ? SequenceParallel::off : SequenceParallel::on;
  options.layout = static_cast<RingLayout>(random() % 3);
  options.sequence_length = 144;
  options.micro_sequences = pick({1, 2});
  options.micro_batches = pick({1, 3});
  options.bucket_bytes = pick({1, 4096, 1 << 20});
  options.optimizer_sharding = random() % 2 == 0 ? OptimizerSharding::none : OptimizerSharding::zero1;
  return made;
}

std::int64_t payload_of(const Program& program, const Op& op, CollectiveKind kind) {
  std::int64_t bytes = 0;
  for (const ValueId id : kind == CollectiveKind::all_gather ? op.outputs : op.inputs)
    bytes += program.type(id).bytes();
  return bytes;
}

/// The program's collectives by kind and axes. Calls leave buckets out, as the closed form does.
std::map<std::pair<CollectiveKind, std::string>, std::pair<std::int64_t, std::int64_t>> recorded_counts(
    const Program& program) {
  std::map<std::pair<CollectiveKind, std::string>, std::pair<std::int64_t, std::int64_t>> counts;
  for (const Op& op : program.ops()) {
    const auto call = op.definition->collective();
    if (!call) continue;
    const int repeat = program.segments()[static_cast<std::size_t>(op.segment)].repeat;
    auto& [calls, bytes] = counts[{call->kind, program.mesh().label(call->axes)}];
    const bool of_weights = op.definition->kind() == OpKind::gather_bucket;
    calls += op.phase == Phase::reduction || of_weights ? 0 : repeat;
    bytes += repeat * payload_of(program, op, call->kind);
  }
  return counts;
}

void expect_equal_communication(const Program& program, const Symbols& symbols) {
  std::map<std::pair<CollectiveKind, std::string>, std::pair<std::int64_t, std::int64_t>> claimed;
  for (const CommunicationItem& item : communication_items(symbols)) {
    auto& [calls, bytes] = claimed[{item.kind, item.axes}];
    calls += item.calls.value_or(0);
    bytes += item.payload_bytes;
  }
  const auto recorded = recorded_counts(program);
  const auto text = [](const auto& counts) {
    std::string lines;
    for (const auto& [key, count] : counts) {
      lines += std::string(name_of(key.first)) + " " + key.second + ": " + std::to_string(count.first) + " calls, " +
               std::to_string(count.second) + " bytes\n";
    }
    return lines;
  };
  EXPECT_EQ(text(recorded), text(claimed));
}

void expect_equal_work(const Program& program, const Symbols& symbols, std::int64_t ring_rank) {
  double products = 0;
  AttentionPairs pairs;
  for (const Op& op : program.ops()) {
    std::vector<ValueType> inputs, outputs;
    for (const ValueId id : op.inputs) inputs.push_back(program.type(id));
    for (const ValueId id : op.outputs) outputs.push_back(program.type(id));
    const Work work = op.definition->work(inputs, outputs);
    const int repeat = program.segments()[static_cast<std::size_t>(op.segment)].repeat;
    if (op.definition->kind() == OpKind::matmul) products += repeat * work.flops;
    (op.phase == Phase::forward ? pairs.forward : pairs.backward) += repeat * work.attended_pairs;
  }
  EXPECT_EQ(products, static_cast<double>(product_flops(symbols)));
  EXPECT_EQ(pairs.forward, attention_pairs(symbols, ring_rank).forward);
  EXPECT_EQ(pairs.backward, attention_pairs(symbols, ring_rank).backward);
}

/// Bytes that ops before the loss of the last micro-batch write and ops behind it read: without logits and
/// accumulators.
std::int64_t kept_bytes(const Program& program) {
  int loss = -1;
  for (int i = 0; i < program.op_count(); ++i) {
    if (program.op(i).definition->kind() == OpKind::nll) loss = i;
  }
  const ValueId logits = program.op(loss).inputs[0], sums = program.op(loss).outputs[0];
  const std::vector<int> storage = storage_of_values(program);
  const auto of = [&](ValueId id) { return storage[static_cast<std::size_t>(id)]; };
  std::map<int, std::int64_t> bytes;  // by storage; of what is made before the loss
  std::set<int> read;
  for (int i = 0; i < program.op_count(); ++i) {
    const Op& op = program.op(i);
    if (op.segment != program.op(loss).segment) continue;
    if (i < loss) {
      for (const ValueId id : op.outputs) {
        if (is_float(program.type(id).dtype)) bytes[of(id)] = program.type(id).bytes();
      }
    } else if (i > loss) {
      for (const ValueId id : op.inputs) read.insert(of(id));
    }
  }
  std::int64_t sum = 0;
  for (const auto& [id, size] : bytes) {
    const bool counted = read.contains(id) && id != of(logits) && id != of(sums);
    sum += counted ? size : 0;
  }
  return sum;
}

void expect_equal_parameters(const TrainStep& step, const Symbols& symbols) {
  std::int64_t local = 0;
  for (const Parameter& parameter : step.parameters) local += step.program.type(parameter.value).shape.elements();
  EXPECT_EQ(local, parameters_on_rank(symbols));
  std::int64_t moments = 0;
  for (const ValueId moment : step.moments) moments += step.program.type(moment).shape.elements();
  EXPECT_EQ(moments, 2 * optimizer_elements_on_rank(symbols));
}

TEST(AnalyticProgram, ClosedFormEqualsRecordedSteps) {
  const unsigned seed = std::random_device{}();
  std::cout << "seed " << seed << "\n";
  std::mt19937 random(seed);
  for (int repeat = 0; repeat < 60; ++repeat) {
    const Composition composition = random_composition(random);
    SCOPED_TRACE(composition.str());
    const int rank = static_cast<int>(random() % static_cast<unsigned>(composition.mesh.ranks()));
    const MeshAxes mesh = make_mesh(composition.mesh, rank);
    const TrainStep step = record_train_step(mesh, composition.options);
    const Symbols symbols = symbols_of(mesh, composition.options);
    expect_equal_parameters(step, symbols);
    expect_equal_communication(step.program, symbols);
    expect_equal_work(step.program, symbols, mesh[mesh_axis::cp].coordinate);
    EXPECT_EQ(kept_bytes(step.program), total_bytes(activation_items(symbols)));
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace annulus
