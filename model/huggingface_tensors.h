#pragma once

#include <string>
#include <vector>

#include "model/config.h"
#include "runtime/core/shape.h"
#include "runtime/training/safetensors.h"

namespace annulus {

/// A tensor of Hugging Face's GPT-2 and what it is made of: our parameters side by side along the last dim, each seen
/// as [rows, columns] (a bias [2, G H] as one row). Hence c_attn is [query | key | value] by columns, with any number
/// of kv heads.
struct HuggingFaceTensor {
  struct Piece {
    std::string parameter;
    Shape shape;              ///< in the tensor: its rows (a vector has none) and its share of the last dim
    std::int64_t offset = 0;  ///< along the last dim
  };
  std::string name;  ///< without the prefix `transformer.`
  Shape shape;
  std::vector<std::string> fields;  ///< of the configuration, by dim: what decides its extent
  std::vector<Piece> pieces;
};

/// All of them, in the order of the forward. Shapes are of a resolved configuration.
std::vector<HuggingFaceTensor> huggingface_tensors(const ModelConfig& model);

/// `transformer.` where the file's names begin so, or nothing.
std::string huggingface_prefix(const SafetensorsReader& file);

/// What keeps `file` from being the weights of `model`: missing and unknown tensors, shapes, a head that is not the
/// embedding. One problem for each cause, with the setting to change.
std::vector<std::string> huggingface_problems(const SafetensorsReader& file, const ModelConfig& model);

}  // namespace annulus
