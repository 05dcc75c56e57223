#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "parallel/layout.h"
#include "parallel/mesh.h"
#include "runtime/execute/executor.h"
#include "tests/op_table.h"

namespace annulus::testing {

/// A dense value on the host.
struct Block {
  Shape shape;
  Numbers values;
};

/// How tests lay values over ranks: rows that follow a layout do so sequence by sequence.
struct Spread {
  RingLayout layout = RingLayout::striped;
  std::int64_t sequences = 1;
};

/// What each rank of the mesh (in rank order) holds of `whole`: partial sums and maxima are split at random.
std::vector<Block> scatter(Draw& draw, const MeshAxes& mesh, const Block& whole, DType dtype, const Placements& places,
                           const Spread& spread);
/// The whole again. Fails the test where ranks that should hold the same do not.
Block gather(const MeshAxes& mesh, std::vector<Block> parts, const Placements& places, const Spread& spread);

/// The mesh of these sizes (dp, cp, tk, tr) as `rank` sees it.
MeshAxes mesh_of(const std::array<int, 4>& sizes, int rank = 0);

/// What a program is made of: records ops on leaves of the inputs' types, returns the values to read.
using Record = std::function<std::vector<ValueId>(Program&, const std::vector<ValueId>& inputs)>;

struct RanksResult {
  std::vector<std::vector<Block>> outputs;  ///< by output, then by rank
  std::vector<ValueType> types;             ///< of the outputs
  WorkCounters counters;                    ///< of rank 0
};

/// Records and runs a program on every rank of a mesh; `parts` are by input, then by rank.
RanksResult run_on_ranks(const std::array<int, 4>& sizes, const std::vector<OpInput>& inputs,
                         const std::vector<Placements>& places, const std::vector<std::vector<Block>>& parts,
                         const Record& record);

/// A program on one rank, recorded once and run on any numbers.
class OneRank {
 public:
  OneRank(const std::vector<OpInput>& inputs, const Record& record);
  RanksResult run(const std::vector<OpInput>& inputs);

 private:
  Program program_;
  std::vector<ValueId> leaves_, outputs_;
  std::unique_ptr<Device> device_;
  std::unique_ptr<Executor> executor_;
};
inline RanksResult run_on_one_rank(const std::vector<OpInput>& inputs, const Record& record) {
  return OneRank(inputs, record).run(inputs);
}

/// Records the one op of a case; composites are expanded into a ring over sequences laid out by `layout`.
Record record_op(const OpCase& op, RingLayout layout);

/// Every element within `tolerance` of the largest expected one, or of 1.
void expect_close(const Numbers& actual, const Numbers& expected, double tolerance, const std::string& what);

}  // namespace annulus::testing
