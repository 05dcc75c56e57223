# CUDA's compiler and libraries. Nothing links libcuda itself, so that programs start, and say what is missing, without it.
set(CMAKE_CUDA_ARCHITECTURES 80-real 90a-real 90-virtual)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
enable_language(CUDA)
find_package(CUDAToolkit REQUIRED)
annulus_dependency(nccl nccl.h nccl)
add_library(annulus_cuda_libraries INTERFACE)
add_library(annulus::cuda_libraries ALIAS annulus_cuda_libraries)
target_link_libraries(annulus_cuda_libraries INTERFACE CUDA::cudart_static CUDA::cublasLt)
if(ANNULUS_CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${ANNULUS_CCACHE})
endif()

# Kernels neither spill registers nor use local memory. Uncompressed, PTX can be searched (tests/cuda).
target_compile_options(
  annulus_options
  INTERFACE
    "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;--no-compress;-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Werror,-Wno-unknown-pragmas;-Xptxas=-warn-spills,-warn-lmem-usage,-Werror>")
