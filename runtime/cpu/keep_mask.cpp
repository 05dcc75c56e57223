#include "runtime/cpu/keep_mask.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "runtime/core/vector.h"

namespace annulus {
namespace {

using Words = Vector<std::uint64_t>;
constexpr std::int64_t kCounters = kLanes<std::uint64_t>;

/// As many counters as a vector has lanes, one vector a word; the high halves of lanes mean nothing.
struct CounterLanes {
  Words word[4];

  CounterLanes(PhiloxCounter fixed, int field, Words values) {
    for (std::size_t w = 0; w < 4; ++w) word[w] = Words{} + fixed[w];
    word[field] = values;
  }

  void draw(PhiloxKey key) {
    const auto product = [](Words words, std::uint32_t factor) { return low_product(words, Words{} + factor); };
    for (int round = 0; round < kPhiloxRounds; ++round) {
      philox_round(word[0], word[1], word[2], word[3], key, product);
      key = philox_next_key(key);
    }
  }

  /// All words, counter by counter.
  void store(std::uint32_t* to) const {
    constexpr std::uint64_t kLow = 0xFFFFFFFF;
    const Words front = (word[0] & kLow) | (word[1] << 32), back = (word[2] & kLow) | (word[3] << 32);
    store_interleaved(front, back, to, std::make_index_sequence<kCounters>());
  }

 private:
  template <std::size_t... I>
  static void store_interleaved(Words a, Words b, std::uint32_t* to, std::index_sequence<I...>) {
    constexpr std::size_t kHalf = kCounters / 2;
    const Words pairs[2] = {__builtin_shufflevector(a, b, (I % 2 == 0 ? I / 2 : kCounters + I / 2)...),
                            __builtin_shufflevector(a, b, (I % 2 == 0 ? kHalf + I / 2 : kCounters + kHalf + I / 2)...)};
    std::memcpy(to, pairs, sizeof pairs);
  }
};

Words lane_numbers() {
  Words numbers;
  for (std::int64_t lane = 0; lane < kCounters; ++lane) numbers[lane] = static_cast<std::uint64_t>(lane);
  return numbers;
}

/// Neighbours share a counter: four words of each are used.
void contiguous_words(PhiloxKey key, PhiloxCounter fixed, int field, std::uint32_t first, std::int64_t count,
                      std::uint32_t* words) {
  std::uint32_t skipped = first % 4;
  std::uint32_t group = first / 4;
  for (std::int64_t done = 0; done < count; group += kCounters) {
    CounterLanes lanes(fixed, field, lane_numbers() + group);
    lanes.draw(key);
    if (skipped == 0 && count - done >= 4 * kCounters) {
      lanes.store(words + done);
      done += 4 * kCounters;
    } else {
      std::uint32_t drawn[4 * kCounters];
      lanes.store(drawn);
      const std::int64_t size = std::min<std::int64_t>(4 * kCounters - skipped, count - done);
      std::copy_n(drawn + skipped, size, words + done);
      done += size;
      skipped = 0;
    }
  }
}

}  // namespace

void philox_words(PhiloxKey key, PhiloxCounter fixed, int field, std::uint32_t first, std::uint32_t stride,
                  std::int64_t count, std::uint32_t* words) {
  if (stride == 1) return contiguous_words(key, fixed, field, first, count, words);
  for (std::int64_t done = 0; done < count; done += kCounters) {
    const std::uint32_t begin = first + static_cast<std::uint32_t>(done) * stride;
    CounterLanes lanes(fixed, field, (lane_numbers() * stride + begin) / 4);
    lanes.draw(key);
    const std::int64_t size = std::min(kCounters, count - done);
    for (std::int64_t lane = 0; lane < size; ++lane) {
      const Words& drawn = lanes.word[(begin + static_cast<std::uint32_t>(lane) * stride) % 4];
      words[done + lane] = static_cast<std::uint32_t>(drawn[lane]);
    }
  }
}

}  // namespace annulus
