#include "runtime/cpu/keep_mask.h"

#include <algorithm>

namespace annulus {
namespace {

constexpr int kLanes = 16;

/// `count` counters (at most kLanes of use), as four arrays of one word each.
struct CounterLanes {
  std::uint32_t word[4][kLanes];

  CounterLanes(PhiloxCounter fixed, int field, std::uint32_t first, std::uint32_t step) {
    for (int w = 0; w < 4; ++w) std::fill_n(word[w], kLanes, fixed[static_cast<std::size_t>(w)]);
    for (std::uint32_t lane = 0; lane < kLanes; ++lane) word[field][lane] = first + lane * step;
  }

  void draw(PhiloxKey key) {
    for (int round = 0; round < kPhiloxRounds; ++round) {
#pragma omp simd
      for (int lane = 0; lane < kLanes; ++lane) {
        philox_round(word[0][lane], word[1][lane], word[2][lane], word[3][lane], key);
      }
      key = philox_next_key(key);
    }
  }
};

/// Neighbours share a counter: four words of each are used.
void contiguous_words(PhiloxKey key, PhiloxCounter fixed, int field, std::uint32_t first, std::int64_t count,
                      std::uint32_t* words) {
  std::int64_t done = 0;
  std::uint32_t skipped = first % 4;
  for (std::uint32_t group = first / 4; done < count; group += kLanes) {
    CounterLanes lanes(fixed, field, group, 1);
    lanes.draw(key);
    std::uint32_t drawn[4 * kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      for (int w = 0; w < 4; ++w) drawn[4 * lane + w] = lanes.word[w][lane];
    }
    const std::int64_t size = std::min<std::int64_t>(4 * kLanes - skipped, count - done);
    std::copy_n(drawn + skipped, size, words + done);
    done += size;
    skipped = 0;
  }
}

}  // namespace

void philox_words(PhiloxKey key, PhiloxCounter fixed, int field, std::uint32_t first, std::uint32_t stride,
                  std::int64_t count, std::uint32_t* words) {
  if (stride == 1) return contiguous_words(key, fixed, field, first, count, words);
  for (std::int64_t done = 0; done < count; done += kLanes) {
    const std::uint32_t begin = first + static_cast<std::uint32_t>(done) * stride;
    CounterLanes lanes(fixed, field, 0, 0);
    for (std::uint32_t lane = 0; lane < kLanes; ++lane) lanes.word[field][lane] = (begin + lane * stride) / 4;
    lanes.draw(key);
    const std::int64_t size = std::min<std::int64_t>(kLanes, count - done);
    for (std::int64_t lane = 0; lane < size; ++lane) {
      words[done + lane] = lanes.word[(begin + static_cast<std::uint32_t>(lane) * stride) % 4][lane];
    }
  }
}

}  // namespace annulus
