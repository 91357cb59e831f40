# Decides from facts, not from the presence of a GPU, whether the CUDA kernels
# are built: torch must be a CUDA build, and an nvcc of its major version must be
# found.

set(MERGANSER_WITH_CUDA OFF)
if(MERGANSER_CUDA STREQUAL "OFF" OR NOT MERGANSER_TORCH)
  set(cuda_reason "switched off")
elseif(TORCH_CUDA_VERSION STREQUAL "none")
  set(cuda_reason "torch ${TORCH_VERSION} is a CPU build")
else()
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(cuda_reason "torch has CUDA ${TORCH_CUDA_VERSION}, but no nvcc was found")
  else()
    execute_process(
      COMMAND ${CMAKE_CUDA_COMPILER} --version OUTPUT_VARIABLE nvcc_version)
    string(REGEX MATCH "release ([0-9]+)" _ "${nvcc_version}")
    set(nvcc_major ${CMAKE_MATCH_1})
    string(REGEX MATCH "^[0-9]+" torch_cuda_major ${TORCH_CUDA_VERSION})
    if(NOT nvcc_major STREQUAL torch_cuda_major)
      set(cuda_reason "torch has CUDA ${TORCH_CUDA_VERSION}, but ${CMAKE_CUDA_COMPILER} is of CUDA ${nvcc_major}")
    else()
      set(MERGANSER_WITH_CUDA ON)
      set(cuda_reason "torch has CUDA ${TORCH_CUDA_VERSION}")
    endif()
  endif()
endif()
if(MERGANSER_CUDA STREQUAL "ON" AND NOT MERGANSER_WITH_CUDA)
  message(FATAL_ERROR "MERGANSER_CUDA=ON cannot be met: ${cuda_reason}")
endif()

if(MERGANSER_WITH_CUDA)
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90-real 100)
  endif()
  enable_language(CUDA)
  set(CMAKE_CUDA_STANDARD 17) # CMake 3.25 knows no later one
  set(CMAKE_CUDA_STANDARD_REQUIRED ON)
  set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
  set(CMAKE_CUDA_RUNTIME_LIBRARY Shared) # the one that torch has loaded
  find_package(CUDAToolkit REQUIRED)
  # No FMA contraction, as on the CPU (cmake/base.cmake).
  target_compile_options(merganser_options INTERFACE
    $<$<COMPILE_LANGUAGE:CUDA>:--fmad=false;-Xcompiler=-Wall,-Wextra>)
  if(MERGANSER_WERROR)
    target_compile_options(merganser_options INTERFACE
      $<$<COMPILE_LANGUAGE:CUDA>:--Werror=all-warnings;-Xcompiler=-Werror>)
  endif()
  target_link_libraries(merganser_libtorch INTERFACE
    ${TORCH_LIBRARY_DIR}/libtorch_cuda.so
    ${TORCH_LIBRARY_DIR}/libc10_cuda.so
    ${CUDA_cudart_LIBRARY})
endif()
