#include "runtime/program/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <span>

#include "runtime/core/error.h"

namespace annulus {
namespace {

std::int64_t aligned(std::int64_t bytes) {
  return (bytes + MemoryPlan::kAlignment - 1) / MemoryPlan::kAlignment * MemoryPlan::kAlignment;
}

class Planner {
 public:
  Planner(const Program& program, const Schedule& schedule) : program_(program), schedule_(schedule) {}

  MemoryPlan run(const WorkspaceQuery& workspace) {
    make_buffers();
    find_lives();
    place_persistent();
    place_activations();
    plan_.workspace_offset = aligned(plan_.persistent_bytes) + aligned(plan_.activation_bytes);
    for (int i = 0; i < program_.op_count(); ++i) query_workspace(program_.op(i), workspace);
    plan_.arena_bytes = plan_.workspace_offset + aligned(plan_.workspace_bytes);
    find_freed();
    return std::move(plan_);
  }

 private:
  static constexpr int kNone = -1;

  /// One buffer per storage; storages that an op wants side by side are joined in its order.
  void make_buffers() {
    const std::vector<int> storage = storage_of_values(program_);
    const std::size_t count = program_.values().size();
    std::vector<bool> used(count, false);
    for (const Op& op : program_.ops()) {
      for (ValueId id : op.inputs) used[static_cast<std::size_t>(id)] = true;
      for (ValueId id : op.outputs) used[static_cast<std::size_t>(id)] = true;
    }
    buffer_of_storage_.assign(count, kNone);
    offset_in_buffer_.assign(count, 0);
    for (const Op& op : program_.ops())
      if (op.definition->contiguous_inputs() > 1) join(op, storage);
    find_offsets_in_storage();
    buffer_of_.assign(count, kNone);
    for (std::size_t id = 0; id < count; ++id) {
      if (!used[id]) continue;
      const auto root = static_cast<std::size_t>(storage[id]);
      if (buffer_of_storage_[root] == kNone) add_to(new_buffer(), static_cast<ValueId>(root));
      buffer_of_[id] = buffer_of_storage_[root];
      plan_.buffers[static_cast<std::size_t>(buffer_of_[id])].values.push_back(static_cast<ValueId>(id));
    }
    roots_ = storage;
  }

  int new_buffer() {
    plan_.buffers.emplace_back();
    return static_cast<int>(plan_.buffers.size()) - 1;
  }

  void add_to(int buffer, ValueId root) {
    Buffer& to = plan_.buffers[static_cast<std::size_t>(buffer)];
    buffer_of_storage_[static_cast<std::size_t>(root)] = buffer;
    offset_in_buffer_[static_cast<std::size_t>(root)] = to.bytes;
    to.bytes += program_.type(root).bytes();
    to.persistent = to.persistent || program_.value(root).role != Role::activation;
  }

  void join(const Op& op, const std::vector<int>& storage) {
    const int known =
        buffer_of_storage_[static_cast<std::size_t>(storage[static_cast<std::size_t>(op.inputs.front())])];
    const int buffer = known == kNone ? new_buffer() : known;
    for (ValueId input : std::span(op.inputs).first(op.definition->contiguous_inputs())) {
      const int root = storage[static_cast<std::size_t>(input)];
      const int found = buffer_of_storage_[static_cast<std::size_t>(root)];
      if (known == kNone && found == kNone)
        add_to(buffer, root);
      else if (found != buffer)
        throw InternalError(op.definition->name().data() +
                            std::string(": a value is wanted in two places side by side"));
    }
  }

  void find_offsets_in_storage() {
    offset_in_storage_.assign(program_.values().size(), 0);
    for (const Op& op : program_.ops())
      for (const Alias& alias : op.definition->aliases()) {
        const ValueId output = op.outputs[static_cast<std::size_t>(alias.output)];
        const ValueId input = op.inputs[static_cast<std::size_t>(alias.input)];
        offset_in_storage_[static_cast<std::size_t>(output)] =
            offset_in_storage_[static_cast<std::size_t>(input)] + alias.offset * size_of(program_.type(input).dtype);
      }
  }

  void find_lives() {
    for (int i = 0; i < program_.op_count(); ++i) {
      const Op& op = program_.op(i);
      for (const auto* list : {&op.inputs, &op.outputs})
        for (ValueId id : *list) {
          Buffer& buffer = plan_.buffers[static_cast<std::size_t>(buffer_of_[static_cast<std::size_t>(id)])];
          if (buffer.first == kNone) buffer.first = i;
          buffer.last = i;
          accessors_[buffer_of_[static_cast<std::size_t>(id)]][schedule_.lanes[static_cast<std::size_t>(i)]] = i;
        }
    }
    for (ValueId id : program_.kept()) {
      const int buffer = buffer_of_[static_cast<std::size_t>(id)];
      plan_.buffers[static_cast<std::size_t>(buffer)].last = accessors_[buffer][0] = program_.op_count() - 1;
    }
    for (const Buffer& buffer : plan_.buffers) {
      if (buffer.persistent) continue;
      const int from = program_.op(buffer.first).segment, to = program_.op(buffer.last).segment;
      if (from != to && program_.segments()[static_cast<std::size_t>(from)].repeat > 1)
        throw InternalError("an activation leaves a segment that repeats");
    }
  }

  /// True where op `index` starts behind every access of `buffer`.
  bool free_at(int buffer, int index) const {
    const int lane = schedule_.lanes[static_cast<std::size_t>(index)];
    for (const auto& [other_lane, last] : accessors_.at(buffer)) {
      if (last >= index) return false;
      if (other_lane != 0 && other_lane != lane && schedule_.complete_before(index, other_lane) < last) return false;
    }
    return true;
  }

  bool conflict(int a, int b) const {
    const Buffer &first = plan_.buffers[static_cast<std::size_t>(a)],
                 &second = plan_.buffers[static_cast<std::size_t>(b)];
    return first.first <= second.first ? !free_at(a, second.first) : !free_at(b, first.first);
  }

  void place_persistent() {
    std::int64_t end = 0;
    for (Buffer& buffer : plan_.buffers) {
      if (!buffer.persistent) continue;
      buffer.offset = end;
      end += aligned(buffer.bytes);
    }
    plan_.persistent_bytes = end;
  }

  /// Largest first, each at the lowest offset that no conflicting one covers.
  void place_activations() {
    std::vector<int> order;
    for (int b = 0; b < static_cast<int>(plan_.buffers.size()); ++b)
      if (!plan_.buffers[static_cast<std::size_t>(b)].persistent) order.push_back(b);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
      return plan_.buffers[static_cast<std::size_t>(a)].bytes > plan_.buffers[static_cast<std::size_t>(b)].bytes;
    });
    std::vector<int> placed;  // by offset
    for (int b : order) {
      Buffer& buffer = plan_.buffers[static_cast<std::size_t>(b)];
      std::int64_t at = plan_.persistent_bytes;
      for (int p : placed) {
        const Buffer& other = plan_.buffers[static_cast<std::size_t>(p)];
        if (other.offset >= at + aligned(buffer.bytes) || other.offset + aligned(other.bytes) <= at) continue;
        if (conflict(b, p)) at = other.offset + aligned(other.bytes);
      }
      buffer.offset = at;
      const auto where = std::find_if(placed.begin(), placed.end(),
                                      [&](int p) { return plan_.buffers[static_cast<std::size_t>(p)].offset > at; });
      placed.insert(where, b);
      plan_.activation_bytes = std::max(plan_.activation_bytes, at + aligned(buffer.bytes) - plan_.persistent_bytes);
    }
    plan_.offsets.assign(program_.values().size(), kNone);
    for (std::size_t id = 0; id < plan_.offsets.size(); ++id)
      if (buffer_of_[id] != kNone)
        plan_.offsets[id] = plan_.buffers[static_cast<std::size_t>(buffer_of_[id])].offset +
                            offset_in_buffer_[static_cast<std::size_t>(roots_[id])] + offset_in_storage_[id];
  }

  void query_workspace(const Op& op, const WorkspaceQuery& workspace) {
    if (op.definition->collective() || op.definition->is_view()) return;
    std::vector<ValueType> inputs, outputs;
    for (ValueId id : op.inputs) inputs.push_back(program_.type(id));
    for (ValueId id : op.outputs) outputs.push_back(program_.type(id));
    plan_.workspace_bytes = std::max(plan_.workspace_bytes, workspace(*op.definition, inputs, outputs));
  }

  void find_freed() {
    plan_.freed_before.resize(static_cast<std::size_t>(program_.op_count()));
    for (int b = 0; b < static_cast<int>(plan_.buffers.size()); ++b) {
      const Buffer& buffer = plan_.buffers[static_cast<std::size_t>(b)];
      if (buffer.persistent) continue;
      int at = buffer.last + 1;
      while (at < program_.op_count() && (schedule_.lanes[static_cast<std::size_t>(at)] != 0 || !free_at(b, at))) ++at;
      if (at == program_.op_count()) continue;
      bool taken = false;
      for (int o = 0; o < static_cast<int>(plan_.buffers.size()); ++o) {
        const Buffer& other = plan_.buffers[static_cast<std::size_t>(o)];
        taken = taken || (!other.persistent && other.first > buffer.first && other.first < at &&
                          other.offset < buffer.offset + buffer.bytes && buffer.offset < other.offset + other.bytes &&
                          !free_at(o, at));
      }
      if (!taken) plan_.freed_before[static_cast<std::size_t>(at)].push_back(b);
    }
  }

  const Program& program_;
  const Schedule& schedule_;
  MemoryPlan plan_;
  std::vector<int> buffer_of_storage_, buffer_of_, roots_;
  std::vector<std::int64_t> offset_in_buffer_, offset_in_storage_;
  std::map<int, std::map<int, int>> accessors_;  // buffer -> lane -> last op of that lane that touches it
};

}  // namespace

MemoryPlan plan_memory(const Program& program, const Schedule& schedule, const WorkspaceQuery& workspace) {
  check_aliases(program);
  return Planner(program, schedule).run(workspace);
}

std::vector<MemoryItem> alive_at(const Program& program, const MemoryPlan& plan, int index) {
  std::map<std::string, std::int64_t> bytes;
  for (const Buffer& buffer : plan.buffers) {
    if (buffer.persistent || buffer.first >= index || buffer.last < index) continue;
    const Op& maker = program.op(buffer.first);
    bytes[fmt::format("{} {}", maker.scope, maker.definition->name())] += buffer.bytes;
  }
  std::vector<MemoryItem> items;
  for (const auto& [name, size] : bytes) items.push_back({name, size});
  std::stable_sort(items.begin(), items.end(),
                   [](const MemoryItem& a, const MemoryItem& b) { return a.bytes > b.bytes; });
  return items;
}

int fullest_moment(const Program& program, const MemoryPlan& plan) {
  std::vector<std::int64_t> change(static_cast<std::size_t>(program.op_count()) + 2);
  for (const Buffer& buffer : plan.buffers) {
    if (buffer.persistent) continue;
    change[static_cast<std::size_t>(buffer.first) + 1] += buffer.bytes;
    change[static_cast<std::size_t>(buffer.last) + 1] -= buffer.bytes;
  }
  std::partial_sum(change.begin(), change.end(), change.begin());
  return static_cast<int>(std::max_element(change.begin(), change.end()) - change.begin());
}

}  // namespace annulus
