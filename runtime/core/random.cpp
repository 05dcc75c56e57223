#include "runtime/core/random.h"

#include <cmath>
#include <numbers>

namespace annulus {
namespace {

PhiloxCounter draw(PhiloxKey key, std::uint64_t index) {
  return philox({static_cast<std::uint32_t>(index), static_cast<std::uint32_t>(index >> 32), 0, 0}, key);
}

}  // namespace

std::uint64_t stream_id(std::string_view name) {
  std::uint64_t hash = 0xCBF29CE484222325;  // FNV-1a
  for (char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001B3;
  return mix_bits(hash);
}

PhiloxKey stream_key(std::uint64_t seed, std::string_view name, std::uint64_t step) {
  return stream_key(seed, stream_id(name), step);
}

double normal(PhiloxKey key, std::uint64_t index) {
  const PhiloxCounter bits = draw(key, index);
  return std::sqrt(-2 * std::log(uniform(bits[0]))) * std::cos(2 * std::numbers::pi * uniform(bits[1]));
}

std::uint64_t random_bits(PhiloxKey key, std::uint64_t index) {
  const PhiloxCounter bits = draw(key, index);
  return bits[0] | (static_cast<std::uint64_t>(bits[1]) << 32);
}

}  // namespace annulus
