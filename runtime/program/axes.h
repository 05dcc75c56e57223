#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace annulus {

/// A set of a mesh's atomic axes.
class AxisSet {
 public:
  constexpr AxisSet() = default;
  constexpr explicit AxisSet(int axis) : bits_(1u << axis) {}

  constexpr bool contains(int axis) const { return (bits_ >> axis) & 1u; }
  constexpr bool contains(AxisSet other) const { return (bits_ & other.bits_) == other.bits_; }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr std::uint32_t bits() const { return bits_; }

  constexpr AxisSet operator|(AxisSet other) const { return from_bits(bits_ | other.bits_); }
  constexpr AxisSet operator&(AxisSet other) const { return from_bits(bits_ & other.bits_); }
  constexpr AxisSet operator-(AxisSet other) const { return from_bits(bits_ & ~other.bits_); }
  constexpr auto operator<=>(const AxisSet&) const = default;

 private:
  static constexpr AxisSet from_bits(std::uint32_t bits) {
    AxisSet set;
    set.bits_ = bits;
    return set;
  }
  std::uint32_t bits_ = 0;
};

/// The atomic axes of a mesh, outer to inner, as one rank sees them. Made by parallel/mesh; programs only count with
/// it.
struct MeshAxes {
  static constexpr int kMaxAxes = 6;

  struct Axis {
    std::string name;
    int size = 1;
    int coordinate = 0;  ///< of this rank
  };
  /// What users call a set of atomic axes, as tp = tk x tr.
  struct Alias {
    std::string name;
    AxisSet axes;
  };

  std::vector<Axis> axes;
  std::vector<Alias> aliases;

  int count() const { return static_cast<int>(axes.size()); }
  const Axis& operator[](int axis) const { return axes[static_cast<std::size_t>(axis)]; }
  AxisSet all() const;
  /// The axes of `set` that have more than one rank: the others constrain nothing.
  AxisSet live(AxisSet set) const;
  /// Ranks in a group over `set`, and this rank's place in it (mixed radix, outer to inner).
  int size(AxisSet set) const;
  int index(AxisSet set) const;
  /// As in `tp` or `dp+cp`, live axes only; `none` for the empty set.
  std::string label(AxisSet set) const;
};

}  // namespace annulus
