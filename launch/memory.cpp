#include "launch/memory.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <map>
#include <utility>

#include "runtime/core/host_memory.h"

namespace annulus {
namespace {

constexpr double kMega = 1e6;
constexpr double gib(std::int64_t bytes) { return static_cast<double>(bytes) / (1 << 30); }

const char* category_of(Role role) {
  switch (role) {
    case Role::parameter:
      return "weights";
    case Role::state:
      return "gradients and optimizer";
    case Role::input:
      return "inputs";
    default:
      return nullptr;
  }
}

std::string table_line(const std::string& what, std::int64_t bytes, const char* remark = "") {
  return fmt::format("  {:<28} {:>14.2f} MB{}\n", what, static_cast<double>(bytes) / kMega, remark);
}

std::string table_of(const Program& program, const MemoryPlan& plan) {
  std::map<std::string, std::int64_t> persistent;
  for (const Value& value : program.values()) {
    if (const char* category = category_of(value.role)) persistent[category] += value.type.bytes();
  }
  std::string table;
  for (const auto& [category, bytes] : persistent) table += table_line(category, bytes);
  table += table_line("activations", plan.activation_bytes, " (largest at one time)");
  table += table_line("workspace", plan.workspace_bytes);
  return table;
}

}  // namespace

MemoryNeed memory_need_of(const Program& program, const std::vector<Parameter>& parameters, const MemoryPlan& plan) {
  MemoryNeed need{.arena_bytes = plan.arena_bytes, .table = table_of(program, plan)};
  for (const Parameter& parameter : parameters) {
    const std::int64_t elements = std::max(parameter.shape.elements(), program.type(parameter.value).shape.elements());
    need.host_bytes = std::max(need.host_bytes, 2 * elements * static_cast<std::int64_t>(sizeof(double)));
  }
  return need;
}

MemoryPlan memory_plan_of(const Program& program, Device& device) {
  return plan_memory(program, make_schedule(program), workspace_of(device));
}

MemoryNeed memory_need_of(const Program& program, const std::vector<Parameter>& parameters, Device& device) {
  return memory_need_of(program, parameters, memory_plan_of(program, device));
}

void add_evaluation(MemoryNeed& need, std::int64_t arena_bytes) {
  need.evaluation_bytes = arena_bytes;
  need.table += table_line("evaluation", arena_bytes, " (an arena of its own, from the start)");
}

std::string memory_problem(const GpuRoom& room, const std::string& table) {
  const std::int64_t reserve = room.ranks * room.reserve_bytes;
  if (room.need_bytes + reserve <= room.free_bytes) return "";
  return fmt::format(
      "the step needs {:.2f} GiB of {}{}: of its {:.2f} GiB {:.2f} are free, less {:.2f} in reserve for NCCL and "
      "kernels; lower batch.micro_sequences or batch.sequence_length, use more ranks with a larger tp or cp, or end "
      "what else uses the GPU. A rank's arena:\n{}",
      gib(room.need_bytes), room.gpu, room.ranks > 1 ? fmt::format(" for {} ranks", room.ranks) : "",
      gib(room.total_bytes), gib(room.free_bytes), gib(reserve), table.substr(0, table.size() - 1));
}

void check_host_memory(Process& process, std::int64_t bytes) {
  const std::vector<std::int64_t> all = process.gather(bytes);
  const std::string& host = process.hosts()[static_cast<std::size_t>(process.rank())];
  std::int64_t together = 0;
  for (std::size_t rank = 0; rank < all.size(); ++rank) {
    if (process.hosts()[rank] == host) together += all[rank];
  }
  process.agree([&] {
    const std::int64_t available = available_memory_bytes();
    if (together <= available) return;
    throw ConfigError(fmt::format(
        "the step needs {:.2f} GiB of {}, of which {:.2f} GiB are available ({} ranks there, {:.2f} GiB each); "
        "lower batch.micro_sequences or batch.sequence_length, or use more hosts with a larger tp or cp",
        gib(together), host, gib(available), process.local_size(), gib(bytes)));
  });
}

std::int64_t parse_bytes(std::string_view text, std::string_view option) {
  static constexpr std::array<std::pair<std::string_view, double>, 10> kUnits = {{{"", 1},
                                                                                  {"B", 1},
                                                                                  {"kB", 1e3},
                                                                                  {"MB", 1e6},
                                                                                  {"GB", 1e9},
                                                                                  {"TB", 1e12},
                                                                                  {"KiB", 0x1p10},
                                                                                  {"MiB", 0x1p20},
                                                                                  {"GiB", 0x1p30},
                                                                                  {"TiB", 0x1p40}}};
  const std::string whole(text);
  char* end = nullptr;
  const double number = std::strtod(whole.c_str(), &end);
  const std::size_t space = whole.find_first_not_of(' ', static_cast<std::size_t>(end - whole.c_str()));
  const std::string_view unit = space == std::string::npos ? "" : std::string_view(whole).substr(space);
  const auto known = std::find_if(kUnits.begin(), kUnits.end(), [&](const auto& one) { return one.first == unit; });
  if (end != whole.c_str() && known != kUnits.end() && number > 0 && number * known->second < 0x1p62)
    return static_cast<std::int64_t>(number * known->second);
  throw ConfigError(fmt::format("{}={} is no size; write it as in 80GiB, 80GB or 85899345920", option, text));
}

}  // namespace annulus
