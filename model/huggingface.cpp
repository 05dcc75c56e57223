#include "model/huggingface.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <system_error>

#include "model/huggingface_config.h"
#include "model/huggingface_tensors.h"
#include "model/weights.h"

namespace annulus {
namespace {

using Bytes = std::vector<std::byte>;

Bytes bytes_of(std::int64_t count) { return Bytes(static_cast<std::size_t>(count)); }

class ParametersByName {
 public:
  explicit ParametersByName(const std::vector<Parameter>& parameters) {
    for (const Parameter& parameter : parameters) by_name_[parameter.name] = &parameter;
  }
  const Parameter& operator[](const std::string& name) const {
    const auto found = by_name_.find(name);
    if (found == by_name_.end())
      throw InternalError("the mapping of weights names a parameter '" + name + "' that the model does not have");
    return *found->second;
  }
  std::size_t size() const { return by_name_.size(); }

 private:
  std::map<std::string, const Parameter*> by_name_;
};

/// Where a piece lies in its tensor.
BlockOrigin origin_of(const HuggingFaceTensor::Piece& piece) {
  return piece.shape.rank() == 1 ? BlockOrigin{piece.offset, 0} : BlockOrigin{0, piece.offset};
}

void load_piece(const SafetensorsReader& file, const std::string& name, const HuggingFaceTensor::Piece& piece,
                const Parameter& parameter, Executor& executor) {
  const ValueType type = master_type(executor.program(), parameter);
  Bytes whole = bytes_of(piece.shape.elements() * size_of(type.dtype)), local = bytes_of(type.bytes());
  file.read(name, {whole.data(), type.dtype, piece.shape}, origin_of(piece));
  take_shard(executor.program().mesh(), parameter, type, whole.data(), local.data());
  write_weights(executor, parameter, local.data(), 0, type.shape.elements());
}

/// The mesh as another rank of the same world sees it: axes are counted outer to inner.
MeshAxes seen_by(MeshAxes mesh, int rank) {
  for (auto axis = mesh.axes.rbegin(); axis != mesh.axes.rend(); ++axis) {
    axis->coordinate = rank % axis->size;
    rank /= axis->size;
  }
  return mesh;
}

/// Of the ranks that hold the same elements, the one whose coordinates are 0 on the axes that do not tell them apart.
bool contributes(const MeshAxes& mesh, const ValueType& type, const Parameter& parameter) {
  return mesh.index(mesh.all() - (parameter.master.axes | sharded_axes(mesh, type))) == 0;
}

/// Gathers the whole, unpadded value of a parameter on rank 0. Collective; the others get nothing.
Bytes gather(const Parameter& parameter, const Executor& executor, Communicator& world) {
  const MeshAxes& mesh = executor.program().mesh();
  const ValueType type = master_type(executor.program(), parameter);
  Bytes local = read_weights(executor, parameter), whole;
  if (world.rank() != 0) {
    const std::int64_t count = master_range(executor.program(), mesh, parameter).count;
    if (contributes(mesh, type, parameter)) wait(world.send(local.data(), count, type.dtype, 0));
    return whole;
  }
  whole = bytes_of(parameter.shape.elements() * size_of(type.dtype));
  for (int rank = 0; rank < world.size(); ++rank) {
    const MeshAxes theirs = seen_by(mesh, rank);
    if (!contributes(theirs, type, parameter)) continue;
    const OwnedRange range = master_range(executor.program(), theirs, parameter);
    local.resize(std::max(local.size(), static_cast<std::size_t>(range.count * size_of(type.dtype))));
    if (rank != 0) wait(world.recv(local.data(), range.count, type.dtype, rank));
    put_shard(theirs, parameter, type, local.data(), range.first, range.count, whole.data());
  }
  return whole;
}

/// Copies a parameter's whole value to its columns of the tensor, as f32.
void place(const Bytes& whole, DType dtype, const HuggingFaceTensor::Piece& piece, std::int64_t columns,
           std::vector<float>& tensor) {
  const std::int64_t share = piece.shape[piece.shape.rank() - 1], rows = piece.shape.elements() / share;
  dispatch_float(dtype, [&]<class T>(T) {
    const T* from = reinterpret_cast<const T*>(whole.data());
    for (std::int64_t row = 0; row < rows; ++row)
      std::transform(from + row * share, from + (row + 1) * share, tensor.data() + row * columns + piece.offset,
                     [](T value) { return static_cast<float>(value); });
  });
}

/// Does the writing on rank 0. An error is kept until all ranks can hear of it, so that none waits for a rank that
/// left.
class Export {
 public:
  explicit Export(Communicator& world) : world_(world) {}

  template <class Action>
  void on_first(Action&& action) {
    if (world_.rank() != 0 || problem_) return;
    try {
      action();
    } catch (const ConfigError& error) {
      problem_ = error;
    }
  }

  /// Collective: all throw where rank 0 has failed.
  void agree() {
    std::int32_t failed = problem_.has_value();
    wait(world_.broadcast(&failed, 1, DType::i32, 0));
    if (problem_) throw ConfigError(*problem_);
    if (failed) throw ConfigError("rank 0 cannot write the weights; its message says why");
  }

 private:
  Communicator& world_;
  std::optional<ConfigError> problem_;
};

std::unique_ptr<SafetensorsWriter> begin_files(const std::filesystem::path& folder,
                                               const std::vector<HuggingFaceTensor>& tensors,
                                               const SafetensorsWriteOptions& options) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error)
    throw ConfigError(
        fmt::format("{}: cannot be made as a folder ({}); give another one", folder.string(), error.message()));
  std::vector<TensorDeclaration> declarations;
  for (const HuggingFaceTensor& tensor : tensors) declarations.push_back({tensor.name, DType::f32, tensor.shape});
  return std::make_unique<SafetensorsWriter>((folder / "model.safetensors").string(), std::move(declarations), options);
}

}  // namespace

void check_huggingface(const SafetensorsReader& file, const ModelConfig& model) {
  std::vector<std::string> problems = huggingface_problems(file, model);
  for (std::string& problem : huggingface_config_problems(file.path(), model)) problems.push_back(std::move(problem));
  if (!problems.empty()) throw ConfigError(std::move(problems));
}

void load_huggingface(const SafetensorsReader& file, const ModelConfig& model, const std::vector<Parameter>& parameters,
                      Executor& executor) {
  const ParametersByName by_name(parameters);
  const std::string prefix = huggingface_prefix(file);
  std::size_t loaded = 0;
  for (const HuggingFaceTensor& tensor : huggingface_tensors(model)) {
    for (const HuggingFaceTensor::Piece& piece : tensor.pieces) {
      load_piece(file, prefix + tensor.name, piece, by_name[piece.parameter], executor);
      ++loaded;
    }
  }
  if (loaded != by_name.size()) throw InternalError("the mapping of weights leaves parameters of the model out");
}

void export_huggingface(const std::string& folder, const ModelConfig& model, const std::vector<Parameter>& parameters,
                        const Executor& executor, Communicator& world, const SafetensorsWriteOptions& options) {
  const ParametersByName by_name(parameters);
  const std::vector<HuggingFaceTensor> tensors = huggingface_tensors(model);
  std::unique_ptr<SafetensorsWriter> writer;
  Export state(world);
  state.on_first([&] { writer = begin_files(folder, tensors, options); });
  state.agree();
  std::vector<float> elements;
  for (const HuggingFaceTensor& tensor : tensors) {
    if (world.rank() == 0) elements.resize(static_cast<std::size_t>(tensor.shape.elements()));
    for (const HuggingFaceTensor::Piece& piece : tensor.pieces) {
      const Parameter& parameter = by_name[piece.parameter];
      const Bytes whole = gather(parameter, executor, world);
      if (world.rank() == 0)
        place(whole, master_type(executor.program(), parameter).dtype, piece, tensor.shape[tensor.shape.rank() - 1],
              elements);
    }
    state.on_first([&] {
      writer->write(tensor.name, {reinterpret_cast<std::byte*>(elements.data()), DType::f32, tensor.shape});
    });
  }
  state.on_first([&] {
    write_file_atomically((std::filesystem::path(folder) / "config.json").string(), huggingface_config(model));
    writer->finish();
  });
  state.agree();
}

}  // namespace annulus
