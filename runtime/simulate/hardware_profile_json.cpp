#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>

#include "runtime/core/error.h"
#include "runtime/simulate/hardware_profile.h"

namespace annulus {
namespace {

using Json = nlohmann::ordered_json;
using Points = std::vector<std::pair<double, double>>;

constexpr std::array kDTypes = {DType::f32, DType::f64, DType::bf16, DType::f16};

constexpr std::array kFields = {"version",
                                "name",
                                "host",
                                "device",
                                "peak",
                                "products",
                                "product_bandwidth",
                                "attention_forward",
                                "attention_backward",
                                "attention_forward_pair_seconds",
                                "attention_backward_pair_seconds",
                                "memory",
                                "kernels",
                                "after_bytes",
                                "after_seconds",
                                "far_seconds_per_byte",
                                "op_overhead_seconds",
                                "overlap",
                                "device_reserve_bytes",
                                "ranks_per_host",
                                "collectives"};

/// Reads fields of one object and keeps every problem, so that all are reported at once.
class Reader {
 public:
  Reader(const Json& object, std::string where, std::vector<std::string>& problems)
      : object_(object), where_(std::move(where)), problems_(problems) {}

  std::string string(const char* field) const {
    const Json* value = find(field);
    if (value == nullptr) return "";
    if (value->is_string()) return value->get<std::string>();
    problem(field, "must be a string");
    return "";
  }

  /// The value of an enumeration that the field names.
  template <class Values>
  std::optional<typename Values::value_type> one_of(const char* field, const Values& values) const {
    const std::string name = string(field);
    std::string names;
    for (const auto value : values) {
      if (name_of(value) == name) return value;
      names += (names.empty() ? "" : ", ") + std::string(name_of(value));
    }
    if (object_.contains(field)) problem(field, fmt::format("is '{}'; use one of {}", name, names));
    return std::nullopt;
  }

  double number(const char* field, double least, double most) const {
    const Json* value = find(field);
    if (value == nullptr) return least;
    if (value->is_number() && value->get<double>() >= least && value->get<double>() <= most)
      return value->get<double>();
    problem(field, fmt::format("is {}; use a number from {} to {}", value->dump(), least, most));
    return least;
  }

  /// An object of numbers by name.
  std::map<std::string, double> numbers(const char* field, double least, double most) const {
    std::map<std::string, double> found;
    const Json* value = object(field, "numbers");
    if (value == nullptr) return found;
    const Reader fields(*value, fmt::format("{}{}.", where_, field), problems_);
    for (const auto& entry : value->items()) found[entry.key()] = fields.number(entry.key().c_str(), least, most);
    return found;
  }

  template <class Curve>
  Curve curve(const char* field) const {
    const Json* value = find(field);
    return value == nullptr ? Curve() : curve_of<Curve>(*value, where_ + field);
  }

  /// An object of curves by name.
  std::map<std::string, RateCurve> curves(const char* field) const {
    std::map<std::string, RateCurve> found;
    const Json* value = object(field, "lists of [size, rate]");
    if (value == nullptr) return found;
    for (const auto& [key, points] : value->items()) {
      found[key] = curve_of<RateCurve>(points, fmt::format("{}{}.{}", where_, field, key));
    }
    return found;
  }

  std::map<DType, RateCurve> curves_by_dtype(const char* field) const {
    std::map<DType, RateCurve> found;
    if (!object_.contains(field)) return find(field), found;
    for (auto& [key, curve] : curves(field)) {
      std::optional<DType> dtype;
      for (const DType candidate : kDTypes) {
        if (name_of(candidate) == key) dtype = candidate;
      }
      if (dtype) {
        found[*dtype] = std::move(curve);
      } else {
        problem(field, fmt::format("has the unknown type '{}'; use f32, f64, bf16, f16", key));
      }
    }
    if (!found.contains(DType::f32)) problem(field, "lacks f32");
    return found;
  }

  /// Null, and a problem, where the field is none.
  const Json* object(const char* field, const char* of) const {
    const Json* value = find(field);
    if (value == nullptr || value->is_object()) return value;
    problem(field, fmt::format("must be an object of {}", of));
    return nullptr;
  }
  const Json* find(const char* field) const {
    if (const auto found = object_.find(field); found != object_.end()) return &*found;
    problem(field, "is missing");
    return nullptr;
  }

  void problem(const std::string& field, const std::string& what) const {
    problems_.push_back(fmt::format("{}{} {}", where_, field, what));
  }

 private:
  template <class Curve>
  Curve curve_of(const Json& value, const std::string& name) const {
    try {
      return Curve(value.get<Points>(), name);
    } catch (const nlohmann::json::exception&) {
      problems_.push_back(name + " must be a list of pairs of numbers");
    } catch (const ConfigError& error) {
      problems_.push_back(error.what());
    }
    return Curve();
  }

  const Json& object_;
  std::string where_;
  std::vector<std::string>& problems_;
};

void read_collectives(const Reader& reader, const std::string& source, HardwareProfile& profile,
                      std::vector<std::string>& problems) {
  const Json* list = reader.find("collectives");
  if (list == nullptr) return;
  if (!list->is_array()) return reader.problem("collectives", "must be a list");
  for (std::size_t i = 0; i < list->size(); ++i) {
    const Json& entry = (*list)[i];
    const std::string where = fmt::format("{}: collectives[{}].", source, i);
    if (!entry.is_object()) {
      problems.push_back(where + " must be an object of kind, ranks and seconds");
      continue;
    }
    const Reader fields(entry, where, problems);
    const int ranks = static_cast<int>(fields.number("ranks", 2, 1 << 24));
    const int hosts = static_cast<int>(fields.number("hosts", 1, 1 << 24));
    auto curve = fields.curve<TransferCurve>("seconds");
    const auto kind = fields.one_of("kind", kCollectiveKinds);
    const auto transport = fields.one_of("transport", kTransports);
    const auto operands = fields.one_of("operands", kOperands);
    if (!kind || !transport || !operands) continue;
    if (!profile.collectives.try_emplace({*kind, ranks, hosts, *transport, *operands}, std::move(curve)).second)
      fields.problem("kind", fmt::format("{} over {} ranks on {} hosts by {}, {}, is there twice", name_of(*kind),
                                         ranks, hosts, name_of(*transport), name_of(*operands)));
  }
}

constexpr double kMostSeconds = 1e6;

void read_overlap(const Reader& reader, const std::string& source, HardwareProfile& profile,
                  std::vector<std::string>& problems) {
  const Json* list = reader.find("overlap");
  if (list == nullptr) return;
  if (!list->is_array()) return reader.problem("overlap", "must be a list");
  for (std::size_t i = 0; i < list->size(); ++i) {
    const Json& entry = (*list)[i];
    const std::string where = fmt::format("{}: overlap[{}].", source, i);
    if (!entry.is_object()) {
      problems.push_back(where + " must be an object of alone_seconds, beside_seconds and lost_seconds");
      continue;
    }
    const Reader fields(entry, where, problems);
    const double least = profile.overlap.empty() ? 0 : profile.overlap.back().alone_seconds;
    const double alone = fields.number("alone_seconds", std::nextafter(least, kMostSeconds), kMostSeconds);
    profile.overlap.push_back(
        {alone, fields.number("beside_seconds", alone, kMostSeconds), fields.number("lost_seconds", 0, kMostSeconds)});
  }
}

Json parse_object(const std::string& text, const std::string& source) {
  try {
    Json object = Json::parse(text, nullptr, true, /*ignore_comments=*/true);
    if (object.is_object()) return object;
  } catch (const nlohmann::json::exception& error) {
    throw ConfigError(fmt::format("{} is no JSON: {}", source, error.what()));
  }
  throw ConfigError(fmt::format("{} is no hardware profile: its JSON is no object", source));
}

Json json_of(const std::map<std::string, RateCurve>& curves) {
  Json object = Json::object();
  for (const auto& [kind, curve] : curves) object[kind] = curve.points();
  return object;
}

Json json_of(const std::map<DType, RateCurve>& curves) {
  Json object = Json::object();
  for (const auto& [dtype, curve] : curves) object[std::string(name_of(dtype))] = curve.points();
  return object;
}

}  // namespace

std::string to_json(const HardwareProfile& profile) {
  Json json;
  json["version"] = HardwareProfile::kVersion;
  json["name"] = profile.name;
  json["host"] = profile.host;
  json["device"] = profile.device;
  json["peak"] = {{"name", profile.peak_name}, {"flops_per_second", profile.peak_flops_per_second}};
  json["products"] = json_of(profile.products);
  json["product_bandwidth"] = profile.product_bandwidth;
  json["attention_forward"] = json_of(profile.attention_forward);
  json["attention_backward"] = json_of(profile.attention_backward);
  json["attention_forward_pair_seconds"] = profile.attention_forward_pair_seconds;
  json["attention_backward_pair_seconds"] = profile.attention_backward_pair_seconds;
  json["memory"] = profile.memory.points();
  json["kernels"] = json_of(profile.kernels);
  json["after_bytes"] = profile.after_bytes.points();
  json["after_seconds"] = profile.after_seconds.points();
  json["far_seconds_per_byte"] = profile.far_seconds_per_byte;
  json["op_overhead_seconds"] = profile.op_overhead_seconds;
  json["overlap"] = Json::array();
  for (const OverlapCost& cost : profile.overlap)
    json["overlap"].push_back({{"alone_seconds", cost.alone_seconds},
                               {"beside_seconds", cost.beside_seconds},
                               {"lost_seconds", cost.lost_seconds}});
  if (profile.device_reserve_bytes > 0) json["device_reserve_bytes"] = profile.device_reserve_bytes;
  json["ranks_per_host"] = profile.ranks_per_host;
  json["collectives"] = Json::array();
  for (const auto& [key, curve] : profile.collectives) {
    json["collectives"].push_back({{"kind", name_of(key.kind)},
                                   {"ranks", key.ranks},
                                   {"hosts", key.hosts},
                                   {"transport", name_of(key.transport)},
                                   {"operands", name_of(key.operands)},
                                   {"seconds", curve.points()}});
  }
  return json.dump(1) + "\n";
}

HardwareProfile parse_hardware_profile(const std::string& text, const std::string& source) {
  const Json json = parse_object(text, source);
  std::vector<std::string> problems;
  const Reader reader(json, source + ": ", problems);
  for (const auto& [key, value] : json.items()) {
    if (std::find(kFields.begin(), kFields.end(), key) == kFields.end())
      reader.problem(key, "is no field of a profile");
  }
  const double version = reader.number("version", 1, 1 << 24);
  if (version != HardwareProfile::kVersion) {
    throw ConfigError(fmt::format("{}: version {} cannot be read, only {}; run annulus calibrate again", source,
                                  version, HardwareProfile::kVersion));
  }
  constexpr double kMost = 1e30;
  constexpr double kLeastRate = 1;  // FLOP/s
  HardwareProfile profile;
  profile.name = reader.string("name");
  profile.host = reader.string("host");
  profile.device = reader.string("device");
  if (const Json* peak = reader.find("peak"); peak != nullptr && peak->is_object()) {
    const Reader fields(*peak, source + ": peak.", problems);
    profile.peak_name = fields.string("name");
    profile.peak_flops_per_second = fields.number("flops_per_second", kLeastRate, kMost);
  } else if (peak != nullptr) {
    reader.problem("peak", "must be an object of name and flops_per_second");
  }
  profile.products = reader.curves_by_dtype("products");
  profile.product_bandwidth = reader.number("product_bandwidth", 0, kMost);
  profile.attention_forward = reader.curves_by_dtype("attention_forward");
  profile.attention_backward = reader.curves_by_dtype("attention_backward");
  profile.attention_forward_pair_seconds = reader.number("attention_forward_pair_seconds", 0, 1);
  profile.attention_backward_pair_seconds = reader.number("attention_backward_pair_seconds", 0, 1);
  profile.memory = reader.curve<RateCurve>("memory");
  profile.kernels = reader.curves("kernels");
  profile.after_bytes = reader.curve<RateCurve>("after_bytes");
  profile.after_seconds = reader.curve<RateCurve>("after_seconds");
  profile.far_seconds_per_byte = reader.numbers("far_seconds_per_byte", 0, 1);
  profile.op_overhead_seconds = reader.number("op_overhead_seconds", 0, 1);
  read_overlap(reader, source, profile, problems);
  if (json.contains("device_reserve_bytes"))
    profile.device_reserve_bytes = static_cast<std::int64_t>(reader.number("device_reserve_bytes", 0, 1e15));
  profile.ranks_per_host = static_cast<int>(reader.number("ranks_per_host", 0, 1 << 24));
  read_collectives(reader, source, profile, problems);
  if (!problems.empty()) throw ConfigError(problems);
  return profile;
}

HardwareProfile load_hardware_profile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    throw ConfigError(fmt::format("hardware profile {} cannot be read; run annulus calibrate to make one", path));
  }
  return parse_hardware_profile(text.str(), path);
}

void save_hardware_profile(const HardwareProfile& profile, const std::string& path) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  if (!(file << to_json(profile)) || !file.flush()) {
    throw ConfigError(fmt::format("hardware profile {} cannot be written; name a folder that can be", path));
  }
}

}  // namespace annulus
