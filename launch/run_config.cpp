#include "launch/run_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "launch/config_rules.h"
#include "launch/config_schema.h"
#include "runtime/core/error.h"

namespace annulus {
namespace {

using Problems = std::vector<std::string>;

/// `path=value`, the value cut short where it is long.
std::string shown(std::string_view path, const Json& value) {
  constexpr std::size_t kLongest = 60;
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return fmt::format("{}={}", path, text);
}

std::string unknown(std::string_view path) {
  const std::string nearest = nearest_path(path);
  if (nearest.empty()) return fmt::format("{} is no setting; docs/configuration.md lists them all", path);
  return fmt::format("{} is no setting; did you mean {}?", path, nearest);
}

bool is_section(std::string_view path) {
  for (const ConfigSection& section : run_config_schema()) {
    if (section.path == path || section.path.starts_with(std::string(path) + ".")) return true;
  }
  return false;
}

/// Parses the text; a key that stands twice in one group is a problem, since only one of its values could count.
Json parse(std::string_view text, std::string_view name, Problems& problems) {
  std::vector<std::set<std::string>> keys;
  const auto watch = [&](int, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) keys.emplace_back();
    if (event == Json::parse_event_t::object_end) keys.pop_back();
    if (event == Json::parse_event_t::key && !keys.back().insert(parsed.get<std::string>()).second) {
      problems.push_back(fmt::format("{}: {} stands twice in one group; remove one", name, parsed.get<std::string>()));
    }
    return true;
  };
  try {
    return Json::parse(text, watch, true, true);
  } catch (const Json::parse_error& error) {
    const std::string what = error.what();
    const std::size_t begin = what.find("parse error");
    throw ConfigError(fmt::format("{}: no valid JSON (comments are allowed): {}", name,
                                  what.substr(begin == std::string::npos ? 0 : begin)));
  }
}

/// The settings of a parsed file by path.
void flatten(const Json& group, const std::string& prefix, std::map<std::string, Json>& values, Problems& problems) {
  for (const auto& [key, value] : group.items()) {
    const std::string path = prefix + key;
    if (find_field(path) != nullptr) {
      values[path] = value;
    } else if (!is_section(path)) {
      problems.push_back(unknown(path));
    } else if (value.is_object()) {
      flatten(value, path + ".", values, problems);
    } else {
      problems.push_back(fmt::format("{} must be a group of settings, as in \"{}\": {{...}}", shown(path, value), key));
    }
  }
}

void override_with(const std::string& text, std::map<std::string, Json>& values, Problems& problems) {
  const std::size_t equals = text.find('=');
  if (equals == std::string::npos) {
    problems.push_back(fmt::format("--set {} has no value; write --set PATH=VALUE", text));
    return;
  }
  const std::string path = text.substr(0, equals), value = text.substr(equals + 1);
  const ConfigField* field = find_field(path);
  if (field == nullptr) {
    problems.push_back(is_section(path)
                           ? fmt::format("--set {}: {} is a group of settings; set one of them", text, path)
                           : "--set " + text + ": " + unknown(path));
    return;
  }
  Json parsed = Json::parse(value, nullptr, false);
  if (parsed.is_discarded() || (field->is_text && !parsed.is_string())) parsed = value;  // text needs no quotes
  values[path] = parsed;
}

std::string default_folder(std::string_view name) {
  return (std::filesystem::path("runs") / std::filesystem::path(name).stem()).string();
}

}  // namespace

RunConfig parse_run_config(std::string_view text, std::string_view name, std::span<const std::string> overrides,
                           std::int64_t ranks) {
  Problems problems;
  const Json root = parse(text, name, problems);
  if (!root.is_object()) throw ConfigError(fmt::format("{}: a configuration is an object, {{...}}", name));

  std::map<std::string, Json> values;
  flatten(root, "", values, problems);
  for (const std::string& one : overrides) override_with(one, values, problems);

  RunConfig config;
  std::set<std::string, std::less<>> unsound;
  for (const auto& [path, value] : values) {
    if (const std::string problem = find_field(path)->read(config, value); !problem.empty()) {
      problems.push_back(fmt::format("{} {}", shown(path, value), problem));
      unsound.insert(path);
    }
  }
  const ParallelConfig& mesh = config.parallel;
  if (ranks == kRanksOfMesh) ranks = mesh.tp * mesh.cp * std::max<std::int64_t>(mesh.dp, 1);
  derive(config, ranks);
  const auto is_sound = [&](std::string_view path) { return !unsound.contains(path); };
  for (std::string& problem : broken_rules(config, ranks, is_sound)) problems.push_back(std::move(problem));
  if (!problems.empty()) throw ConfigError(problems);
  if (config.output.folder.empty()) config.output.folder = default_folder(name);
  return config;
}

RunConfig read_run_config(const std::filesystem::path& file, std::span<const std::string> overrides,
                          std::int64_t ranks) {
  std::ifstream stream(file, std::ios::binary);
  std::ostringstream text;
  if (!std::filesystem::is_regular_file(file) || !stream || (stream.peek() != EOF && !(text << stream.rdbuf()))) {
    throw ConfigError(fmt::format("{}: cannot be read; give the path of a configuration file", file.string()));
  }
  return parse_run_config(text.str(), file.string(), overrides, ranks);
}

std::string to_json(const RunConfig& config) {
  Json root = Json::object();
  for (const ConfigSection& section : run_config_schema()) {
    for (const ConfigField& field : section.fields) {
      std::string pointer = "/" + field.path;
      for (char& c : pointer) c = c == '.' ? '/' : c;
      root[Json::json_pointer(pointer)] = field.write(config);
    }
  }
  return root.dump(2) + "\n";
}

}  // namespace annulus
