#pragma once

#include <array>
#include <cstdint>
#include <string_view>

namespace annulus {

using PhiloxKey = std::array<std::uint32_t, 2>;
using PhiloxCounter = std::array<std::uint32_t, 4>;

/// One round of Philox, on a counter of four words. `Word` is a 64-bit number, or a vector of them for as many
/// counters: its low half is the counter's, its high half means nothing. `product(word, factor)` is that of the low
/// halves.
template <class Word, class Product>
constexpr void philox_round(Word& c0, Word& c1, Word& c2, Word& c3, PhiloxKey key, const Product& product) {
  const Word first = product(c0, std::uint32_t{0xD2511F53}), second = product(c2, std::uint32_t{0xCD9E8D57});
  c0 = (second >> 32) ^ c1 ^ std::uint64_t{key[0]};
  c1 = second;
  c2 = (first >> 32) ^ c3 ^ std::uint64_t{key[1]};
  c3 = first;
}
inline constexpr int kPhiloxRounds = 10;
constexpr PhiloxKey philox_next_key(PhiloxKey key) { return {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85}; }

/// Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): 128 random bits that are a
/// function of key and counter alone, so that any rank can draw any element of any stream.
constexpr PhiloxCounter philox(PhiloxCounter counter, PhiloxKey key) {
  const auto product = [](std::uint64_t word, std::uint32_t factor) {
    return std::uint64_t{static_cast<std::uint32_t>(word)} * factor;
  };
  std::uint64_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
  for (int round = 0; round < kPhiloxRounds; ++round) {
    philox_round(c0, c1, c2, c3, key, product);
    key = philox_next_key(key);
  }
  return {static_cast<std::uint32_t>(c0), static_cast<std::uint32_t>(c1), static_cast<std::uint32_t>(c2),
          static_cast<std::uint32_t>(c3)};
}

/// Finaliser of SplitMix64 (Steele et al. 2014): every input bit moves every output bit.
constexpr std::uint64_t mix_bits(std::uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

/// The key of a named stream: a hash of seed, name and step. Streams of other names or steps are unrelated.
PhiloxKey stream_key(std::uint64_t seed, std::string_view name, std::uint64_t step = 0);
/// The same from a name that was hashed beforehand by `stream_id`.
constexpr PhiloxKey stream_key(std::uint64_t seed, std::uint64_t stream, std::uint64_t step) {
  const std::uint64_t key = mix_bits(mix_bits(mix_bits(seed) ^ stream) ^ step);
  return {static_cast<std::uint32_t>(key), static_cast<std::uint32_t>(key >> 32)};
}
std::uint64_t stream_id(std::string_view name);

/// 32 random bits to (0, 1): never 0, never 1.
constexpr double uniform(std::uint32_t bits) { return (static_cast<double>(bits) + 0.5) * 0x1p-32; }

/// Standard normal number `index` of a stream (Box-Muller).
double normal(PhiloxKey key, std::uint64_t index);

/// 64 random bits, number `index` of a stream.
std::uint64_t random_bits(PhiloxKey key, std::uint64_t index);

}  // namespace annulus
