#include "runtime/cpu/tile_kernels_of.h"

namespace annulus {

template <class T>
const TileKernels<T>& avx2_tile_kernels() {
  static constexpr TileKernels<T> kTable = TileKernelsOf<T, 32>::table();
  return kTable;
}

template const TileKernels<float>& avx2_tile_kernels();
template const TileKernels<double>& avx2_tile_kernels();

}  // namespace annulus
