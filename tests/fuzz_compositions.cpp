// Random models on random meshes, each step against one rank: fuzz_compositions [--count N] [--seed SEED], or
// fuzz_compositions --case SEED for one of them again. Ranks are threads. Exit code 1 where any differs.
#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <iostream>
#include <random>
#include <string_view>

#include "tests/model/composition.h"

namespace annulus::testing {
namespace {

constexpr int kMostRanks = 8;
constexpr double kTolerance = 1e-10;
constexpr double kWeightTolerance = 1e-8;
constexpr double kHalfTolerance = 0.1;  // of the loss: narrow layers of halves round coarsely
constexpr double kLearningRate = 3e-3;
constexpr int kSteps = 2;

class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  std::int64_t between(std::int64_t first, std::int64_t last) {
    return std::uniform_int_distribution<std::int64_t>(first, last)(engine_);
  }
  int size(std::int64_t first, std::int64_t last) { return static_cast<int>(between(first, last)); }
  bool coin() { return between(0, 1) == 1; }
  double rate() { return coin() ? 0 : static_cast<double>(between(1, 60)) / 100; }
  template <class T>
  T one_of(std::initializer_list<T> choices) {
    return choices.begin()[between(0, static_cast<std::int64_t>(choices.size()) - 1)];
  }

 private:
  std::mt19937_64 engine_;
};

/// Heads and kv heads that tp can share: as many kv heads a rank, or as many ranks a kv head.
void draw_heads(Random& random, int tp, ModelConfig& model) {
  const bool few = tp > 1 && random.coin();
  if (few) {
    do model.kv_heads = random.between(1, tp - 1);
    while (tp % model.kv_heads != 0);
    model.heads = tp * random.between(1, 3);
  } else {
    model.kv_heads = tp * random.between(1, 2);
    model.heads = model.kv_heads * random.between(1, 3);
  }
  model.head_dim = random.between(1, 9);
}

Composition draw(std::uint64_t seed) {
  Random random(seed);
  Composition composition;
  MeshShape& mesh = composition.mesh;
  do mesh = {random.size(1, 4), random.size(1, 5), random.size(1, 8)};
  while (mesh.ranks() > kMostRanks);
  StepOptions& options = composition.options = small_step(seed);
  options.layout = random.one_of({RingLayout::contiguous, RingLayout::striped, RingLayout::zigzag});
  options.sequence_parallel = random.coin() ? SequenceParallel::on : SequenceParallel::off;
  const std::int64_t divisor = sequence_divisor(options.layout, mesh.cp);
  options.sequence_length = divisor * random.between((15 + divisor) / divisor, 5 + 15 / divisor);
  options.micro_sequences = random.between(1, 3);
  if (options.micro_sequences * options.sequence_length / mesh.cp % mesh.tp != 0 &&
      options.sequence_parallel == SequenceParallel::on)
    options.micro_sequences *= mesh.tp;
  options.micro_batches = random.size(1, 3);
  options.bucket_bytes = random.one_of<std::int64_t>({1, 1000, 10'000, 1'000'000});
  options.clip_norm = random.one_of({0.0, 0.5});
  options.optimizer_sharding =
      random.one_of({OptimizerSharding::none, OptimizerSharding::zero1, OptimizerSharding::zero1});
  ModelConfig& model = options.model;
  draw_heads(random, mesh.tp, model);
  model.layers = random.between(1, 3);
  model.hidden = random.between(2, 30);
  if (model.hidden >= 8) options.dtype = random.one_of({DType::f64, DType::f64, DType::f64, DType::bf16, DType::f16});
  model.ffn = mesh.tp * random.between(1, 20);
  model.vocabulary = random.between(2, 70);
  model.vocabulary_padding = random.between(1, 9);
  model.block_size = options.sequence_length + random.between(0, 7);
  model.activation = random.one_of({Activation::gelu_tanh, Activation::gelu_erf});
  model.dropout = {random.rate(), random.rate(), random.rate()};
  composition.executor.progress = random.one_of({Progress::poll, Progress::thread});
  if (random.coin()) composition.executor.disturb_seed = seed;
  composition.overlap = random.between(0, 3) == 0 ? Overlap::off : Overlap::on;
  return composition;
}

/// The largest difference between weights that the sharded and the unsharded optimizer have updated; 0 where neither is
/// sharded.
double weight_deviation(Composition composition) {
  if (composition.options.optimizer_sharding == OptimizerSharding::none) return 0;
  if (composition.mesh.dp * composition.mesh.cp == 1) return 0;
  const auto sharded = weights_after(composition, kSteps, kLearningRate);
  composition.options.optimizer_sharding = OptimizerSharding::none;
  double largest = 0;
  for (const auto& [name, expected] : weights_after(composition, kSteps, kLearningRate))
    for (std::size_t i = first_comparable(name, expected.size()); i < expected.size(); ++i) {
      const double error = std::abs(sharded.at(name)[i] - expected[i]);
      if (!(error <= largest)) largest = std::isnan(error) ? INFINITY : error;
    }
  return largest;
}

/// True where the step equals one rank's; else says how to see it again.
bool holds(std::uint64_t seed) {
  const Composition composition = draw(seed);
  std::string failure;
  try {
    const Deviation found = deviation_from_one_rank(composition);
    if (is_half(composition.options.dtype)) {
      // Gradients in f16 overflow now and then; a step of training leaves them out.
      const bool may_overflow = composition.options.dtype == DType::f16;
      if (found.loss < kHalfTolerance && (may_overflow || std::isfinite(found.worst()))) return true;
      throw Error(fmt::format("loss {:.1e}, norm {:.1e}, gradient {:.1e} at {}", found.loss, found.norm, found.gradient,
                              found.parameter));
    }
    const double weights = weight_deviation(composition);
    if (found.worst() < kTolerance && weights < kWeightTolerance) return true;
    failure = fmt::format("loss {:.1e}, norm {:.1e}, gradient {:.1e} at {}, updated weights {:.1e}", found.loss,
                          found.norm, found.gradient, found.parameter, weights);
  } catch (const Error& error) {
    failure = error.what();
  }
  std::cout << fmt::format("FAILED: {}\n  again: fuzz_compositions --case {}   # {}\n", failure, seed,
                           describe(composition));
  return false;
}

std::uint64_t number(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw ConfigError(
        fmt::format("{} is not a number; usage: fuzz_compositions [--count N] [--seed SEED] [--case SEED]", text));
  return value;
}

int run(const std::vector<std::string_view>& arguments) {
  std::uint64_t count = 50, seed = std::random_device{}();
  for (std::size_t i = 0; i < arguments.size(); i += 2) {
    const std::uint64_t value = number(i + 1 < arguments.size() ? arguments[i + 1] : "nothing");
    if (arguments[i] == "--case") return holds(value) ? 0 : 1;
    if (arguments[i] == "--count")
      count = value;
    else if (arguments[i] == "--seed")
      seed = value;
    else
      number(arguments[i]);
  }
  std::cout << "seed " << seed << std::endl;
  std::mt19937_64 seeds(seed);
  std::uint64_t failures = 0;
  for (std::uint64_t i = 0; i < count; ++i) failures += holds(seeds()) ? 0 : 1;
  std::cout << fmt::format("{} compositions, {} differ from one rank\n", count, failures);
  return failures == 0 ? 0 : 1;
}

}  // namespace
}  // namespace annulus::testing

int main(int argc, char** argv) {
  try {
    return annulus::testing::run({argv + 1, argv + argc});
  } catch (const annulus::Error& error) {
    std::cerr << error.what() << "\n";
    return 2;
  }
}
