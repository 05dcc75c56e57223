#include <cuda_runtime.h>

#include "runtime/cuda/check.h"
#include "runtime/cuda/streams.h"

namespace annulus {
namespace {

using Word = unsigned long long;

__global__ void tell(volatile Word* words, int index, Word number) {
  __threadfence_system();  // what is told has been done
  words[index] = words[0] + number;
  __threadfence_system();
}

__device__ Word nanoseconds() {
  Word time = 0;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
  return time;
}

__global__ void stand_still(Word duration) {
  const Word begin = nanoseconds();
  while (nanoseconds() - begin < duration) __nanosleep(1000);
}

cudaLaunchConfig_t one_thread(CUstream_st* stream) {
  cudaLaunchConfig_t config{};
  config.gridDim = config.blockDim = dim3(1);
  config.stream = stream;
  return config;
}

}  // namespace

void launch_tell(std::uint64_t* words, int index, std::uint64_t number, CUstream_st* stream) {
  const cudaLaunchConfig_t config = one_thread(stream);
  check(cudaLaunchKernelEx(&config, tell, reinterpret_cast<Word*>(words), index, number), "a kernel that tells");
}

void launch_delay(double seconds, CUstream_st* stream) {
  const cudaLaunchConfig_t config = one_thread(stream);
  check(cudaLaunchKernelEx(&config, stand_still, static_cast<Word>(seconds * 1e9)), "a kernel that stands still");
}

}  // namespace annulus
