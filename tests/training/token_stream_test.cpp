#include "runtime/training/token_stream.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "runtime/training/permutation.h"
#include "runtime/training/token_file_writer.h"
#include "runtime/training/tokenizer.h"
#include "tests/training/support.h"

namespace annulus {
namespace {

using testing::expect_error;
using testing::Random;
using testing::TemporaryFolder;

TEST(Permutation, MeetsEveryNumberOnce) {
  Random random;
  for (std::int64_t size = 1; size <= 300; ++size) {
    const Permutation permutation(stream_key(static_cast<std::uint64_t>(random.below(1 << 30)), "test"), size);
    std::vector<int> met(static_cast<std::size_t>(size));
    for (std::int64_t i = 0; i < size; ++i) ++met.at(static_cast<std::size_t>(permutation(i)));
    EXPECT_EQ(met, std::vector<int>(static_cast<std::size_t>(size), 1)) << size;
  }
}

TEST(Permutation, IsEvenlyRandom) {
  // Each of 6 orders of 3 has probability 1/6: 6000 draws give 1000, with a standard deviation of 29.
  Random random;
  std::map<std::vector<std::int64_t>, int> orders;
  const auto seed = static_cast<std::uint64_t>(random.below(1 << 30));
  for (std::uint64_t epoch = 0; epoch < 6000; ++epoch) {
    const Permutation permutation(stream_key(seed, "test", epoch), 3);
    ++orders[{permutation(0), permutation(1), permutation(2)}];
  }
  EXPECT_EQ(orders.size(), 6u);
  for (const auto& [order, times] : orders) EXPECT_NEAR(times, 1000, 8 * 29);
}

TEST(Permutation, LeavesNoTraceOfTheOrder) {
  // The mean distance of neighbours in a random order of n is n / 3; standard deviation about n / sqrt(18 n) here.
  constexpr std::int64_t kSize = 10'000;
  Random random;
  const Permutation permutation(stream_key(static_cast<std::uint64_t>(random.below(1 << 30)), "test"), kSize);
  double distance = 0;
  for (std::int64_t i = 0; i + 1 < kSize; ++i)
    distance += static_cast<double>(std::abs(permutation(i + 1) - permutation(i)));
  EXPECT_NEAR(distance / kSize, kSize / 3.0, 8 * kSize / std::sqrt(18.0 * kSize));
}

/// A file whose token i is i, so that every sequence shows where it is from.
class TokenStreamTest : public ::testing::Test {
 protected:
  TokenFile counting_file(std::int64_t tokens) {
    std::vector<std::int32_t> header(256);
    header[0] = 20240801;
    header[1] = 7;
    header[2] = static_cast<std::int32_t>(tokens);
    std::string bytes(reinterpret_cast<const char*>(header.data()), 1024);
    for (std::int32_t id = 0; id < tokens; ++id) bytes.append(reinterpret_cast<const char*>(&id), 4);
    return TokenFile(folder_.write("counting.bin", bytes));
  }
  TemporaryFolder folder_;
};

struct Sequence {
  explicit Sequence(std::int64_t length)
      : inputs(static_cast<std::size_t>(length)), targets(static_cast<std::size_t>(length)) {}
  std::vector<std::int32_t> inputs, targets;
  /// The window, checked to be a window with its next tokens.
  std::int64_t window() const {
    const auto length = static_cast<std::int32_t>(inputs.size());
    EXPECT_EQ(inputs[0] % length, 0);
    for (std::int32_t i = 0; i < length; ++i) {
      EXPECT_EQ(inputs[static_cast<std::size_t>(i)], inputs[0] + i);
      EXPECT_EQ(targets[static_cast<std::size_t>(i)], inputs[0] + i + 1);
    }
    return inputs[0] / length;
  }
  bool operator==(const Sequence&) const = default;
};

TEST_F(TokenStreamTest, EveryEpochVisitsEveryTrainingWindowOnce) {
  Random random;
  for (int round = 0; round < 20; ++round) {
    const std::int64_t length = 1 + random.below(40),
                       tokens = 1 + length * (2 + random.below(100)) + random.below(length);
    const TokenStreamOptions options{
        .sequence_length = length, .seed = static_cast<std::uint64_t>(random.below(1000)), .validation_fraction = 0.1};
    const TokenStream stream(counting_file(tokens), options);
    const std::int64_t windows = (tokens - 1) / length, training = stream.training_sequences();
    EXPECT_EQ(training + stream.validation_sequences(), windows);
    EXPECT_EQ(stream.validation_sequences(), std::max(1L, std::lround(0.1 * static_cast<double>(windows))));
    Sequence sequence(length);
    for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
      std::set<std::int64_t> seen;
      for (std::int64_t i = epoch * training; i < (epoch + 1) * training; ++i) {
        EXPECT_EQ(stream.epoch_of(i), epoch);
        stream.read(i, sequence.inputs, sequence.targets);
        seen.insert(sequence.window());
      }
      EXPECT_EQ(std::ssize(seen), training);
      EXPECT_EQ(*seen.rbegin(), training - 1) << "what is held out is never trained on";
    }
    for (std::int64_t i = 0; i < stream.validation_sequences(); ++i) {
      stream.read_validation(i, sequence.inputs, sequence.targets);
      EXPECT_EQ(sequence.window(), training + i);
    }
  }
}

TEST_F(TokenStreamTest, OrderDependsOnSeedAndEpochAlone) {
  const auto order = [&](std::uint64_t seed, SequenceOrder kind, std::int64_t epoch) {
    const TokenStream stream(counting_file(1001), {.sequence_length = 10, .seed = seed, .order = kind});
    std::vector<std::int64_t> windows;
    for (std::int64_t i = 0; i < 100; ++i) windows.push_back(stream.window_of(epoch * 100 + i));
    return windows;
  };
  EXPECT_EQ(order(1, SequenceOrder::shuffled, 0), order(1, SequenceOrder::shuffled, 0));
  EXPECT_NE(order(1, SequenceOrder::shuffled, 0), order(1, SequenceOrder::shuffled, 1));
  EXPECT_NE(order(1, SequenceOrder::shuffled, 0), order(2, SequenceOrder::shuffled, 0));
  std::vector<std::int64_t> sequential(100);
  std::iota(sequential.begin(), sequential.end(), 0);
  EXPECT_EQ(order(1, SequenceOrder::sequential, 0), sequential);
  EXPECT_EQ(order(7, SequenceOrder::sequential, 3), sequential);
}

TEST_F(TokenStreamTest, DoesNotDependOnHowManyRanksRead) {
  constexpr std::int64_t kBatch = 12, kSteps = 20, kLength = 8;
  const TokenStreamOptions options{.sequence_length = kLength, .seed = 5, .validation_fraction = 0.05};
  std::map<std::int64_t, Sequence> expected;
  for (const std::int64_t ranks : {1, 2, 3, 4, 6, 12}) {
    for (std::int64_t rank = 0; rank < ranks; ++rank) {
      const TokenStream stream(counting_file(kLength * 50 + 1), options);  // its own, as in a process of its own
      for (std::int64_t i = 0; i < kSteps * kBatch; ++i) {
        if (i % kBatch / (kBatch / ranks) != rank) continue;
        Sequence sequence(kLength);
        stream.read(i, sequence.inputs, sequence.targets);
        if (ranks == 1) expected.emplace(i, sequence);
        EXPECT_EQ(sequence, expected.at(i));
      }
    }
  }
  EXPECT_EQ(std::ssize(expected), kSteps * kBatch);
}

TEST_F(TokenStreamTest, UsesTheShortestFileThatCanBe) {
  const TokenStream stream(counting_file(9), {.sequence_length = 8});
  EXPECT_EQ(stream.training_sequences(), 1);
  EXPECT_EQ(stream.validation_sequences(), 0);
  Sequence sequence(8);
  stream.read(41, sequence.inputs, sequence.targets);
  EXPECT_EQ(sequence.window(), 0);
}

TEST_F(TokenStreamTest, RefusesWhatCannotBe) {
  const auto open = [&](std::int64_t tokens, TokenStreamOptions options) {
    TokenStream(counting_file(tokens), options);
  };
  const std::string path = folder_ / "counting.bin";
  expect_error([&] { open(8, {.sequence_length = 8}); },
               {path, "has 8 tokens", "sequence_length=8 needs 9", "more text", "at most 7"});
  expect_error([&] { open(0, {.sequence_length = 8}); }, {path, "has 0 tokens", "needs 9"});
  expect_error([&] { open(9, {.sequence_length = 0}); }, {"sequence_length=0 is less than 1"});
  for (const double fraction : {-0.1, 1.0, std::nan("")}) {
    expect_error([&] { open(99, {.sequence_length = 8, .validation_fraction = fraction}); },
                 {"validation_fraction=", "is not in [0, 1)"});
  }
  expect_error(
      [&] { open(9, {.sequence_length = 8, .validation_fraction = 0.01}); },
      {path, "has 1 sequence(s) of sequence_length=8", "validation_fraction=0.01", "none to train on", "more text"});
  const TokenStream stream(counting_file(99), {.sequence_length = 8, .validation_fraction = 0.2});
  std::vector<std::int32_t> right(8), wrong(7);
  expect_error<InternalError>([&] { stream.read(0, right, wrong); }, {"8 inputs and 7 targets"});
  expect_error<InternalError>([&] { stream.read(-1, right, right); }, {"training sequence -1"});
  expect_error<InternalError>([&] { stream.read_validation(2, right, right); }, {"validation sequence 2 of 2"});
}

TEST_F(TokenStreamTest, DescribesItself) {
  const TokenStream stream(counting_file(103), {.sequence_length = 10, .seed = 9, .validation_fraction = 0.2});
  const auto description = nlohmann::json::parse(stream.describe());
  EXPECT_EQ(description["training_sequences"], 8);
  EXPECT_EQ(description["validation_sequences"], 2);
  EXPECT_EQ(description["unused_tokens"], 2);
  EXPECT_EQ(description["seed"], 9);
  EXPECT_EQ(description["order"], "shuffled");
  EXPECT_TRUE(description["vocabulary_size"].is_null());
}

}  // namespace
}  // namespace annulus
