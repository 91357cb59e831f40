# merganser::torch_python: what a pybind11 module that takes tensors needs.

find_package(Python 3.10 REQUIRED COMPONENTS Interpreter Development.Module)

add_library(merganser_torch_python INTERFACE)
add_library(merganser::torch_python ALIAS merganser_torch_python)
target_link_libraries(merganser_torch_python INTERFACE
  merganser::libtorch ${TORCH_LIBRARY_DIR}/libtorch_python.so Python::Module)
