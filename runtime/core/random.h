#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace annulus {

using PhiloxKey = std::array<std::uint32_t, 2>;
using PhiloxCounter = std::array<std::uint32_t, 4>;

/// One round of Philox, on a counter of four words: for loops over many counters at once.
constexpr void philox_round(std::uint32_t& c0, std::uint32_t& c1, std::uint32_t& c2, std::uint32_t& c3, PhiloxKey key) {
  const std::uint64_t first = std::uint64_t{0xD2511F53} * c0;
  const std::uint64_t second = std::uint64_t{0xCD9E8D57} * c2;
  c0 = static_cast<std::uint32_t>(second >> 32) ^ c1 ^ key[0];
  c1 = static_cast<std::uint32_t>(second);
  c2 = static_cast<std::uint32_t>(first >> 32) ^ c3 ^ key[1];
  c3 = static_cast<std::uint32_t>(first);
}
inline constexpr int kPhiloxRounds = 10;
constexpr PhiloxKey philox_next_key(PhiloxKey key) { return {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85}; }

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): 128 random bits that are a
/// function of key and counter alone, so that any rank can draw any element of any stream.
constexpr PhiloxCounter philox(PhiloxCounter counter, PhiloxKey key) {
  for (int round = 0; round < kPhiloxRounds; ++round) {
    philox_round(counter[0], counter[1], counter[2], counter[3], key);
    key = philox_next_key(key);
  }
  return counter;
}

/// The key of a named stream: a hash of seed, name and step. Streams of other names or steps are unrelated.
PhiloxKey stream_key(std::uint64_t seed, std::string_view name, std::uint64_t step = 0);
/// The same from a name that was hashed beforehand by `stream_id`.
PhiloxKey stream_key(std::uint64_t seed, std::uint64_t stream, std::uint64_t step);
std::uint64_t stream_id(std::string_view name);

/// 32 random bits to (0, 1): never 0, never 1.
constexpr double uniform(std::uint32_t bits) { return (static_cast<double>(bits) + 0.5) * 0x1p-32; }

/// Standard normal number `index` of a stream (Box-Muller).
double normal(PhiloxKey key, std::uint64_t index);

/// 64 random bits, number `index` of a stream.
std::uint64_t random_bits(PhiloxKey key, std::uint64_t index);

}  // namespace annulus
