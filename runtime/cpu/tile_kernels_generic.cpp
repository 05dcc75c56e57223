#include "runtime/cpu/tile_kernels_of.h"

namespace annulus {

template <class T>
const TileKernels<T>& generic_tile_kernels() {
  static constexpr TileKernels<T> kTable = TileKernelsOf<T, 16>::table();
  return kTable;
}

template const TileKernels<float>& generic_tile_kernels();
template const TileKernels<double>& generic_tile_kernels();

}  // namespace annulus
