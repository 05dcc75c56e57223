#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/cuda/determinism.h"
#include "runtime/cuda/product_shape.h"

namespace annulus {

/// An algorithm of cuBLASLt, as its configuration describes it: enough to make it again in another process.
struct ProductAlgorithm {
  std::int32_t id = 0, tile = 0, stages = 0, splits = 1, reduction = 0, swizzle = 0, custom = 0, inner_shape = 0,
               cluster_shape = 0;
  bool operator==(const ProductAlgorithm&) const = default;
};

/// What was chosen for one product.
struct ProductChoice {
  std::size_t epilogue = 0;  ///< which of `library_epilogues` the library does
  /// Nothing: none of the library's suggestions is of use, and its first is taken, whose description tells too little.
  std::optional<ProductAlgorithm> algorithm;
  double seconds = 0;  ///< as measured; 0 where nothing was
  bool operator==(const ProductChoice&) const = default;
};

/// The choices of a run, by `ProductShape::str`. They hold for one machine: a kind of GPU and a version of the library.
struct ProductTable {
  std::string machine;
  std::map<std::string, ProductChoice> choices;
  bool operator==(const ProductTable&) const = default;
};

/// A library of products on a device.
class ProductTrials {
 public:
  virtual ~ProductTrials() = default;
  /// GPU and version of the library.
  virtual std::string machine() const = 0;
  /// Of the library's first `most` suggestions where it does `done` of the epilogue those that can be made again from
  /// their description, the best first by its own estimate; empty where it does not do that.
  virtual std::vector<ProductAlgorithm> suggestions(const ProductShape& shape, const ProductEpilogue& done,
                                                    int most) = 0;
  /// Measured on the device, operands not in its cache; nothing where the library refuses to run it.
  virtual std::optional<double> seconds(const ProductShape& shape, const ProductEpilogue& done,
                                        const ProductAlgorithm& algorithm) = 0;
};

inline constexpr int kSuggestedAlgorithms = 8;

/// Chooses for each shape: the fastest of the library's suggestions; where results must be the same bits again, the
/// first that does not split the sum over k, unmeasured. Of epilogues the fullest that the library does.
ProductTable choose_products(ProductTrials& trials, const std::vector<ProductShape>& shapes, Determinism determinism);

/// Throws ConfigError, with `where` the table stands, where it is of another machine, lacks one of the shapes, or
/// splits a sum that must be the same bits again.
void require_fits(const ProductTable& table, const std::string& machine, const std::vector<ProductShape>& shapes,
                  Determinism determinism, const std::string& where);

/// JSON, and back. Throws ConfigError, with `where` the text stands, for what is no such table.
std::string to_json(const ProductTable& table);
ProductTable parse_product_table(const std::string& text, const std::string& where);

/// A line for each choice, to print.
std::string describe(const ProductTable& table);

}  // namespace annulus
