# Decides from facts, not from the presence of a GPU, whether the CUDA kernels
# are built: torch must be a CUDA build and nvcc must be found.

set(MERGANSER_WITH_CUDA OFF)
if(MERGANSER_CUDA STREQUAL "OFF" OR NOT MERGANSER_TORCH)
  set(cuda_reason "switched off")
else()
  include(CheckLanguage)
  check_language(CUDA)
  if(TORCH_CUDA_VERSION STREQUAL "none")
    set(cuda_reason "torch ${TORCH_VERSION} is a CPU build")
  elseif(NOT CMAKE_CUDA_COMPILER)
    set(cuda_reason "nvcc was not found")
  else()
    set(MERGANSER_WITH_CUDA ON)
    set(cuda_reason "torch has CUDA ${TORCH_CUDA_VERSION}")
  endif()
  if(MERGANSER_CUDA STREQUAL "ON" AND NOT MERGANSER_WITH_CUDA)
    message(FATAL_ERROR
      "MERGANSER_CUDA=ON cannot be met: ${cuda_reason}")
  endif()
endif()

if(MERGANSER_WITH_CUDA)
  if(NOT CMAKE_CUDA_ARCHITECTURES)
    set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90-real 100)
  endif()
  enable_language(CUDA)
  set(CMAKE_CUDA_STANDARD 20)
  find_package(CUDAToolkit REQUIRED)
  # The wheel's own CUDA headers (cublas and others) lie beside torch; a toolkit
  # need not have them.
  get_filename_component(site_packages ${TORCH_ROOT} DIRECTORY)
  file(GLOB wheel_cuda_includes ${site_packages}/nvidia/*/include)
  target_include_directories(merganser_libtorch SYSTEM INTERFACE
    ${CUDAToolkit_INCLUDE_DIRS} ${wheel_cuda_includes})
  target_link_libraries(merganser_libtorch INTERFACE
    ${TORCH_LIBRARY_DIR}/libtorch_cuda.so
    ${TORCH_LIBRARY_DIR}/libc10_cuda.so
    CUDA::cudart)
endif()
