#include "launch/config_rules.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace annulus {
namespace {

std::vector<std::int64_t> divisors(std::int64_t number) {
  std::vector<std::int64_t> found;
  for (std::int64_t d = 1; d <= number && found.size() < 12; ++d) {
    if (number % d == 0) found.push_back(d);
  }
  return found;
}

/// The two multiples of `divisor` around `value`, as advice.
std::string multiples_near(std::int64_t value, std::int64_t divisor) {
  const std::int64_t below = value / divisor * divisor;
  return below > 0 ? fmt::format("{} or {}", below, below + divisor) : fmt::format("{}", divisor);
}

std::string hidden_over_heads(const RunConfig& c, std::int64_t) {
  const ModelConfig& m = c.model;
  if (m.head_dim > 0) return "";  // given, or derived without remainder
  return fmt::format(
      "model.hidden={} cannot be split over model.heads={} ({} % {} = {}); use hidden {}, or give model.head_dim",
      m.hidden, m.heads, m.hidden, m.heads, m.hidden % m.heads, multiples_near(m.hidden, m.heads));
}

std::string heads_over_kv_heads(const RunConfig& c, std::int64_t) {
  const ModelConfig& m = c.model;
  if (m.heads % m.kv_heads == 0) return "";
  return fmt::format("model.heads={} do not share model.kv_heads={} evenly ({} % {} = {}); use kv_heads in {{{}}}",
                     m.heads, m.kv_heads, m.heads, m.kv_heads, m.heads % m.kv_heads,
                     fmt::join(divisors(m.heads), ", "));
}

std::string heads_over_tp(const RunConfig& c, std::int64_t) {
  const std::int64_t heads = c.model.heads, tp = c.parallel.tp;
  if (heads % tp == 0) return "";
  return fmt::format("model.heads={} cannot be split over parallel.tp={} ({} % {} = {}); use tp in {{{}}}", heads, tp,
                     heads, tp, heads % tp, fmt::join(divisors(heads), ", "));
}

std::string kv_heads_over_tp(const RunConfig& c, std::int64_t) {
  const std::int64_t kv_heads = c.model.kv_heads, tp = c.parallel.tp;
  if (kv_heads == c.model.heads || kv_heads % tp == 0 || tp % kv_heads == 0) return "";  // equal: heads_over_tp speaks
  return fmt::format(
      "model.kv_heads={} can neither be split over parallel.tp={} nor copied evenly; one must divide the other, "
      "as with tp in {{{}}}",
      kv_heads, tp, fmt::join(divisors(kv_heads), ", "));
}

std::string ffn_over_tp(const RunConfig& c, std::int64_t) {
  const std::int64_t ffn = c.model.ffn, tp = c.parallel.tp;
  if (ffn % tp == 0) return "";
  return fmt::format("model.ffn={} cannot be split over parallel.tp={} ({} % {} = {}); use ffn {}", ffn, tp, ffn, tp,
                     ffn % tp, multiples_near(ffn, tp));
}

std::string sequence_over_ring(const RunConfig& c, std::int64_t) {
  const std::int64_t length = c.batch.sequence_length;
  const std::int64_t divisor = sequence_divisor(c.parallel.layout, static_cast<int>(c.parallel.cp));
  if (length % divisor == 0) return "";
  return fmt::format(
      "batch.sequence_length={} cannot be laid out {} over parallel.cp={} ({} % {} = {}); use sequence_length {}",
      length, name_of(c.parallel.layout), c.parallel.cp, length, divisor, length % divisor,
      multiples_near(length, divisor));
}

std::string rows_over_tp(const RunConfig& c, std::int64_t) {
  const std::int64_t tp = c.parallel.tp;
  if (!c.parallel.sequence_parallel || c.batch.sequence_length % c.parallel.cp != 0) return "";
  const std::int64_t rows = c.batch.micro_sequences * (c.batch.sequence_length / c.parallel.cp);
  if (rows % tp == 0) return "";
  return fmt::format(
      "parallel.sequence_parallel=true cannot split a rank's {} tokens (micro_sequences={} x sequence_length={} / "
      "cp={}) over parallel.tp={} ({} % {} = {}); use a micro-batch or sequence length that tp divides",
      rows, c.batch.micro_sequences, c.batch.sequence_length, c.parallel.cp, tp, rows, tp, rows % tp);
}

std::string mesh_is_ranks(const RunConfig& c, std::int64_t ranks) {
  const ParallelConfig& p = c.parallel;
  if (p.tp * p.cp * p.dp == ranks) return "";
  if (p.dp == 0 || p.tp * p.cp > ranks) {
    return fmt::format(
        "parallel.tp={} x parallel.cp={} = {} does not divide the {} ranks that run; start a multiple of {} ranks "
        "(mpirun -n {}), or change tp or cp",
        p.tp, p.cp, p.tp * p.cp, ranks, p.tp * p.cp, p.tp * p.cp);
  }
  return fmt::format(
      "parallel.tp={} x parallel.cp={} x parallel.dp={} = {} ranks, but {} run; start {} (mpirun -n {}), or set "
      "parallel.dp=0 (what remains)",
      p.tp, p.cp, p.dp, c.ranks(), ranks, c.ranks(), c.ranks());
}

std::string batch_over_dp(const RunConfig& c, std::int64_t) {
  const std::int64_t global = c.batch.global_sequences, micro = c.batch.micro_sequences, dp = c.parallel.dp;
  if (dp == 0 || (micro > 0 && global % (dp * micro) == 0)) return "";  // no dp: mesh_is_ranks speaks
  if (micro == 0 || global < dp) {
    return fmt::format("batch.global_sequences={} cannot be split over dp={} ({} % {} = {}); use global_sequences {}",
                       global, dp, global, dp, global % dp, multiples_near(global, dp));
  }
  return fmt::format(
      "batch.global_sequences={} is not a whole number of micro-batches of dp={} x batch.micro_sequences={} ({} % {} = "
      "{}); use global_sequences {}",
      global, dp, micro, global, dp * micro, global % (dp * micro), multiples_near(global, dp * micro));
}

std::string sequence_in_block(const RunConfig& c, std::int64_t) {
  if (c.model.block_size >= c.batch.sequence_length) return "";
  return fmt::format(
      "batch.sequence_length={} is longer than the position table, model.block_size={}; use sequence_length at most {}",
      c.batch.sequence_length, c.model.block_size, c.model.block_size);
}

std::string learning_rate_schedule(const RunConfig& c, std::int64_t) {
  const OptimizerConfig& o = c.optimizer;
  if (o.minimum_learning_rate > o.learning_rate) {
    return fmt::format("optimizer.minimum_learning_rate={} is above optimizer.learning_rate={}; use at most that",
                       o.minimum_learning_rate, o.learning_rate);
  }
  return "";
}

std::string warmup_in_run(const RunConfig& c, std::int64_t) {
  const std::int64_t steps = c.training.steps, warmup = c.optimizer.warmup_steps;
  const std::int64_t decay = c.optimizer.schedule == Decay::constant_then_decay ? c.optimizer.decay_steps : 0;
  if (warmup + decay <= steps) return "";
  if (decay == 0) {
    return fmt::format("optimizer.warmup_steps={} is longer than the run, training.steps={}; use at most {}", warmup,
                       steps, steps);
  }
  return fmt::format(
      "optimizer.warmup_steps={} and optimizer.decay_steps={} are together longer than the run, training.steps={}; use "
      "decay_steps at most {}",
      warmup, decay, steps, std::max<std::int64_t>(0, steps - warmup));
}

std::string evaluation_has_data(const RunConfig& c, std::int64_t) {
  if (c.training.evaluate_every == 0 || !c.data.validation_file.empty() || c.data.validation_fraction > 0) return "";
  return fmt::format(
      "training.evaluate_every={} has nothing to evaluate on; give data.validation_file, or a "
      "data.validation_fraction such as 0.1",
      c.training.evaluate_every);
}

std::string vocabulary_is_known(const RunConfig& c, std::int64_t) {
  if (c.model.vocabulary > 0 || !c.data.file.empty()) return "";
  return "model.vocabulary=0 is taken from the token file, and data.file names none; give one of the two";
}

std::string settings_of_gpus(const RunConfig& c, std::int64_t) {
  const DeviceConfig& d = c.device;
  if (d.kind == DeviceKind::cuda) return "";
  const char* setting = d.float_products == FloatProducts::tf32       ? "device.float_products=tf32"
                        : d.communication == GpuCommunication::staged ? "device.communication=staged"
                        : d.execution == Execution::graph             ? "device.execution=graph"
                        : d.share_gpu                                 ? "device.share_gpu=true"
                                                                      : nullptr;
  if (setting == nullptr) return "";
  return fmt::format("{} is for GPUs, and device.kind=cpu; leave it out, or set device.kind=cuda", setting);
}

std::string graphs_need_nccl(const RunConfig& c, std::int64_t) {
  const DeviceConfig& d = c.device;
  if (d.execution != Execution::graph || d.communication != GpuCommunication::staged) return "";
  return "device.execution=graph captures collectives, and device.communication=staged has the host carry them out; "
         "use device.execution=ops, or device.communication=nccl";
}

struct Rule {
  std::vector<std::string_view> reads;
  std::string (*problem)(const RunConfig&, std::int64_t ranks);
};

const std::vector<Rule>& rules() {
  static const std::vector<Rule> table = {
      {{"model.hidden", "model.heads", "model.head_dim"}, hidden_over_heads},
      {{"model.heads", "model.kv_heads"}, heads_over_kv_heads},
      {{"model.heads", "parallel.tp"}, heads_over_tp},
      {{"model.kv_heads", "model.heads", "parallel.tp"}, kv_heads_over_tp},
      {{"model.ffn", "model.hidden", "parallel.tp"}, ffn_over_tp},
      {{"batch.sequence_length", "parallel.cp", "parallel.layout"}, sequence_over_ring},
      {{"parallel.sequence_parallel", "batch.sequence_length", "batch.micro_sequences", "batch.global_sequences",
        "parallel.tp", "parallel.cp", "parallel.dp"},
       rows_over_tp},
      {{"parallel.tp", "parallel.cp", "parallel.dp"}, mesh_is_ranks},
      {{"batch.global_sequences", "batch.micro_sequences", "parallel.tp", "parallel.cp", "parallel.dp"}, batch_over_dp},
      {{"model.block_size", "batch.sequence_length"}, sequence_in_block},
      {{"optimizer.learning_rate", "optimizer.minimum_learning_rate"}, learning_rate_schedule},
      {{"optimizer.warmup_steps", "optimizer.decay_steps", "optimizer.schedule", "training.steps"}, warmup_in_run},
      {{"training.evaluate_every", "data.validation_file", "data.validation_fraction"}, evaluation_has_data},
      {{"model.vocabulary", "data.file"}, vocabulary_is_known},
      {{"device.kind", "device.float_products", "device.communication", "device.execution", "device.share_gpu"},
       settings_of_gpus},
      {{"device.execution", "device.communication"}, graphs_need_nccl},
  };
  return table;
}

}  // namespace

void derive(RunConfig& config, std::int64_t ranks) {
  ModelConfig& m = config.model;
  if (m.kv_heads == 0) m.kv_heads = m.heads;
  if (m.head_dim == 0 && m.heads > 0 && m.hidden % m.heads == 0) m.head_dim = m.hidden / m.heads;
  if (m.ffn == 0) m.ffn = 4 * m.hidden;
  if (m.block_size == 0) m.block_size = config.batch.sequence_length;
  ParallelConfig& p = config.parallel;
  if (p.dp == 0 && p.tp > 0 && p.cp > 0 && ranks % (p.tp * p.cp) == 0) p.dp = ranks / (p.tp * p.cp);
  BatchConfig& b = config.batch;
  if (b.micro_sequences == 0 && p.dp > 0 && b.global_sequences % p.dp == 0)
    b.micro_sequences = b.global_sequences / p.dp;
}

std::vector<std::string> broken_rules(const RunConfig& config, std::int64_t ranks,
                                      const std::function<bool(std::string_view path)>& is_sound) {
  std::vector<std::string> problems;
  for (const Rule& rule : rules()) {
    bool sound = true;
    for (std::string_view path : rule.reads) sound = sound && is_sound(path);
    if (!sound) continue;
    if (std::string problem = rule.problem(config, ranks); !problem.empty()) problems.push_back(std::move(problem));
  }
  return problems;
}

}  // namespace annulus
