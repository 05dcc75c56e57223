#pragma once

#include <functional>
#include <string>
#include <vector>

#include "model/verify.h"
#include "parallel/mesh.h"

namespace annulus::testing {

/// One way to spread a step over ranks, and how it is run.
struct Composition {
  MeshShape mesh;
  StepOptions options;
  ExecutorOptions executor = {};
  Overlap overlap = Overlap::on;
  CollectiveFilter filter = {};  ///< what becomes of the forward's collectives
};

/// A small model of random weights: 12 heads of 4, which suits every tp and kv head count in use.
StepOptions small_step(std::uint64_t seed);

/// Calls `body` for every rank of the mesh, each a thread, with its initialized runner.
void on_ranks(const Composition& composition, Tail tail, const std::function<void(StepRunner& runner, int rank)>& body);

/// The largest deviation of any rank from one rank that takes the same step.
Deviation deviation_from_one_rank(const Composition& composition);

/// What a rank is left with, as bytes: for comparisons of bits.
using Bits = std::vector<std::byte>;
/// Loss, norm and every gradient of each rank after one step.
std::vector<Bits> gradient_bits(const Composition& composition);
/// Loss, norm and every weight and moment of each rank after `steps` updates.
std::vector<Bits> weight_bits(const Composition& composition, int steps);

/// The learning rate and bias corrections of update `step` (from 1).
StepHyper hyper_of(const StepOptions& options, int step, double learning_rate);

/// Whole weights by name after `steps` updates; padding rows are checked to be zero.
std::map<std::string, std::vector<double>> weights_after(const Composition& composition, int steps,
                                                         double learning_rate);

/// A composition on one line, as in `dp2 cp2 tp2 zigzag sp ...`.
std::string describe(const Composition& composition);

/// A fresh seed, printed.
std::uint64_t fresh_seed();

}  // namespace annulus::testing
