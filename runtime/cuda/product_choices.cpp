#include "runtime/cuda/product_choices.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>

namespace annulus {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::pair<const char*, std::int32_t ProductAlgorithm::*> kFields[] = {
    {"id", &ProductAlgorithm::id},
    {"tile", &ProductAlgorithm::tile},
    {"stages", &ProductAlgorithm::stages},
    {"splits", &ProductAlgorithm::splits},
    {"reduction", &ProductAlgorithm::reduction},
};

bool splits_sums(const ProductAlgorithm& algorithm) { return algorithm.splits > 1 || algorithm.reduction != 0; }

/// The best of the library's suggestions with this much of the epilogue.
std::optional<ProductChoice> best(ProductTrials& trials, const ProductShape& shape, std::size_t which,
                                  const ProductEpilogue& done, Determinism determinism) {
  std::optional<ProductChoice> chosen;
  for (const ProductAlgorithm& algorithm : trials.suggestions(shape, done, kSuggestedAlgorithms)) {
    if (determinism == Determinism::bitwise) {
      if (!splits_sums(algorithm)) return ProductChoice{which, algorithm, 0};
      continue;
    }
    const std::optional<double> seconds = trials.seconds(shape, done, algorithm);
    if (seconds && (!chosen || *seconds < chosen->seconds)) chosen = {which, algorithm, *seconds};
  }
  return chosen;
}

ProductChoice choose(ProductTrials& trials, const ProductShape& shape, Determinism determinism) {
  const std::vector<ProductEpilogue> epilogues = library_epilogues(shape);
  for (std::size_t which = 0; which < epilogues.size(); ++which) {
    if (const auto choice = best(trials, shape, which, epilogues[which], determinism)) return *choice;
  }
  return {};
}

constexpr const char* kChooseAnew = "take this table out of the configuration, to choose anew";

}  // namespace

ProductTable choose_products(ProductTrials& trials, const std::vector<ProductShape>& shapes, Determinism determinism,
                             ProductTable known) {
  known.machine = trials.machine();
  for (const ProductShape& shape : shapes)
    if (!known.choices.contains(shape.str())) known.choices[shape.str()] = choose(trials, shape, determinism);
  return known;
}

void require_fits(const ProductTable& table, const std::string& machine, const std::vector<ProductShape>& shapes,
                  Determinism determinism, const std::string& where) {
  if (table.machine != machine) {
    throw ConfigError(fmt::format("{}: the products' algorithms were chosen on '{}', and this is '{}'; {}", where,
                                  table.machine, machine, kChooseAnew));
  }
  for (const ProductShape& shape : shapes) {
    const auto found = table.choices.find(shape.str());
    if (found == table.choices.end())
      throw ConfigError(
          fmt::format("{}: no algorithm was chosen for the product {}; {}", where, shape.str(), kChooseAnew));
    const std::size_t epilogues = library_epilogues(shape).size();
    if (found->second.epilogue >= epilogues) {
      throw ConfigError(fmt::format("{}: the product {} has {} forms, and number {} was chosen; {}", where, shape.str(),
                                    epilogues, found->second.epilogue, kChooseAnew));
    }
    const std::optional<ProductAlgorithm>& algorithm = found->second.algorithm;
    if (determinism == Determinism::bitwise && algorithm && splits_sums(*algorithm)) {
      throw ConfigError(fmt::format(
          "{}: the algorithm of the product {} splits its sum, which device.deterministic=true excludes; {}", where,
          shape.str(), kChooseAnew));
    }
  }
}

std::string to_json(const ProductTable& table) {
  Json products = Json::object();
  for (const auto& [shape, choice] : table.choices) {
    Json algorithm;
    if (choice.algorithm) {
      for (const auto& [name, field] : kFields) algorithm[name] = *choice.algorithm.*field;
      algorithm["words"] = choice.algorithm->words;
    }
    products[shape] = {{"epilogue", choice.epilogue}, {"algorithm", algorithm}, {"seconds", choice.seconds}};
  }
  return Json{{"machine", table.machine}, {"products", products}}.dump(1) + "\n";
}

ProductTable parse_product_table(const std::string& text, const std::string& where) {
  try {
    const Json json = Json::parse(text);
    ProductTable table{json.at("machine").get<std::string>(), {}};
    for (const auto& [shape, entry] : json.at("products").items()) {
      ProductChoice& choice = table.choices[shape];
      choice.epilogue = entry.at("epilogue").get<std::size_t>();
      choice.seconds = entry.at("seconds").get<double>();
      const Json& algorithm = entry.at("algorithm");
      if (algorithm.is_null()) continue;
      choice.algorithm.emplace();
      for (const auto& [name, field] : kFields) *choice.algorithm.*field = algorithm.at(name).get<std::int32_t>();
      algorithm.at("words").get_to(choice.algorithm->words);
    }
    return table;
  } catch (const Json::exception& error) {
    throw ConfigError(fmt::format("{}: no table of products' algorithms: {}; {}", where, error.what(), kChooseAnew));
  }
}

std::string describe(const ProductTable& table) {
  std::string lines = fmt::format("products on {}:\n", table.machine);
  for (const auto& [shape, choice] : table.choices) {
    if (!choice.algorithm) {
      lines += fmt::format("  {}: as the library suggests, not measured\n", shape);
      continue;
    }
    const ProductAlgorithm& algorithm = *choice.algorithm;
    const std::string measured =
        choice.seconds > 0 ? fmt::format(", {:.1f} us", choice.seconds * 1e6) : std::string(", not measured");
    lines += fmt::format("  {}: algorithm {}, tile {}, stages {}, splits {}{}\n", shape, algorithm.id, algorithm.tile,
                         algorithm.stages, algorithm.splits, measured);
  }
  return lines;
}

}  // namespace annulus
