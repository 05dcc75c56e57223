#include "model/huggingface_tensors.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <set>

namespace annulus {
namespace {

enum class Extent : std::uint8_t { vocabulary, block, hidden, query, key_value, ffn };

std::int64_t value_of(Extent extent, const ModelConfig& model) {
  switch (extent) {
    case Extent::vocabulary:
      return model.vocabulary;
    case Extent::block:
      return model.block_size;
    case Extent::hidden:
      return model.hidden;
    case Extent::query:
      return model.heads * model.head_dim;
    case Extent::key_value:
      return 2 * model.kv_heads * model.head_dim;
    case Extent::ffn:
      return model.ffn;
  }
  return 0;
}

const char* field_of(Extent extent) {
  switch (extent) {
    case Extent::vocabulary:
      return "model.vocabulary";
    case Extent::block:
      return "model.block_size";
    case Extent::hidden:
      return "model.hidden";
    case Extent::query:
      return "model.heads x model.head_dim";
    case Extent::key_value:
      return "2 x model.kv_heads x model.head_dim";
    case Extent::ffn:
      return "model.ffn";
  }
  return "?";
}

/// One row of the mapping: `{}` stands for the number of the layer. A tensor's dims are `rows` (none for a vector),
/// then the pieces' columns, added up.
struct Rule {
  struct Piece {
    const char* parameter;
    Extent columns;
  };
  const char* name;
  std::vector<Extent> rows;
  std::vector<Piece> pieces;
};

const std::vector<Rule>& rules_before() {
  static const std::vector<Rule> rules = {
      {"wte.weight", {Extent::vocabulary}, {{"embedding.tokens", Extent::hidden}}},
      {"wpe.weight", {Extent::block}, {{"embedding.positions", Extent::hidden}}},
  };
  return rules;
}

const std::vector<Rule>& rules_of_layer() {
  static const std::vector<Rule> rules = {
      {"h.{}.ln_1.weight", {}, {{"layers.{}.attention.norm.gamma", Extent::hidden}}},
      {"h.{}.ln_1.bias", {}, {{"layers.{}.attention.norm.beta", Extent::hidden}}},
      {"h.{}.attn.c_attn.weight",
       {Extent::hidden},
       {{"layers.{}.attention.query.weight", Extent::query},
        {"layers.{}.attention.key_value.weight", Extent::key_value}}},
      {"h.{}.attn.c_attn.bias",
       {},
       {{"layers.{}.attention.query.bias", Extent::query}, {"layers.{}.attention.key_value.bias", Extent::key_value}}},
      {"h.{}.attn.c_proj.weight", {Extent::query}, {{"layers.{}.attention.output.weight", Extent::hidden}}},
      {"h.{}.attn.c_proj.bias", {}, {{"layers.{}.attention.output.bias", Extent::hidden}}},
      {"h.{}.ln_2.weight", {}, {{"layers.{}.mlp.norm.gamma", Extent::hidden}}},
      {"h.{}.ln_2.bias", {}, {{"layers.{}.mlp.norm.beta", Extent::hidden}}},
      {"h.{}.mlp.c_fc.weight", {Extent::hidden}, {{"layers.{}.mlp.up.weight", Extent::ffn}}},
      {"h.{}.mlp.c_fc.bias", {}, {{"layers.{}.mlp.up.bias", Extent::ffn}}},
      {"h.{}.mlp.c_proj.weight", {Extent::ffn}, {{"layers.{}.mlp.down.weight", Extent::hidden}}},
      {"h.{}.mlp.c_proj.bias", {}, {{"layers.{}.mlp.down.bias", Extent::hidden}}},
  };
  return rules;
}

const std::vector<Rule>& rules_behind() {
  static const std::vector<Rule> rules = {
      {"ln_f.weight", {}, {{"head.norm.gamma", Extent::hidden}}},
      {"ln_f.bias", {}, {{"head.norm.beta", Extent::hidden}}},
  };
  return rules;
}

HuggingFaceTensor tensor_of(const Rule& rule, const ModelConfig& model, std::int64_t layer) {
  const auto named = [&](const char* pattern) { return fmt::format(fmt::runtime(pattern), layer); };
  HuggingFaceTensor tensor;
  tensor.name = named(rule.name);
  for (Extent rows : rule.rows) {
    tensor.shape.append(value_of(rows, model));
    tensor.fields.push_back(field_of(rows));
  }
  std::int64_t offset = 0;
  std::vector<std::string> fields;
  for (const Rule::Piece& piece : rule.pieces) {
    Shape shape = tensor.shape;
    shape.append(value_of(piece.columns, model));
    tensor.pieces.push_back({named(piece.parameter), shape, offset});
    offset += shape[shape.rank() - 1];
    fields.push_back(field_of(piece.columns));
  }
  tensor.shape.append(offset);
  tensor.fields.push_back(fmt::format("{}", fmt::join(fields, " + ")));
  return tensor;
}

/// Layers that the file's names speak of.
std::int64_t layers_in(const SafetensorsReader& file, const std::string& start) {
  std::int64_t layers = 0;
  for (const std::string& name : file.names()) {
    if (!name.starts_with(start)) continue;
    const std::string number = name.substr(start.size(), name.find('.', start.size()) - start.size());
    const bool is_number = !number.empty() && number.size() < 10 &&
                           std::all_of(number.begin(), number.end(), [](char c) { return c >= '0' && c <= '9'; });
    if (is_number) layers = std::max<std::int64_t>(layers, std::stol(number) + 1);
  }
  return layers;
}

/// The settings to change where extents differ.
std::vector<std::string> changes_for(const HuggingFaceTensor& tensor, const Shape& found) {
  std::vector<std::string> changes;
  for (int dim = 0; dim < found.rank(); ++dim) {
    if (found[dim] == tensor.shape[dim]) continue;
    const std::string& field = tensor.fields[static_cast<std::size_t>(dim)];
    const bool is_setting = field.find(' ') == std::string::npos;
    changes.push_back(fmt::format(fmt::runtime(is_setting ? "set {}={}" : "make {} equal {}"), field, found[dim]));
  }
  return changes;
}

/// Names, at most a few of them.
std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t kShown = 5;
  const std::vector<std::string> shown(names.begin(),
                                       names.begin() + static_cast<std::ptrdiff_t>(std::min(kShown, names.size())));
  return fmt::format("'{}'{}", fmt::join(shown, "', '"),
                     names.size() > kShown ? fmt::format(" and {} more", names.size() - kShown) : "");
}

/// Causal masks, which older files keep beside the weights.
bool is_buffer(const std::string& name) { return name.ends_with(".attn.bias") || name.ends_with(".attn.masked_bias"); }

bool equal_matrices(const SafetensorsReader& file, const std::string& one, const std::string& other) {
  const Shape shape = file.info(one).shape;
  if (file.info(other).shape != shape) return false;
  const std::int64_t columns = shape.columns();
  std::vector<float> a(static_cast<std::size_t>(columns)), b(a);
  for (std::int64_t row = 0; row < shape.rows(); ++row) {
    file.read(one, {reinterpret_cast<std::byte*>(a.data()), DType::f32, {1, columns}}, {row, 0});
    file.read(other, {reinterpret_cast<std::byte*>(b.data()), DType::f32, {1, columns}}, {row, 0});
    if (std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) != 0) return false;
  }
  return true;
}

/// Says what is wrong with one tensor that is there. `told` are changes that were advised before: one cause shows in
/// many tensors, and the first tells of it.
void check_tensor(const SafetensorsReader& file, const std::string& name, const HuggingFaceTensor& expected,
                  std::set<std::string>& told, std::vector<std::string>& problems) {
  const StoredTensor& stored = file.info(name);
  const bool is_float = stored.type == "F32" || stored.type == "F16" || stored.type == "BF16" || stored.type == "F64";
  if (!is_float) {
    problems.push_back(fmt::format("{}: tensor '{}' has the type {}; store it as F32, F16, BF16 or F64", file.path(),
                                   name, stored.type));
  }
  if (stored.shape == expected.shape) return;
  const std::string start = fmt::format("{}: tensor '{}' is {}, and {} is expected ({})", file.path(), name,
                                        stored.shape.str(), expected.shape.str(), fmt::join(expected.fields, ", "));
  if (stored.shape.rank() != expected.shape.rank()) {
    problems.push_back(start + "; give weights in Hugging Face's naming and shapes of GPT-2");
    return;
  }
  const std::vector<std::string> changes = changes_for(expected, stored.shape);
  bool is_new = false;
  for (const std::string& change : changes) is_new = told.insert(change).second || is_new;
  if (is_new)
    problems.push_back(fmt::format("{}; {}, or give weights of that size", start, fmt::join(changes, " and ")));
}

}  // namespace

std::vector<HuggingFaceTensor> huggingface_tensors(const ModelConfig& model) {
  std::vector<HuggingFaceTensor> tensors;
  for (const Rule& rule : rules_before()) tensors.push_back(tensor_of(rule, model, 0));
  for (std::int64_t layer = 0; layer < model.layers; ++layer) {
    for (const Rule& rule : rules_of_layer()) tensors.push_back(tensor_of(rule, model, layer));
  }
  for (const Rule& rule : rules_behind()) tensors.push_back(tensor_of(rule, model, 0));
  return tensors;
}

std::string huggingface_prefix(const SafetensorsReader& file) {
  const std::string prefix = "transformer.";
  return file.contains(prefix + "wte.weight") ? prefix : "";
}

std::vector<std::string> huggingface_problems(const SafetensorsReader& file, const ModelConfig& model) {
  const std::string prefix = huggingface_prefix(file);
  const std::string layer_start = prefix + "h.";
  std::vector<std::string> problems, missing, unknown;
  const std::int64_t layers = layers_in(file, layer_start);
  // A wrong number of layers would be told once a tensor by all that follows.
  const bool layers_differ = layers > 0 && layers != model.layers;
  if (layers_differ) {
    problems.push_back(
        fmt::format("{}: has {} layers, and model.layers={}; set model.layers={}, or give weights of that size",
                    file.path(), layers, model.layers, layers));
  }
  std::set<std::string> known, told;
  for (const HuggingFaceTensor& tensor : huggingface_tensors(model)) {
    const std::string name = prefix + tensor.name;
    known.insert(name);
    if (!file.contains(name)) {
      if (!layers_differ || !name.starts_with(layer_start)) missing.push_back(name);
      continue;
    }
    check_tensor(file, name, tensor, told, problems);
  }
  for (const std::string& name : file.names()) {
    if (known.contains(name) || is_buffer(name) || (layers_differ && name.starts_with(layer_start))) continue;
    if (name != "lm_head.weight")
      unknown.push_back(name);
    else if (file.contains(prefix + "wte.weight") && !equal_matrices(file, name, prefix + "wte.weight"))
      problems.push_back(
          fmt::format("{}: 'lm_head.weight' differs from '{}wte.weight', and the head is tied to the "
                      "embedding here; give weights of a model with tie_word_embeddings",
                      file.path(), prefix));
  }
  if (!missing.empty()) {
    problems.push_back(
        fmt::format("{}: lacks {} of GPT-2's tensors: {}; give all of the weights, in Hugging Face's "
                    "naming of GPT-2",
                    file.path(), missing.size(), listed(missing)));
  }
  if (!unknown.empty()) {
    problems.push_back(
        fmt::format("{}: has {} tensors that GPT-2 does not have: {}; give weights of a GPT-2, or leave "
                    "these out",
                    file.path(), unknown.size(), listed(unknown)));
  }
  return problems;
}

}  // namespace annulus
