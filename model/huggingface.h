#pragma once

#include <string>
#include <vector>

#include "model/config.h"
#include "model/parameters.h"
#include "runtime/core/communicator.h"
#include "runtime/execute/executor.h"
#include "runtime/training/safetensors.h"
#include "runtime/training/safetensors_writer.h"

namespace annulus {

/// Whether `file` holds the weights of `model`, in Hugging Face's naming of GPT-2 (docs/weights.md): every tensor, its
/// shape and type, the tied head, and config.json beside them. Throws ConfigError with every problem found. Does not
/// communicate.
void check_huggingface(const SafetensorsReader& file, const ModelConfig& model);

/// Fills this rank's shards of the weights: one whole parameter in memory at a time. `file` has passed
/// `check_huggingface`. Does not communicate.
void load_huggingface(const SafetensorsReader& file, const ModelConfig& model, const std::vector<Parameter>& parameters,
                      Executor& executor);

/// Writes `folder`/model.safetensors, as f32 (or several files and their index), and `folder`/config.json. Collective
/// over `world`, whose ranks are numbered as in the mesh; rank 0 writes, with one tensor in memory at a time, and of
/// the ranks that hold equal shards one sends. Where rank 0 cannot write, all ranks throw ConfigError. The other ranks'
/// `folder` is not looked at.
void export_huggingface(const std::string& folder, const ModelConfig& model, const std::vector<Parameter>& parameters,
                        const Executor& executor, Communicator& world, const SafetensorsWriteOptions& options = {});

}  // namespace annulus
