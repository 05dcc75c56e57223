#pragma once

#include <cstdint>

namespace annulus {

/// One rectangle of causal attention between the positions that this rank holds and the keys of one ring step.
/// Begin, end and diagonal are local to a sequence; the global positions feed the counters of dropout.
struct AttentionBlock {
  std::int32_t query_begin = 0, query_end = 0;  ///< local query positions [begin, end)
  std::int32_t key_begin = 0, key_end = 0;      ///< local key positions [begin, end)
  bool causal = false;                          ///< else every query of the block sees every key of it
  std::int32_t diagonal =
      0;  ///< causal: query begin + i sees key begin + j where j <= i + diagonal; -1 leaves row 0 empty
  std::int32_t query_position = 0,
               query_stride = 1;                  ///< global position of query begin + i is query_position + i * stride
  std::int32_t key_position = 0, key_stride = 1;  ///< the same for keys

  bool operator==(const AttentionBlock&) const = default;

  /// Keys of the block, counted from key_begin, that query `begin + i` sees.
  constexpr std::int64_t visible_keys(std::int64_t i) const {
    const std::int64_t keys = key_end - key_begin;
    if (!causal) return keys;
    const std::int64_t seen = i + diagonal + 1;
    return seen < 0 ? 0 : (seen > keys ? keys : seen);
  }
  /// Query-key pairs of the block, of one head and one sequence.
  std::int64_t pairs() const {
    std::int64_t sum = 0;
    for (std::int64_t i = 0; i < query_end - query_begin; ++i) sum += visible_keys(i);
    return sum;
  }
};

}  // namespace annulus
