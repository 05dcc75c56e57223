#include "model/huggingface_config.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <system_error>

#include "runtime/training/mapped_file.h"

namespace annulus {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kGroupedType = "annulus_gpt2";

const char* activation_name(Activation activation) { return activation == Activation::gelu_tanh ? "gelu_new" : "gelu"; }

const char* setting_of(const std::string& activation) {
  if (activation == "gelu_new" || activation == "gelu_pytorch_tanh" || activation == "gelu_fast") return "gelu_tanh";
  return activation == "gelu" ? "gelu_erf" : nullptr;
}

std::string activation_problem(const std::string& path, const Json& json, const ModelConfig& model) {
  const std::string name = json.value("activation_function", "gelu_new");
  const std::string ours = model.activation == Activation::gelu_tanh ? "gelu_tanh" : "gelu_erf";
  const char* setting = setting_of(name);
  if (setting && setting == ours) return "";
  const std::string fix = setting ? fmt::format("set model.activation={}", setting)
                                  : std::string("give weights of a model with gelu_new or gelu");
  return fmt::format("{}: activation_function is {}, and model.activation={}; {}", path, name, ours, fix);
}

}  // namespace

std::string huggingface_config(const ModelConfig& model) {
  const bool plain = model.kv_heads == model.heads && model.head_dim * model.heads == model.hidden;
  Json json = {
      {"model_type", plain ? "gpt2" : kGroupedType},
      {"architectures", Json::array({plain ? "GPT2LMHeadModel" : "AnnulusGPT2LMHeadModel"})},
      {"n_layer", model.layers},
      {"n_embd", model.hidden},
      {"n_head", model.heads},
      {"n_inner", model.ffn},
      {"vocab_size", model.vocabulary},
      {"n_positions", model.block_size},
      {"n_ctx", model.block_size},
      {"activation_function", activation_name(model.activation)},
      {"layer_norm_epsilon", model.layer_norm_epsilon},
      {"initializer_range", model.initial_std},
      {"embd_pdrop", model.dropout.embedding},
      {"attn_pdrop", model.dropout.attention},
      {"resid_pdrop", model.dropout.residual},
      {"scale_attn_weights", true},
      {"scale_attn_by_inverse_layer_idx", false},
      {"reorder_and_upcast_attn", false},
      {"tie_word_embeddings", true},
      {"bos_token_id", nullptr},
      {"eos_token_id", nullptr},
      {"torch_dtype", "float32"},
  };
  if (!plain) {
    json["n_kv_head"] = model.kv_heads;
    json["head_dim"] = model.head_dim;
  }
  return json.dump(2) + "\n";
}

std::vector<std::string> huggingface_config_problems(const std::string& file, const ModelConfig& model) {
  const std::string path = (std::filesystem::path(file).parent_path() / "config.json").string();
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return {};
  const Json json = Json::parse(MappedFile(path).text(), nullptr, /*allow_exceptions=*/false);
  if (!json.is_object())
    return {fmt::format("{}: is no JSON object; give the config.json of the weights, or remove it", path)};
  if (!json.contains("model_type")) return {};  // somebody else's config.json
  std::vector<std::string> problems;
  try {
    const std::string type = json.at("model_type").get<std::string>();
    if (type != "gpt2" && type != kGroupedType)
      return {fmt::format("{}: model_type is {}, and gpt2 is wanted; give weights of a GPT-2", path, type)};
    const std::int64_t heads = json.value("n_head", std::int64_t{12});
    const auto compare = [&](const char* key, std::int64_t found, const char* setting, std::int64_t ours) {
      if (found != ours)
        problems.push_back(
            fmt::format("{}: {} is {}, and {}={}; set {}={}", path, key, found, setting, ours, setting, found));
    };
    compare("n_head", heads, "model.heads", model.heads);
    compare("n_kv_head", json.value("n_kv_head", heads), "model.kv_heads", model.kv_heads);
    if (std::string problem = activation_problem(path, json, model); !problem.empty()) problems.push_back(problem);
    const double epsilon = json.value("layer_norm_epsilon", 1e-5);
    if (!(std::abs(epsilon / model.layer_norm_epsilon - 1) < 1e-6)) {
      problems.push_back(
          fmt::format("{}: layer_norm_epsilon is {}, and model.layer_norm_epsilon={}; set "
                      "model.layer_norm_epsilon={}",
                      path, epsilon, model.layer_norm_epsilon, epsilon));
    }
    if (json.value("scale_attn_by_inverse_layer_idx", false) || !json.value("scale_attn_weights", true)) {
      problems.push_back(
          fmt::format("{}: scales attention otherwise than by 1/sqrt(head_dim) (scale_attn_weights, "
                      "scale_attn_by_inverse_layer_idx); give weights that do not",
                      path));
    }
  } catch (const nlohmann::json::exception& error) {
    problems.push_back(
        fmt::format("{}: a setting has the wrong type ({}); give the config.json of the weights, or "
                    "remove it",
                    path, error.what()));
  }
  return problems;
}

}  // namespace annulus
