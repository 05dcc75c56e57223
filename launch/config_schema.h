#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

#include "launch/run_config.h"

namespace annulus {

using Json = nlohmann::ordered_json;

/// Which numbers a setting accepts.
struct Limits {
  double minimum = -std::numeric_limits<double>::infinity();
  double maximum = std::numeric_limits<double>::infinity();
  bool minimum_excluded = false;
  bool maximum_excluded = false;

  bool hold(double value) const;
  /// As in `at least 1`, `above 0`, `in [0, 1)`; empty where there are none.
  std::string str() const;
};
constexpr Limits at_least(double minimum) { return {.minimum = minimum}; }
constexpr Limits above(double minimum) { return {.minimum = minimum, .minimum_excluded = true}; }
constexpr Limits fraction_below_one() { return {.minimum = 0, .maximum = 1, .maximum_excluded = true}; }

template <class Enum>
using Choices = std::vector<std::pair<std::string, Enum>>;

/// One setting: how it is called, what it accepts, what it means, and where its value goes.
struct ConfigField {
  std::string path;    ///< as in `model.layers`
  std::string type;    ///< as the reference calls it
  std::string values;  ///< limits or choices; empty for any
  std::string unit;
  std::string doc;
  bool is_text = false;
  /// Stores a value. Returns what is wrong with it (as in `must be at least 1`), or nothing.
  std::function<std::string(RunConfig&, const Json&)> read;
  std::function<Json(const RunConfig&)> write;
};

struct ConfigSection {
  std::string path;
  std::string doc;
  std::vector<ConfigField> fields;
};

/// Every setting there is.
const std::vector<ConfigSection>& run_config_schema();

/// The setting of that path, or null.
const ConfigField* find_field(std::string_view path);
/// The path of the setting that was most likely meant, or nothing where none comes near.
std::string nearest_path(std::string_view path);

namespace config_values {

std::string read(const Json& json, const Limits& limits, std::int64_t& value);
std::string read(const Json& json, const Limits& limits, double& value);
std::string read(const Json& json, const Limits& limits, bool& value);
std::string read(const Json& json, const Limits& limits, std::string& value);
/// The index of the choice, or what is wrong.
std::string read_choice(const Json& json, const std::vector<std::string>& names, std::size_t& index);
Json write(std::int64_t value);
Json write(double value);
Json write(bool value);
Json write(const std::string& value);

template <class T>
constexpr std::string_view type_name() {
  if constexpr (std::is_same_v<T, std::int64_t>) return "integer";
  if constexpr (std::is_same_v<T, double>) return "number";
  if constexpr (std::is_same_v<T, bool>) return "true or false";
  if constexpr (std::is_same_v<T, std::string>) return "text";
}

}  // namespace config_values

/// Declares the fields of one section, whose struct `access` finds in a configuration (const or not).
template <class Access>
class SectionDeclaration {
 public:
  using Struct = std::remove_reference_t<std::invoke_result_t<Access, RunConfig&>>;

  SectionDeclaration(std::string path, std::string doc, Access access)
      : section_{std::move(path), std::move(doc), {}}, access_(access) {}

  ConfigSection section() const { return section_; }

  struct Text {
    std::string unit;
    std::string doc;
  };

  template <class T>
  void field(const std::string& name, T Struct::*member, Limits limits, Text text) {
    section_.fields.push_back(
        {.path = section_.path + "." + name,
         .type = std::string(config_values::type_name<T>()),
         .values = limits.str(),
         .unit = std::move(text.unit),
         .doc = std::move(text.doc),
         .is_text = std::is_same_v<T, std::string>,
         .read = [access = access_, member, limits](
                     RunConfig& config,
                     const Json& json) { return config_values::read(json, limits, access(config).*member); },
         .write = [access = access_,
                   member](const RunConfig& config) { return config_values::write(access(config).*member); }});
  }

  template <class Enum>
  void choice(const std::string& name, Enum Struct::*member, const Choices<Enum>& choices, Text text);

 private:
  ConfigSection section_;
  Access access_;
};

template <class Access>
template <class Enum>
void SectionDeclaration<Access>::choice(const std::string& name, Enum Struct::*member, const Choices<Enum>& choices,
                                        Text text) {
  std::vector<std::string> names;
  std::string values;
  for (const auto& [choice_name, value] : choices) {
    names.push_back(choice_name);
    values += (values.empty() ? "" : ", ") + choice_name;
  }
  const auto read = [access = access_, member, choices, names](RunConfig& config, const Json& json) {
    std::size_t index = 0;
    std::string problem = config_values::read_choice(json, names, index);
    if (problem.empty()) access(config).*member = choices[index].second;
    return problem;
  };
  const auto write = [access = access_, member, choices](const RunConfig& config) {
    for (const auto& [choice_name, value] : choices) {
      if (access(config).*member == value) return config_values::write(choice_name);
    }
    return config_values::write(std::string());
  };
  section_.fields.push_back({.path = section_.path + "." + name,
                             .type = "one of",
                             .values = values,
                             .unit = std::move(text.unit),
                             .doc = std::move(text.doc),
                             .is_text = true,
                             .read = read,
                             .write = write});
}

}  // namespace annulus
