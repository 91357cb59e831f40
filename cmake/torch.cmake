# Imported targets for the libraries of the pip wheel of torch:
#   merganser::libtorch    headers, c10, torch_cpu (and CUDA's where it is used)
# Also installed with Merganser: projects that link merganser::torch find torch so.
#
# The wheel's own TorchConfig.cmake is not used: that of a CUDA wheel refuses to
# configure without a CUDA toolkit, and many users have such a wheel and no
# toolkit, but still want a CPU build.

find_package(Python 3.10 REQUIRED COMPONENTS Interpreter)

# torch is found and not imported: a CUDA wheel without its CUDA libraries (as
# scripts/cuda_check installs it) is enough to build with.
execute_process(
  COMMAND ${Python_EXECUTABLE} -c
    "import importlib.util, os, runpy
root = os.path.dirname(importlib.util.find_spec('torch').origin)
facts = runpy.run_path(os.path.join(root, 'version.py'))
print(root, facts['__version__'].split('+')[0], facts['cuda'] or 'none', sep=';')"
  OUTPUT_VARIABLE torch_facts
  OUTPUT_STRIP_TRAILING_WHITESPACE
  ERROR_QUIET
  RESULT_VARIABLE torch_failed)
if(torch_failed)
  message(FATAL_ERROR
    "${Python_EXECUTABLE} has no torch: install torch 2.11 to 2.14 there, or "
    "point -DPython_EXECUTABLE at a Python that has it")
endif()
list(GET torch_facts 0 TORCH_ROOT)
list(GET torch_facts 1 TORCH_VERSION)
list(GET torch_facts 2 TORCH_CUDA_VERSION)
if(TORCH_VERSION VERSION_LESS 2.11 OR TORCH_VERSION VERSION_GREATER_EQUAL 2.15)
  message(WARNING
    "Merganser is built and tested with torch 2.11 to 2.14; this is "
    "${TORCH_VERSION}")
endif()
set(TORCH_LIBRARY_DIR ${TORCH_ROOT}/lib)

add_library(merganser_libtorch INTERFACE)
add_library(merganser::libtorch ALIAS merganser_libtorch)
target_include_directories(merganser_libtorch SYSTEM INTERFACE
  ${TORCH_ROOT}/include ${TORCH_ROOT}/include/torch/csrc/api/include)
# The wheels of all supported versions have the new ABI.
target_compile_definitions(merganser_libtorch INTERFACE
  _GLIBCXX_USE_CXX11_ABI=1)
target_link_libraries(merganser_libtorch INTERFACE
  ${TORCH_LIBRARY_DIR}/libtorch.so
  ${TORCH_LIBRARY_DIR}/libtorch_cpu.so
  ${TORCH_LIBRARY_DIR}/libc10.so)
