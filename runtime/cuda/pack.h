#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <type_traits>

#include "runtime/core/half.h"
#include "runtime/core/tensor.h"
#include "runtime/cuda/block.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

/// How kernels read and write numbers: 16 bytes a thread where addresses and sizes allow it, one number where they do
/// not; halves become floats on their way in, and are rounded on their way out.
namespace annulus {

/// Numbers of T in 16 bytes.
template <class T>
inline constexpr int kPackOf = 16 / static_cast<int>(sizeof(T));

/// A number as it is computed with, and as it is stored. A GPU has instructions for what half.h computes.
template <class T>
ANNULUS_BODY Wide<T> widened(T stored) {
#ifdef __CUDA_ARCH__
  if constexpr (std::is_same_v<T, BFloat16>) return __bfloat162float(std::bit_cast<__nv_bfloat16>(stored));
  if constexpr (std::is_same_v<T, Float16>) return __half2float(std::bit_cast<__half>(stored));
#endif
  return static_cast<Wide<T>>(stored);
}
template <class T>
ANNULUS_BODY T stored_as(Wide<T> value) {
#ifdef __CUDA_ARCH__
  if constexpr (std::is_same_v<T, BFloat16>) return std::bit_cast<T>(__float2bfloat16_rn(value));
  if constexpr (std::is_same_v<T, Float16>) return std::bit_cast<T>(__float2half_rn(value));
#endif
  return static_cast<T>(value);
}

/// N numbers that a thread holds.
template <class V, int N>
struct Pack {
  V values[N];
  ANNULUS_BODY V& operator[](int k) { return values[k]; }
  ANNULUS_BODY const V& operator[](int k) const { return values[k]; }
};

/// function(0) ... function(N - 1).
template <int N, class Function>
ANNULUS_BODY auto make_pack(const Function& function) {
  Pack<std::remove_cvref_t<decltype(function(0))>, N> pack;
  ANNULUS_UNROLL
  for (int k = 0; k < N; ++k) pack[k] = function(k);
  return pack;
}
template <class V, int N>
ANNULUS_BODY V sum_of(const Pack<V, N>& pack) {
  V sum = pack[0];
  ANNULUS_UNROLL
  for (int k = 1; k < N; ++k) sum += pack[k];
  return sum;
}

/// A pack in memory: what one access, or several of 16 bytes, move.
template <class T, int N>
struct alignas(std::min<std::size_t>(16, N * sizeof(T))) StoredPack {
  T values[N];
};

/// N numbers from or to an address that `aligned` finds fit.
template <int N, class T>
ANNULUS_BODY Pack<Wide<T>, N> load_pack(const T* from) {
  const StoredPack<T, N> stored = *reinterpret_cast<const StoredPack<T, N>*>(from);
  return make_pack<N>([&](int k) { return widened(stored.values[k]); });
}
template <class T, int N>
ANNULUS_BODY void store_pack(T* to, const Pack<Wide<T>, N>& pack) {
  StoredPack<T, N> stored;
  ANNULUS_UNROLL
  for (int k = 0; k < N; ++k) stored.values[k] = stored_as<T>(pack[k]);
  *reinterpret_cast<StoredPack<T, N>*>(to) = stored;
}

/// The same one by one, from or to any address, and only the first `count`: the others are 0.
template <int N, class T>
ANNULUS_BODY Pack<Wide<T>, N> load_some(const T* from, std::int64_t count) {
  return make_pack<N>([&](int k) { return k < count ? widened(from[k]) : Wide<T>(0); });
}
template <class T, int N>
ANNULUS_BODY void store_some(T* to, const Pack<Wide<T>, N>& pack, std::int64_t count) {
  ANNULUS_UNROLL
  for (int k = 0; k < N; ++k) {
    if (k < count) to[k] = stored_as<T>(pack[k]);
  }
}

/// Whether packs of N may begin at the addresses, and at every multiple of N elements behind them.
template <int N, class... T>
bool aligned(const T*... addresses) {
  return ((reinterpret_cast<std::uintptr_t>(addresses) % alignof(StoredPack<T, N>) == 0) && ...);
}

template <int N>
using Width = std::integral_constant<int, N>;

/// The block's threads walk along [0, count): `visit(Width<N>(), i)` is called for N elements from i on if `packed`,
/// and `visit(Width<1>(), i)` for those that are left.
template <int N, class Block, class Visit>
ANNULUS_BODY void walk(Block& block, std::int64_t count, bool packed, const Visit& visit) {
  const std::int64_t packs = packed ? count / N : 0;
  for (std::int64_t pack = block.thread(); pack < packs; pack += block.threads()) visit(Width<N>(), pack * N);
  for (std::int64_t i = packs * N + block.thread(); i < count; i += block.threads()) visit(Width<1>(), i);
}

/// Threads of a block that walks along rows of `columns`, by packs of N.
constexpr int walk_threads(std::int64_t columns, int n) {
  return static_cast<int>(std::clamp<std::int64_t>(divide_up(divide_up(columns, n), kWarp), 1, kThreads / kWarp)) *
         kWarp;
}

/// Calls `element.at<N>(i)`, N = Element::kPack, for every N elements of [0, count) if `packed`, and `element.at<1>(i)`
/// for those that are left.
template <class Element>
struct ForEachPack {
  Element element;
  std::int64_t count, blocks;
  bool packed;

  template <class Block>
  ANNULUS_BODY void operator()(Block& block) const {
    const std::int64_t packs = packed ? count / Element::kPack : 0, threads = blocks * block.threads();
    const std::int64_t first = block.index() * block.threads() + block.thread();
    for (std::int64_t pack = first; pack < packs; pack += threads) {
      element.template at<Element::kPack>(pack * Element::kPack);
    }
    for (std::int64_t i = packs * Element::kPack + first; i < count; i += threads) element.template at<1>(i);
  }
};

/// Launches `element` on [0, count), on as many blocks as are busy at a time; by packs where its operands are `packed`:
/// aligned, and not to be parted otherwise.
template <class Launcher, class Element>
void for_each_pack(const Launcher& launcher, std::int64_t count, bool packed, const Element& element) {
  const std::int64_t work = packed ? divide_up(count, Element::kPack) : count;
  const std::int64_t blocks = std::min(divide_up(work, kThreads), launcher.blocks_at_once());
  launcher({blocks}, ForEachPack<Element>{element, count, blocks, packed});
}

/// y = formula(x...), element by element: all x are stored as X.
template <class Formula, class X, class Y, int kInputs>
struct MapElement {
  static constexpr int kPack = std::max(kPackOf<X>, kPackOf<Y>);
  Formula formula;
  const X* x[kInputs];
  Y* y;

  template <int N>
  ANNULUS_BODY void at(std::int64_t i) const {
    if constexpr (kInputs == 1) {
      const auto a = load_pack<N>(x[0] + i);
      store_pack(y + i, make_pack<N>([&](int k) { return static_cast<Wide<Y>>(formula(a[k])); }));
    } else {
      static_assert(kInputs == 2);
      const auto a = load_pack<N>(x[0] + i), b = load_pack<N>(x[1] + i);
      store_pack(y + i, make_pack<N>([&](int k) { return static_cast<Wide<Y>>(formula(a[k], b[k])); }));
    }
  }
};

template <class Launcher, class Formula, class X, class Y, int kInputs>
void map_elements(const Launcher& launcher, std::int64_t count, Formula formula, const X* const (&x)[kInputs], Y* y) {
  using Element = MapElement<Formula, X, Y, kInputs>;
  Element element{formula, {}, y};
  bool packed = aligned<Element::kPack>(y);
  for (int i = 0; i < kInputs; ++i) {
    element.x[i] = x[i];
    packed = packed && aligned<Element::kPack>(x[i]);
  }
  for_each_pack(launcher, count, packed, element);
}

/// Numbers that are stored as T, or wide: which, is known when the kernel runs.
template <class T>
struct EitherWidth {
  std::byte* data;
  bool is_wide;

  /// Throws InternalError where the tensor is neither.
  explicit EitherWidth(const Tensor& tensor) : data(tensor.data), is_wide(tensor.dtype != dtype_of<T>()) {
    if (is_wide) tensor.as<Wide<T>>();
  }
  ANNULUS_BODY Wide<T> read(std::int64_t i) const {
    return is_wide ? reinterpret_cast<const Wide<T>*>(data)[i] : widened(reinterpret_cast<const T*>(data)[i]);
  }
  ANNULUS_BODY void write(std::int64_t i, Wide<T> value) const {
    if (is_wide) {
      reinterpret_cast<Wide<T>*>(data)[i] = value;
    } else {
      reinterpret_cast<T*>(data)[i] = stored_as<T>(value);
    }
  }
};

}  // namespace annulus
