#pragma once

#include <random>
#include <set>
#include <vector>

#include "runtime/ops/op_table.h"
#include "runtime/program/schedule.h"

namespace annulus::testing {

/// A mesh of two axes of two ranks.
inline MeshAxes square_mesh(int rank = 0) {
  return {{{"a", 2, rank / 2}, {"b", 2, rank % 2}}, {{"ab", AxisSet(0) | AxisSet(1)}}};
}

/// Programs of random compute ops, collectives over three sets of axes, in-place ops and buckets, in segments.
class RandomProgram {
 public:
  explicit RandomProgram(std::uint64_t seed) : engine_(seed), program_(square_mesh()) {
    for (int i = 0; i < 3; ++i) whole_.insert(leaf("whole", Role::input, {}));
    const Placements partial{Placement::partial_sum(), Placement::partial_sum()};
    for (int i = 0; i < 3; ++i) summands_.insert(leaf("summand", Role::input, partial));
    const int segments = below(3) + 1;
    for (int segment = 0; segment < segments; ++segment) {
      program_.begin_segment("segment" + std::to_string(segment), 1);
      for (int i = below(25) + 5; i > 0; --i) record();
    }
    for (ValueId id : whole_)
      if (program_.value(id).role == Role::activation && below(4) == 0) program_.keep(id);
  }
  Program& program() { return program_; }

 private:
  int below(int count) { return std::uniform_int_distribution<int>(0, count - 1)(engine_); }
  ValueId any(const std::set<ValueId>& of) { return *std::next(of.begin(), below(static_cast<int>(of.size()))); }
  ValueId leaf(const std::string& name, Role role, const Placements& places) {
    return program_.leaf(name + std::to_string(leaves_++), role, DType::f32, {kElements}, places);
  }
  AxisSet axes() { return below(3) == 0 ? AxisSet(0) | AxisSet(1) : AxisSet(below(2)); }
  ValueId one(OpPointer op, std::vector<ValueId> inputs) { return program_.emit_one(std::move(op), std::move(inputs)); }

  void record() {
    switch (below(7)) {
      case 0:
        whole_.insert(one(std::make_shared<Gelu>(Activation::gelu_erf), {any(whole_)}));
        break;
      case 1:
        whole_.insert(one(std::make_shared<Add>(), {any(whole_), any(whole_)}));
        break;
      case 2:
        whole_.insert(one(std::make_shared<Shift>(axes(), 1), {any(whole_)}));
        break;
      case 3:
        whole_.insert(one(std::make_shared<AllReduce>(AxisSet(0) | AxisSet(1), Reduction::sum), {any(summands_)}));
        break;
      case 4:
        summands_.insert(one(std::make_shared<Add>(), {any(summands_), any(summands_)}));
        break;
      case 5:
        accumulate();
        break;
      default:
        reduce_bucket();
    }
  }

  /// In place, over an activation that nobody reads any more.
  void accumulate() {
    const ValueId sum = any(whole_), share = any(whole_);
    if (sum == share || program_.value(sum).role != Role::activation) return;
    whole_.erase(sum);
    whole_.insert(one(std::make_shared<Accumulate>(), {sum, share}));
  }

  void reduce_bucket() {
    std::vector<ValueId> bucket;
    for (ValueId id : summands_)
      if (program_.value(id).role == Role::activation && below(2) == 0) bucket.push_back(id);
    if (bucket.empty()) return;
    for (ValueId id : bucket) summands_.erase(id);
    const auto reduced = program_.emit(std::make_shared<AllReduce>(AxisSet(0) | AxisSet(1), Reduction::sum,
                                                                   AllReduce::Storage::in_place, bucket.size()),
                                       bucket);
    whole_.insert(reduced.begin(), reduced.end());
  }

  static constexpr std::int64_t kElements = 20;
  std::mt19937_64 engine_;
  Program program_;
  int leaves_ = 0;
  std::set<ValueId> whole_, summands_;  // replicated, and partial over both axes
};

/// For every op, the ops that are surely complete when it starts, from what lanes and waits mean: compute ops run in
/// list order, a collective starts behind its hand-over and behind its lane's earlier ones, a segment's end drains all.
inline std::vector<std::set<int>> complete_when_started(const Program& program, const Schedule& schedule) {
  std::vector<std::set<int>> before(static_cast<std::size_t>(program.op_count()));
  std::set<int> known;  // to the compute lane
  std::vector<std::set<int>> lanes(static_cast<std::size_t>(schedule.lane_count()));
  for (int i = 0; i < program.op_count(); ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (i > 0 && program.op(i - 1).segment != program.op(i).segment)
      for (int op = 0; op < i; ++op) known.insert(op);
    for (int other : schedule.waits[at]) {
      known.insert(other);
      const auto& earlier = before[static_cast<std::size_t>(other)];
      known.insert(earlier.begin(), earlier.end());
    }
    before[at] = known;
    const auto lane = static_cast<std::size_t>(schedule.lanes[at]);
    if (lane == 0) {
      known.insert(i);
      continue;
    }
    before[at].insert(lanes[lane].begin(), lanes[lane].end());
    lanes[lane] = before[at];
    lanes[lane].insert(i);
  }
  return before;
}

}  // namespace annulus::testing
