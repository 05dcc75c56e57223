# CUDA's compiler and libraries. Nothing links libcuda itself, so that programs start, and say what is missing, without it.
set(ANNULUS_CUDA_ARCHITECTURES 80-real 90a-real 90-virtual CACHE STRING "GPUs to compile kernels for")
set(CMAKE_CUDA_ARCHITECTURES ${ANNULUS_CUDA_ARCHITECTURES})
enable_language(CUDA)
set(CMAKE_CUDA_STANDARD 20)
set(CMAKE_CUDA_STANDARD_REQUIRED ON)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that this compiler has it
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
endif()
find_package(CUDAToolkit REQUIRED)
include(cmake/cudnn.cmake)
# NCCL may lie beside the toolkit.
set(CMAKE_LIBRARY_PATH ${CUDAToolkit_LIBRARY_DIR} ${CMAKE_LIBRARY_PATH})
set(CMAKE_INCLUDE_PATH ${CUDAToolkit_INCLUDE_DIRS} ${CMAKE_INCLUDE_PATH})
annulus_dependency(nccl nccl.h nccl)
add_library(annulus_cuda_libraries INTERFACE)
add_library(annulus::cuda_libraries ALIAS annulus_cuda_libraries)
target_link_libraries(annulus_cuda_libraries INTERFACE CUDA::cudart_static CUDA::cublasLt annulus::cudnn)
if(ANNULUS_CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${ANNULUS_CCACHE})
endif()

# Kernels neither spill registers nor use local memory. Uncompressed, PTX can be searched (tests/cuda).
target_compile_options(
  annulus_options
  INTERFACE
    "$<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;--no-compress;-Werror=all-warnings;-Xcompiler=-Wall,-Wextra,-Werror,-Wno-unknown-pragmas;-Xptxas=-warn-spills,-warn-lmem-usage,-Werror>")
