#pragma once

#include <algorithm>

#include "runtime/cuda/elementwise.h"
#include "runtime/ops/embed.h"

namespace annulus {

template <class T>
struct EmbedElement {
  const std::int32_t* ids;
  const T* table;
  T* y;
  std::int64_t table_rows, width, offset;

  ANNULUS_BODY void operator()(std::int64_t i) const {
    const std::int64_t id = ids[i / width] - offset;
    y[i] = id >= 0 && id < table_rows ? table[id * width + i % width] : T(0);
  }
};

/// Sorts rows by (id, row): each row's place is the number of rows before it. That many comparisons are cheap beside
/// the gradient itself up to some 100,000 rows, and nothing depends on the order in which threads run.
struct SortRowsBody {
  const std::int32_t* ids;
  std::int32_t* sorted;
  std::int64_t rows;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    std::int32_t* const chunk = reinterpret_cast<std::int32_t*>(block.shared());
    const std::int64_t row = block.index() * block.threads() + block.thread();
    const std::int32_t id = row < rows ? ids[row] : 0;
    std::int64_t place = 0;
    for (std::int64_t first = 0; first < rows; first += block.threads()) {
      const std::int64_t size = rows - first < block.threads() ? rows - first : block.threads();
      block.sync();
      if (block.thread() < size) chunk[block.thread()] = ids[first + block.thread()];
      block.sync();
      for (std::int64_t j = 0; j < size; ++j) place += chunk[j] < id || (chunk[j] == id && first + j < row) ? 1 : 0;
    }
    if (row < rows) sorted[place] = static_cast<std::int32_t>(row);
  }
};

/// One block for each sorted place and kThreads columns. Where a run of one id begins, it sums the run, row after row.
template <class T>
struct EmbedGradBody {
  const std::int32_t *ids, *sorted;
  const T* dy;
  T* dtable;
  std::int64_t rows, table_rows, width, offset, column_blocks;
  bool adds;  ///< to what lies in the table

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t place = block.index() / column_blocks;
    const std::int64_t column = block.index() % column_blocks * block.threads() + block.thread();
    const std::int32_t token = ids[sorted[place]];
    const std::int64_t id = token - offset;
    const bool begins = place == 0 || ids[sorted[place - 1]] != token;
    if (!begins || id < 0 || id >= table_rows || column >= width) return;
    T sum = adds ? dtable[id * width + column] : T(0);
    for (std::int64_t next = place; next < rows && ids[sorted[next]] == token; ++next) {
      sum += dy[sorted[next] * width + column];
    }
    dtable[id * width + column] = sum;
  }
};

template <class Launcher>
void launch(const Embed& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &table = arguments.inputs[1], &y = arguments.outputs[0];
  dispatch_float(y.dtype, [&]<class T>(T) {
    for_each(launcher, y.elements(),
             EmbedElement<T>{arguments.inputs[0].as<std::int32_t>(), table.as<T>(), y.as<T>(), table.shape.rows(),
                             table.shape.columns(), op.offset()});
  });
}

inline std::int64_t device_workspace_bytes(const EmbedGrad&, OpDefinition::Types inputs, OpDefinition::Types) {
  return inputs[0].shape.elements() * size_of(DType::i32);
}

template <class Launcher>
void launch(const EmbedGrad& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &ids = arguments.inputs[0], &dy = arguments.inputs[2], &dtable = arguments.outputs[0];
  const std::int64_t rows = ids.elements(), width = dtable.shape.columns(), column_blocks = divide_up(width, kThreads);
  std::int32_t* sorted = reinterpret_cast<std::int32_t*>(arguments.workspace);
  launcher({divide_up(rows, kThreads), kThreads * static_cast<std::int64_t>(sizeof(std::int32_t))},
           SortRowsBody{ids.as<std::int32_t>(), sorted, rows});
  const bool adds = op.target() == EmbedGrad::Target::in_place;
  dispatch_float(dtable.dtype, [&]<class T>(T) {
    if (!adds) for_each(launcher, dtable.elements(), ZeroElement<T>{dtable.as<T>()});
    launcher({rows * column_blocks}, EmbedGradBody<T>{ids.as<std::int32_t>(), sorted, dy.as<T>(), dtable.as<T>(), rows,
                                                      dtable.shape.rows(), width, op.offset(), column_blocks, adds});
  });
}

}  // namespace annulus
