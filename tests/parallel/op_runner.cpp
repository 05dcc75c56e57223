#include "tests/parallel/op_runner.h"

#include <gtest/gtest.h>

#include <cmath>
#include <mutex>

#include "collectives/thread_communicator.h"
#include "parallel/ring_attention.h"
#include "runtime/cpu/device.h"

namespace annulus::testing {
namespace {

/// Indices along `dim` that part `part` of `parts` holds.
std::vector<std::int64_t> indices_of(Placement place, std::int64_t extent, int parts, int part, const Spread& spread) {
  std::vector<std::int64_t> indices;
  if (!place.laid_out) {
    for (std::int64_t i = extent * part / parts; i < extent * (part + 1) / parts; ++i) indices.push_back(i);
    return indices;
  }
  const std::int64_t sequences = place.dim == 0 ? spread.sequences : 1, length = extent / sequences;
  for (std::int64_t sequence = 0; sequence < sequences; ++sequence)
    for (std::int32_t position : positions(spread.layout, parts, part, length))
      indices.push_back(sequence * length + position);
  return indices;
}

/// Calls `visit(index in the part, index in the whole)` for every element of the part's `indices` along `dim`.
template <class Visit>
void visit_part(const Shape& whole, int dim, const std::vector<std::int64_t>& indices, const Visit& visit) {
  const std::int64_t outer = whole.elements(0, dim), inner = whole.elements(dim + 1, whole.rank());
  std::size_t local = 0;
  for (std::int64_t o = 0; o < outer; ++o)
    for (std::int64_t index : indices)
      for (std::int64_t i = 0; i < inner; ++i)
        visit(local++, static_cast<std::size_t>((o * whole[dim] + index) * inner + i));
}

std::vector<Block> split(Draw& draw, const Block& whole, DType dtype, Placement place, int parts,
                         const Spread& spread) {
  std::vector<Block> blocks(static_cast<std::size_t>(parts), whole);
  const auto random = [&] { return dtype == DType::i32 ? static_cast<double>(draw.between(-3, 3)) : draw.normal(); };
  for (int part = 0; part < parts; ++part) {
    Block& block = blocks[static_cast<std::size_t>(part)];
    if (place.is_sharded()) {
      const auto indices = indices_of(place, whole.shape[place.dim], parts, part, spread);
      block.shape[place.dim] = static_cast<std::int64_t>(indices.size());
      block.values.resize(static_cast<std::size_t>(block.shape.elements()));
      visit_part(whole.shape, place.dim, indices,
                 [&](std::size_t local, std::size_t global) { block.values[local] = whole.values[global]; });
    } else if (place.is_partial_sum() && part > 0) {
      for (std::size_t i = 0; i < block.values.size(); ++i) {
        block.values[i] = random();
        blocks[0].values[i] -= block.values[i];
      }
    }
  }
  if (place.is_partial_max())
    for (std::size_t i = 0; i < whole.values.size(); ++i) {
      const std::int64_t owner = draw.between(0, parts - 1);
      for (int part = 0; part < parts; ++part)
        if (part != owner) blocks[static_cast<std::size_t>(part)].values[i] -= std::abs(random());
    }
  return blocks;
}

Block join(const std::vector<Block>& parts, Placement place, const Spread& spread) {
  Block whole = parts.front();
  const int count = static_cast<int>(parts.size());
  if (place.is_sharded()) {
    whole.shape[place.dim] *= count;
    whole.values.assign(static_cast<std::size_t>(whole.shape.elements()), NAN);
  }
  for (int part = 0; part < count; ++part) {
    const Block& block = parts[static_cast<std::size_t>(part)];
    if (place.is_sharded()) {
      visit_part(whole.shape, place.dim, indices_of(place, whole.shape[place.dim], count, part, spread),
                 [&](std::size_t local, std::size_t global) { whole.values[global] = block.values[local]; });
      continue;
    }
    if (place.is_replicated()) expect_close(block.values, whole.values, 1e-12, "ranks hold different values");
    for (std::size_t i = 0; part > 0 && i < whole.values.size(); ++i) {
      if (place.is_partial_sum()) whole.values[i] += block.values[i];
      if (place.is_partial_max()) whole.values[i] = std::max(whole.values[i], block.values[i]);
    }
  }
  return whole;
}

void write(Executor& executor, ValueId id, const Block& block) {
  if (executor.plan().offsets[static_cast<std::size_t>(id)] < 0) return;  // no op reads it
  const DType dtype = executor.program().type(id).dtype;
  ASSERT_EQ(executor.program().type(id).shape, block.shape);
  const auto put = [&](auto zero) {
    using T = decltype(zero);
    std::vector<T> converted;
    for (double x : block.values) converted.push_back(static_cast<T>(static_cast<Wide<T>>(x)));
    executor.write(id, converted.data());
  };
  if (dtype == DType::i32)
    put(std::int32_t{});
  else
    dispatch_stored(dtype, put);
}

std::vector<ValueId> declare(Program& program, const std::vector<OpInput>& inputs,
                             const std::vector<Placements>& places) {
  std::vector<ValueId> leaves;
  for (std::size_t i = 0; i < inputs.size(); ++i)
    leaves.push_back(
        program.leaf("input" + std::to_string(i), Role::input, inputs[i].dtype, inputs[i].shape, places[i]));
  return leaves;
}

Block read(const Executor& executor, ValueId id) {
  const ValueType& type = executor.program().type(id);
  return dispatch_stored(type.dtype, [&](auto zero) {
    std::vector<decltype(zero)> raw(static_cast<std::size_t>(type.shape.elements()));
    executor.read(id, raw.data());
    return Block{type.shape, Numbers(raw.begin(), raw.end())};
  });
}

}  // namespace

std::vector<Block> scatter(Draw& draw, const MeshAxes& mesh, const Block& whole, DType dtype, const Placements& places,
                           const Spread& spread) {
  std::vector<Block> blocks{whole};
  for (int axis = 0; axis < mesh.count(); ++axis) {
    std::vector<Block> finer;
    for (const Block& block : blocks)
      for (Block& part : split(draw, block, dtype, places[static_cast<std::size_t>(axis)], mesh[axis].size, spread))
        finer.push_back(std::move(part));
    blocks = std::move(finer);
  }
  return blocks;
}

Block gather(const MeshAxes& mesh, std::vector<Block> parts, const Placements& places, const Spread& spread) {
  for (int axis = mesh.count() - 1; axis >= 0; --axis) {
    const auto count = static_cast<std::ptrdiff_t>(mesh[axis].size);
    std::vector<Block> coarser;
    for (auto at = parts.begin(); at != parts.end(); at += count)
      coarser.push_back(join({at, at + count}, places[static_cast<std::size_t>(axis)], spread));
    parts = std::move(coarser);
  }
  return parts.front();
}

MeshAxes mesh_of(const std::array<int, 4>& sizes, int rank) {
  MeshAxes mesh;
  mesh.axes = {{"dp", sizes[0]}, {"cp", sizes[1]}, {"tk", sizes[2]}, {"tr", sizes[3]}};
  for (auto axis = mesh.axes.rbegin(); axis != mesh.axes.rend(); ++axis) {
    axis->coordinate = rank % axis->size;
    rank /= axis->size;
  }
  return mesh;
}

RanksResult run_on_ranks(const std::array<int, 4>& sizes, const std::vector<OpInput>& inputs,
                         const std::vector<Placements>& places, const std::vector<std::vector<Block>>& parts,
                         const Record& record) {
  const MeshAxes axes = mesh_of(sizes);
  const auto ranks = static_cast<std::size_t>(axes.size(axes.all()));
  RanksResult result;
  std::mutex mutex;
  run_ranks(static_cast<int>(ranks), [&](Communicator& world) {
    const auto rank = static_cast<std::size_t>(world.rank());
    const MeshAxes mesh = mesh_of(sizes, world.rank());
    Program program(mesh);
    const std::vector<ValueId> leaves = declare(program, inputs, places);
    const std::vector<ValueId> outputs = record(program, leaves);
    for (ValueId output : outputs) program.keep(output);
    Groups groups(world, mesh);
    CpuDevice device(1);
    Executor executor(program, device, groups.lookup());
    executor.run([&](const Segment&, int) {
      for (std::size_t i = 0; i < leaves.size(); ++i) write(executor, leaves[i], parts[i][rank]);
    });
    const std::lock_guard lock(mutex);
    result.outputs.resize(outputs.size(), std::vector<Block>(ranks));
    for (std::size_t i = 0; i < outputs.size(); ++i) result.outputs[i][rank] = read(executor, outputs[i]);
    if (rank > 0) return;
    for (ValueId output : outputs) result.types.push_back(program.type(output));
    result.counters = executor.counters();
  });
  return result;
}

OneRank::OneRank(const std::vector<OpInput>& inputs, const Record& record)
    : program_(mesh_of({1, 1, 1, 1})), device_(std::make_unique<CpuDevice>(1)) {
  leaves_ = declare(program_, inputs, std::vector<Placements>(inputs.size()));
  outputs_ = record(program_, leaves_);
  for (ValueId output : outputs_) program_.keep(output);
  executor_ = std::make_unique<Executor>(program_, *device_, [](AxisSet) -> Communicator& {
    throw InternalError("a program of one rank asks for a communicator");
  });
}

RanksResult OneRank::run(const std::vector<OpInput>& inputs) {
  executor_->run([&](const Segment&, int) {
    for (std::size_t i = 0; i < leaves_.size(); ++i) write(*executor_, leaves_[i], {inputs[i].shape, inputs[i].values});
  });
  RanksResult result{{}, {}, executor_->counters()};
  for (ValueId output : outputs_) {
    result.outputs.push_back({read(*executor_, output)});
    result.types.push_back(program_.type(output));
  }
  return result;
}

Record record_op(const OpCase& op, RingLayout layout) {
  return [op, layout](Program& program, const std::vector<ValueId>& inputs) {
    std::vector<ValueType> types;
    for (ValueId input : inputs) types.push_back(program.type(input));
    const OpPointer definition = op.make(program.mesh(), types);
    const std::vector<ValueId> outputs = program.emit(definition, inputs);
    if (definition->kind() == OpKind::attention || definition->kind() == OpKind::attention_grad)
      expand_ring_attention(program, layout, op.inputs[0].shape[0] / op.sequences);
    return outputs;
  };
}

void expect_close(const Numbers& actual, const Numbers& expected, double tolerance, const std::string& what) {
  ASSERT_EQ(actual.size(), expected.size()) << what;
  double scale = 1, error = 0;
  for (double x : expected)
    if (std::isfinite(x)) scale = std::max(scale, std::abs(x));
  for (std::size_t i = 0; i < expected.size(); ++i)
    if (const double now = actual[i] == expected[i] ? 0 : std::abs(actual[i] - expected[i]); !(now <= error))
      error = now;
  EXPECT_LE(error, tolerance * scale) << what;
}

}  // namespace annulus::testing
