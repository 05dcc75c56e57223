#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/cuda/determinism.h"
#include "runtime/cuda/product_shape.h"

namespace annulus {

/// An algorithm of cuBLASLt.
struct ProductAlgorithm {
  std::array<std::uint64_t, 8> words{};  ///< the library's own description, good for the same version of it
  std::int32_t id = 0, tile = 0, stages = 0, splits = 1, reduction = 0;  ///< what it tells of it
  bool operator==(const ProductAlgorithm&) const = default;
};

/// What was chosen for one product.
struct ProductChoice {
  std::size_t epilogue = 0;  ///< which of `library_epilogues` the library does
  /// Nothing: none of the library's suggestions is of use, and its first is taken.
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
  /// The library's first `most` suggestions where it does `done` of the epilogue, the best first by its own estimate;
  /// empty where it does not do that.
  virtual std::vector<ProductAlgorithm> suggestions(const ProductShape& shape, const ProductEpilogue& done,
                                                    int most) = 0;
  /// Measured on the device, operands not in its cache; nothing where the library refuses to run it.
  virtual std::optional<double> seconds(const ProductShape& shape, const ProductEpilogue& done,
                                        const ProductAlgorithm& algorithm) = 0;
};

inline constexpr int kSuggestedAlgorithms = 8;

/// `known`, and what it lacks of these shapes chosen: the fastest of the library's suggestions; where results must be
/// the same bits again, the first that does not split the sum over k, unmeasured. Of epilogues the fullest that the
/// library does.
ProductTable choose_products(ProductTrials& trials, const std::vector<ProductShape>& shapes, Determinism determinism,
                             ProductTable known = {});

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
