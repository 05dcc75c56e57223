#include "runtime/cpu/tile_kernels_of.h"

namespace annulus {

template <class T>
const TileKernels<T>& avx512_tile_kernels() {
  static constexpr TileKernels<T> kTable = TileKernelsOf<T, 64>::table();
  return kTable;
}

template const TileKernels<float>& avx512_tile_kernels();
template const TileKernels<double>& avx512_tile_kernels();

}  // namespace annulus
