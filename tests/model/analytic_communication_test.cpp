#include <gtest/gtest.h>

#include <map>
#include <string>
#include <utility>

#include "model/analytic/communication.h"
#include "model/analytic/parameters.h"
#include "tests/model/analytic_models.h"

namespace annulus {
namespace {

using Kind = CollectiveKind;

Symbols small() {
  Symbols s = published::gpt2(3, 8);
  s.B = 2;
  s.S = 48;
  s.m = 5;
  return s;
}

struct Sum {
  std::int64_t calls = 0, payload_bytes = 0;
};

Sum sum_of(const Symbols& s, Kind kind, const std::string& axes) {
  Sum sum;
  for (const CommunicationItem& item : communication_items(s)) {
    if (item.kind != kind || item.axes != axes || !item.calls) continue;
    sum.calls += *item.calls;
    sum.payload_bytes += item.payload_bytes;
  }
  return sum;
}

std::map<std::string, std::int64_t> gradient_bytes(const Symbols& s) {
  std::map<std::string, std::int64_t> bytes;
  for (const CommunicationItem& item : communication_items(s)) {
    if (item.role == CommunicationRole::gradients) bytes[item.axes] += item.payload_bytes;
  }
  return bytes;
}

TEST(AnalyticCommunication, OneRankIsSilent) { EXPECT_TRUE(communication_items(small()).empty()); }

// Megatron's counts: per layer two all-reduces forward and two backward; embedding, head's input gradient, three for
// the loss; and once per step the norm.
TEST(AnalyticCommunication, TensorParallel) {
  Symbols s = small();
  s.T = 4;
  const std::int64_t rows = 2 * 48, activation = 4 * rows * s.D;
  const Sum sum = sum_of(s, Kind::all_reduce, "tp");
  EXPECT_EQ(sum.calls, s.m * (4 * s.L + 1 + 1 + 3) + 1);
  EXPECT_EQ(sum.payload_bytes, s.m * ((4 * s.L + 2) * activation + 3 * 4 * rows) + 8);
  EXPECT_EQ(communication_counts(communication_items(s)).size(), 1u);  // nothing else moves
}

TEST(AnalyticCommunication, SequenceParallel) {
  Symbols s = small();
  s.T = 4;
  s.sequence_parallel = true;
  const std::int64_t activation = 4 * 2 * 48 * s.D;
  s.layer_input = GatheredInput::kept;
  EXPECT_EQ(sum_of(s, Kind::all_gather, "tp").calls, s.m * (4 * s.L + 2));
  EXPECT_EQ(sum_of(s, Kind::reduce_scatter, "tp").calls, s.m * (4 * s.L + 2));
  s.layer_input = GatheredInput::gathered_again;  // two more per layer
  EXPECT_EQ(sum_of(s, Kind::all_gather, "tp").calls, s.m * (6 * s.L + 2));
  EXPECT_EQ(sum_of(s, Kind::all_gather, "tp").payload_bytes, s.m * (6 * s.L + 2) * activation);
  EXPECT_EQ(sum_of(s, Kind::reduce_scatter, "tp").payload_bytes, s.m * (4 * s.L + 2) * activation);
  s.head_input = GatheredInput::gathered_again;
  EXPECT_EQ(sum_of(s, Kind::all_gather, "tp").calls, s.m * (6 * s.L + 3));
  EXPECT_EQ(sum_of(s, Kind::all_reduce, "tp").calls, s.m * 3 + 1);  // the loss; the norm
  // Gradients of norms, row-parallel biases and positions, p_g (n_norm nu + 2) D per layer and the rest.
  EXPECT_EQ(gradient_bytes(s), (std::map<std::string, std::int64_t>{{"tp", 4 * s.D * (s.L * (2 * 2 + 2) + 2 + s.K)}}));
}

// Errata E-7.13: in units of M (T - 1) / T per layer, 8 without SP, 10 with it.
TEST(AnalyticCommunication, WireUnitsPerLayer) {
  for (const bool sequence_parallel : {false, true}) {
    Symbols s = small();
    s.T = 4;
    s.sequence_parallel = sequence_parallel;
    double layers = 0;
    for (const CommunicationItem& item : communication_items(s)) {
      const bool of_layer = item.role == CommunicationRole::row_parallel_output ||
                            item.role == CommunicationRole::column_parallel_input ||
                            item.role == CommunicationRole::column_parallel_input_again ||
                            item.role == CommunicationRole::column_parallel_input_gradient ||
                            item.role == CommunicationRole::row_parallel_output_gradient;
      layers += of_layer ? item.wire_bytes() : 0;
    }
    const double unit = 4.0 * 2 * 48 * static_cast<double>(s.D) * 3 / 4;
    EXPECT_DOUBLE_EQ(layers / (unit * static_cast<double>(s.L * s.m)), sequence_parallel ? 10 : 8);
  }
}

TEST(AnalyticCommunication, Ring) {
  Symbols s = small();
  for (const std::int64_t ring : {2, 3, 4}) {
    s.R = ring;
    const std::int64_t message = 2 * 4 * 2 * (48 / ring) * 8 * 64;
    const Sum sum = sum_of(s, Kind::shift, "cp");
    EXPECT_EQ(sum.calls, s.m * s.L * 3 * (ring - 1));
    EXPECT_EQ(sum.payload_bytes, sum.calls * message);
    const auto counts = communication_counts(communication_items(s));
    EXPECT_EQ(counts.at({Kind::shift, "cp"}).wire_bytes, static_cast<double>(sum.payload_bytes));
    EXPECT_EQ(gradient_bytes(s).at("cp"), 4 * parameters_on_rank(s));
  }
  s.p = 2;  // dK and dV travel wider than K and V
  const std::int64_t message = 2 * 2 * (48 / 4) * 8 * 64;
  EXPECT_EQ(sum_of(s, Kind::shift, "cp").payload_bytes, s.m * s.L * 3 * message * (2 + 2 + 4));
}

// Section 4: RS(p_g N_rank) + AG(p N_rank), which is on the wire what the all-reduce is; nothing where W R = 1.
TEST(AnalyticCommunication, ZeroOne) {
  Symbols s = small();
  s.zero1 = true;
  EXPECT_TRUE(communication_items(s).empty());
  s.W = 2;
  s.R = 2;
  s.p = 2;
  using Role = CommunicationRole;
  std::map<std::pair<Role, Kind>, std::int64_t> bytes;
  double sharded = 0, whole = 0;
  for (const CommunicationItem& item : communication_items(s)) {
    if (item.role != Role::gradients && item.role != Role::weights) continue;
    EXPECT_EQ(item.axes, "dp+cp");
    bytes[{item.role, item.kind}] += item.payload_bytes;
  }
  const std::int64_t count = parameters_on_rank(s);
  EXPECT_EQ(bytes, (std::map<std::pair<Role, Kind>, std::int64_t>{{{Role::gradients, Kind::reduce_scatter}, 4 * count},
                                                                  {{Role::weights, Kind::all_gather}, 2 * count}}));
  s.p = 4;
  for (const CommunicationItem& item : communication_items(s))
    if (item.role == Role::gradients || item.role == Role::weights) sharded += item.wire_bytes();
  s.zero1 = false;
  for (const CommunicationItem& item : communication_items(s))
    if (item.role == Role::gradients) whole += item.wire_bytes();
  EXPECT_DOUBLE_EQ(sharded, whole);
}

TEST(AnalyticCommunication, GroupedQueriesMoveFewerKeys) {
  Symbols s = small();
  s.R = 2;
  const std::int64_t all = sum_of(s, Kind::shift, "cp").payload_bytes;
  s.G = 2;
  EXPECT_EQ(sum_of(s, Kind::shift, "cp").payload_bytes * 4, all);
}

TEST(AnalyticCommunication, GradientsByAxes) {
  Symbols s = small();
  s.W = 2;
  s.R = 3;
  s.T = 4;
  const auto plain = gradient_bytes(s);
  EXPECT_EQ(plain, (std::map<std::string, std::int64_t>{{"dp+cp", 4 * parameters_on_rank(s)}}));
  s.sequence_parallel = true;
  const auto sp = gradient_bytes(s);
  const std::int64_t replicated = 4 * s.D * (s.L * 6 + 2 + s.K);
  EXPECT_EQ(sp, (std::map<std::string, std::int64_t>{{"dp+cp", 4 * parameters_on_rank(s) - replicated},
                                                     {"dp+cp+tp", replicated}}));
  s.G = 2;  // two kv heads on four ranks: each is on two
  const std::int64_t kv = 4 * s.L * 2 * 64 * (s.D + 1);
  const auto grouped = gradient_bytes(s);
  EXPECT_EQ(grouped.at("dp+cp+tr"), kv);
  EXPECT_EQ(grouped.at("dp+cp+tp"), replicated);
  EXPECT_EQ(sum_of(s, Kind::all_reduce, "tk").calls, 1);  // the norm of what is sharded over tk alone
  s.G = 1;                                                // one on all: tr is tp
  EXPECT_EQ(gradient_bytes(s).at("dp+cp+tp"), replicated + kv);
  EXPECT_EQ(sum_of(s, Kind::all_reduce, "tk").calls, 0);
}

TEST(AnalyticCommunication, ScalarsAndUnclaimedCalls) {
  Symbols s = small();
  s.W = 2;
  EXPECT_EQ(sum_of(s, Kind::all_reduce, "dp").calls, 1);
  EXPECT_EQ(sum_of(s, Kind::all_reduce, "dp").payload_bytes, 16);  // loss and loss weights, f64
  const auto counts = communication_counts(communication_items(s));
  const CommunicationCount& count = counts.at({Kind::all_reduce, "dp"});
  EXPECT_FALSE(count.calls.has_value());  // buckets of gradients are among them
  EXPECT_EQ(count.payload_bytes, 16 + 4 * parameters(s) + 4 * s.D * (s.padded_vocabulary() - s.V));
  EXPECT_DOUBLE_EQ(count.wire_bytes, static_cast<double>(count.payload_bytes));  // 2 (N - 1) / N = 1 for two ranks
}

TEST(AnalyticCommunication, FullRecomputationRepeatsAllButTheLastCollective) {
  Symbols s = small();
  s.T = 2;
  s.R = 2;
  const auto calls = [&](Kind kind, const char* axes) { return sum_of(s, kind, axes).calls; };
  const std::int64_t reduces = calls(Kind::all_reduce, "tp"), shifts = calls(Kind::shift, "cp");
  s.recompute = Recompute::full;
  EXPECT_EQ(calls(Kind::all_reduce, "tp"), reduces + s.m * s.L);
  EXPECT_EQ(calls(Kind::shift, "cp"), shifts + s.m * s.L);
  s.sequence_parallel = true;
  s.recompute = Recompute::none;
  const std::int64_t gathers = calls(Kind::all_gather, "tp"), scatters = calls(Kind::reduce_scatter, "tp");
  s.recompute = Recompute::full;
  EXPECT_EQ(calls(Kind::all_gather, "tp"), gathers + 2 * s.m * s.L);
  EXPECT_EQ(calls(Kind::reduce_scatter, "tp"), scatters + s.m * s.L);
}

}  // namespace
}  // namespace annulus
