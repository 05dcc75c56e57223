#include "runtime/cpu/tile_kernels_of.h"

namespace annulus {

InstructionSet best_instruction_set() {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")) return InstructionSet::avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return InstructionSet::avx2;
#endif
  return InstructionSet::generic;
}

template <class T>
const TileKernels<T>& tile_kernels(InstructionSet set) {
#ifdef __x86_64__
  if (set == InstructionSet::avx512) return avx512_tile_kernels<T>();
  if (set == InstructionSet::avx2) return avx2_tile_kernels<T>();
#endif
  return generic_tile_kernels<T>();
}

template const TileKernels<float>& tile_kernels(InstructionSet);
template const TileKernels<double>& tile_kernels(InstructionSet);

}  // namespace annulus
