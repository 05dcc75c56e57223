#pragma once

#include <algorithm>

#include "runtime/cuda/elementwise.h"
#include "runtime/ops/embed.h"

namespace annulus {

/// Rows of the table, as words.
template <class Word>
struct EmbedWord {
  const std::int32_t* ids;
  const Word* table;
  Word* y;
  std::int64_t table_rows, row_words, offset;

  ANNULUS_BODY void operator()(std::int64_t i) const {
    const std::int64_t id = ids[i / row_words] - offset;
    y[i] = id >= 0 && id < table_rows ? table[id * row_words + i % row_words] : Word{};
  }
};

/// Sorts rows by (id, row): each row's place is the number of rows before it. That many comparisons are cheap beside
/// the gradient itself up to some 100,000 rows, and nothing depends on the order in which threads run.
struct SortRowsBody {
  const std::int32_t* ids;
  std::int32_t *sorted, *sorted_ids;
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
    if (row >= rows) return;
    sorted[place] = static_cast<std::int32_t>(row);
    sorted_ids[place] = id;
  }
};

/// One block for each sorted place and a part of the columns. Where a run of one id begins, it sums the run, row after
/// row.
template <class T>
struct EmbedGradBody {
  using W = Wide<T>;
  static constexpr int kPack = kPackOf<T>;
  static constexpr int kAtOnce = 8;  ///< rows on their way at a time: frequent tokens make long runs
  const std::int32_t *sorted, *sorted_ids;
  const T* dy;
  W* dtable;
  std::int64_t rows, table_rows, width, offset, column_blocks;
  bool adds;    ///< to what lies in the table
  bool packed;  ///< rows begin aligned

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t place = block.index() / column_blocks;
    const std::int64_t column = (block.index() % column_blocks * block.threads() + block.thread()) * kPack;
    const std::int32_t token = sorted_ids[place];
    const std::int64_t id = token - offset, left = width - column;
    const bool begins = place == 0 || sorted_ids[place - 1] != token;
    if (!begins || id < 0 || id >= table_rows || left <= 0) return;
    W* const to = dtable + id * width + column;
    auto sum = load_some<kPack>(to, adds ? left : 0);
    std::int64_t next = place;
    for (; next + kAtOnce <= rows && sorted_ids[next + kAtOnce - 1] == token; next += kAtOnce) {
      Pack<W, kPack> values[kAtOnce];
      ANNULUS_UNROLL
      for (int i = 0; i < kAtOnce; ++i) values[i] = row(sorted[next + i], column);
      ANNULUS_UNROLL
      for (int i = 0; i < kAtOnce; ++i) add(values[i], sum);
    }
    for (; next < rows && sorted_ids[next] == token; ++next) add(row(sorted[next], column), sum);
    packed ? store_pack(to, sum) : store_some(to, sum, left);
  }

 private:
  ANNULUS_BODY Pack<W, kPack> row(std::int64_t index, std::int64_t column) const {
    const T* from = dy + index * width + column;
    return packed ? load_pack<kPack>(from) : load_some<kPack>(from, width - column);
  }
  ANNULUS_BODY static void add(const Pack<W, kPack>& values, Pack<W, kPack>& sum) {
    ANNULUS_UNROLL
    for (int k = 0; k < kPack; ++k) sum[k] += values[k];
  }
};

template <class Launcher>
void launch(const Embed& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &table = arguments.inputs[1], &y = arguments.outputs[0];
  const std::int64_t row_bytes = table.shape.columns() * size_of(table.dtype);
  with_word(
      {static_cast<std::uintptr_t>(row_bytes), reinterpret_cast<std::uintptr_t>(table.data),
       reinterpret_cast<std::uintptr_t>(y.data)},
      [&]<class Word>(Word) {
        constexpr std::int64_t kBytes = sizeof(Word);
        for_each(launcher, y.bytes() / kBytes,
                 EmbedWord<Word>{arguments.inputs[0].as<std::int32_t>(), reinterpret_cast<Word*>(table.data),
                                 reinterpret_cast<Word*>(y.data), table.shape.rows(), row_bytes / kBytes, op.offset()});
      });
}

inline std::int64_t device_workspace_bytes(const EmbedGrad&, OpDefinition::Types inputs, OpDefinition::Types) {
  return 2 * inputs[0].shape.elements() * size_of(DType::i32);
}

template <class Launcher>
void launch(const EmbedGrad& op, const KernelArguments& arguments, const Launcher& launcher) {
  const Tensor &ids = arguments.inputs[0], &dy = arguments.inputs[2], &dtable = arguments.outputs[0];
  const std::int64_t rows = ids.elements(), width = dtable.shape.columns();
  std::int32_t* sorted = reinterpret_cast<std::int32_t*>(arguments.workspace);
  launcher({divide_up(rows, kThreads), kThreads * static_cast<std::int64_t>(sizeof(std::int32_t))},
           SortRowsBody{ids.as<std::int32_t>(), sorted, sorted + rows, rows});
  const bool adds = op.target() == EmbedGrad::Target::in_place;
  dispatch_stored(dy.dtype, [&]<class T>(T) {
    constexpr int kPack = kPackOf<T>;
    const int threads = walk_threads(width, kPack);
    const std::int64_t column_blocks = divide_up(width, std::int64_t{threads} * kPack);
    const bool packed = width % kPack == 0 && aligned<kPack>(dy.as<T>()) && aligned<kPack>(dtable.as<Wide<T>>());
    if (!adds) fill_with_zero<Wide<T>>(launcher, dtable);
    launcher({rows * column_blocks, 0, threads},
             EmbedGradBody<T>{sorted, sorted + rows, dy.as<T>(), dtable.as<Wide<T>>(), rows, dtable.shape.rows(), width,
                              op.offset(), column_blocks, adds, packed});
  });
}

}  // namespace annulus
