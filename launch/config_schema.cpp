#include "launch/config_schema.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

namespace annulus {
namespace {

/// Changes of one character (or swaps of two neighbours) that make one text of the other.
std::size_t edit_distance(std::string_view one, std::string_view other) {
  std::vector<std::vector<std::size_t>> table(one.size() + 1, std::vector<std::size_t>(other.size() + 1));
  for (std::size_t i = 0; i <= one.size(); ++i) table[i][0] = i;
  std::iota(table[0].begin(), table[0].end(), std::size_t{0});
  for (std::size_t i = 1; i <= one.size(); ++i) {
    for (std::size_t j = 1; j <= other.size(); ++j) {
      const std::size_t replaced = table[i - 1][j - 1] + (one[i - 1] != other[j - 1]);
      table[i][j] = std::min({table[i - 1][j] + 1, table[i][j - 1] + 1, replaced});
      if (i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1]) {
        table[i][j] = std::min(table[i][j], table[i - 2][j - 2] + 1);
      }
    }
  }
  return table[one.size()][other.size()];
}

std::string_view leaf(std::string_view path) {
  const std::size_t dot = path.rfind('.');
  return dot == std::string_view::npos ? path : path.substr(dot + 1);
}

std::string check(const Limits& limits, double value) {
  return limits.hold(value) ? "" : fmt::format("is out of range; it must be {}", limits.str());
}

std::string type_problem(const Json& json, std::string_view wanted) {
  std::string_view is = json.type_name();
  if (json.is_string()) is = "text";
  if (json.is_number()) is = "a number";
  if (json.is_boolean()) is = "true or false";
  if (json.is_array()) is = "a list";
  if (json.is_object()) is = "a group of settings";
  if (json.is_number_float()) is = "not whole";
  return fmt::format("is {}; it must be {}", is, wanted);
}

}  // namespace

bool Limits::hold(double value) const {
  return std::isfinite(value) && (minimum_excluded ? value > minimum : value >= minimum) &&
         (maximum_excluded ? value < maximum : value <= maximum);
}

std::string Limits::str() const {
  const bool bounded_below = std::isfinite(minimum);
  if (bounded_below && std::isfinite(maximum)) {
    return fmt::format("in {}{}, {}{}", minimum_excluded ? '(' : '[', minimum, maximum, maximum_excluded ? ')' : ']');
  }
  if (bounded_below) return fmt::format("{} {}", minimum_excluded ? "above" : "at least", minimum);
  if (std::isfinite(maximum)) return fmt::format("{} {}", maximum_excluded ? "below" : "at most", maximum);
  return "";
}

const ConfigField* find_field(std::string_view path) {
  for (const ConfigSection& section : run_config_schema()) {
    for (const ConfigField& field : section.fields) {
      if (field.path == path) return &field;
    }
  }
  return nullptr;
}

std::string nearest_path(std::string_view path) {
  std::string nearest;
  std::size_t least = std::max<std::size_t>(2, leaf(path).size() / 2) + 1;
  for (const ConfigSection& section : run_config_schema()) {
    for (const ConfigField& field : section.fields) {
      // The right name in the wrong section comes nearer than any misspelling but one of a single character.
      const std::size_t elsewhere = 2 + edit_distance(leaf(path), leaf(field.path));
      const std::size_t distance = std::min(edit_distance(path, field.path), elsewhere);
      if (distance < least) {
        least = distance;
        nearest = field.path;
      }
    }
  }
  return nearest;
}

namespace config_values {

std::string read(const Json& json, const Limits& limits, std::int64_t& value) {
  if (!json.is_number_integer()) return type_problem(json, "an integer");
  if (json.is_number_unsigned() && json.get<std::uint64_t>() > std::numeric_limits<std::int64_t>::max()) {
    return "is too large for 64 bits";
  }
  value = json.get<std::int64_t>();
  return check(limits, static_cast<double>(value));
}

std::string read(const Json& json, const Limits& limits, double& value) {
  if (!json.is_number()) return type_problem(json, "a number");
  value = json.get<double>();
  return check(limits, value);
}

std::string read(const Json& json, const Limits&, bool& value) {
  if (!json.is_boolean()) return type_problem(json, "true or false");
  value = json.get<bool>();
  return "";
}

std::string read(const Json& json, const Limits&, std::string& value) {
  if (!json.is_string()) return type_problem(json, "text");
  value = json.get<std::string>();
  return "";
}

std::string read_choice(const Json& json, const std::vector<std::string>& names, std::size_t& index) {
  if (!json.is_string()) return type_problem(json, fmt::format("one of {}", fmt::join(names, ", ")));
  const auto found = std::find(names.begin(), names.end(), json.get<std::string>());
  if (found == names.end()) return fmt::format("is not known; it must be one of {}", fmt::join(names, ", "));
  index = static_cast<std::size_t>(found - names.begin());
  return "";
}

Json write(std::int64_t value) { return value; }
Json write(double value) { return value; }
Json write(bool value) { return value; }
Json write(const std::string& value) { return value; }

}  // namespace config_values
}  // namespace annulus
