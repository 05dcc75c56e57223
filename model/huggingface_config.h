#pragma once

#include <string>
#include <vector>

#include "model/config.h"

namespace annulus {

/// The `config.json` that transformers reads beside the weights: a GPT2Config. A model that GPT2Config cannot express
/// (kv_heads other than heads, head_dim other than hidden / heads) gets a `model_type` of its own, so that transformers
/// refuses it by name.
std::string huggingface_config(const ModelConfig& model);

/// What `config.json` beside the weights, where there is one, says otherwise than `model`: heads, activation and
/// epsilon, which no tensor's shape tells. `file` is the path of the weights.
std::vector<std::string> huggingface_config_problems(const std::string& file, const ModelConfig& model);

}  // namespace annulus
