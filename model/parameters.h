#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "parallel/linear.h"

namespace annulus {

/// How a parameter begins.
struct Initializer {
  enum class Kind : std::uint8_t { zeros, ones, normal } kind = Kind::zeros;
  double std = 0;
};

enum class WeightDecay : std::uint8_t { off, on };

/// Where the f32 master of a weight that is a half lies.
struct Master {
  ValueId value = kNoValue;  ///< none: the weight is its own master
  AxisSet axes;              ///< over whose ranks it is divided, as a part of a bucket; empty: this rank has all of it
  std::int64_t begin = 0;    ///< of the weight in that bucket, in elements
};

/// A trained weight. Initial values, files and norms use `shape`, the whole and unpadded one; the program's value may
/// have more rows (`padded_rows`), which stay zero.
struct Parameter {
  std::string name;
  ValueId value = kNoValue;
  Shape shape;
  std::int64_t padded_rows = 0;
  Initializer initializer;
  WeightDecay decay = WeightDecay::off;
  Master master = {};
};

/// The parameters of a model, in the order in which its code first asked for them.
class ParameterTable {
 public:
  ParameterTable(Program& program, DType dtype) : program_(program), dtype_(dtype) {}

  struct Options {
    Placements places{};
    Initializer initializer;
    std::int64_t padded_rows = 0;  ///< 0: as many as the shape has
    WeightDecay decay = WeightDecay::off;
  };
  /// The weight `name` below the program's scope; declared by the first call.
  ValueId get(const std::string& name, const Shape& shape, const Options& options);

  const std::vector<Parameter>& all() const { return parameters_; }
  DType dtype() const { return dtype_; }

 private:
  Program& program_;
  DType dtype_;
  std::vector<Parameter> parameters_;
};

/// This rank's shard of a parameter's initial value, as f64: a function of seed, name and global index alone. Given
/// piece by piece, `first` being the index of a piece's first element in the shard, so that there is no second copy of
/// it.
using InitialPiece = std::function<void(std::int64_t first, std::span<const double> values)>;
void initial_values(const MeshAxes& mesh, const Parameter& parameter, const ValueType& type, std::uint64_t seed,
                    const InitialPiece& give);

/// Copies this rank's shard of `whole` (the unpadded, whole value, elements of `element_bytes`) into `local`; rows of
/// padding become zero. And the other way round: `count` elements of the shard, from its element `first` on, to their
/// places in `whole`.
void take_shard(const MeshAxes& mesh, const Parameter& parameter, const ValueType& type, const std::byte* whole,
                std::byte* local);
void put_shard(const MeshAxes& mesh, const Parameter& parameter, const ValueType& type, const std::byte* local,
               std::int64_t first, std::int64_t count, std::byte* whole);

}  // namespace annulus
