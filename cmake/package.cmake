# Rules of cmake --install. Two layouts from one build tree:
#   a prefix    libraries, headers, find_package(Merganser), executables
#   the wheel   the same libraries next to the Python module: the components
#               that setup.py installs
include(install_prefix)
if(MERGANSER_PYTHON AND MERGANSER_TORCH)
  include(install_wheel)
endif()

# One RPATH serves both. Libraries are found relative to what needs them; torch
# is a neighbour in site-packages, or where it was at build time.
set(torch_rpath "\$ORIGIN/../../torch/lib")
if(MERGANSER_WITH_CUDA) # the runtime, as the wheels of CUDA 13 and 12 have it
  list(APPEND torch_rpath
    "\$ORIGIN/../../nvidia/cu13/lib"
    "\$ORIGIN/../../nvidia/cuda_runtime/lib"
    ${site_packages}/nvidia/cu13/lib
    ${site_packages}/nvidia/cuda_runtime/lib)
endif()
set(MERGANSER_TORCH_RPATH "${TORCH_LIBRARY_DIR}" CACHE STRING
  "Directories that installed executables search last for torch")
mark_as_advanced(MERGANSER_TORCH_RPATH)
list(APPEND torch_rpath ${MERGANSER_TORCH_RPATH})

set_target_properties(merganser PROPERTIES
  INSTALL_RPATH "${prefix_bin_rpath};${wheel_bin_rpath}")
if(MERGANSER_TORCH)
  set_target_properties(merganser_torch PROPERTIES
    INSTALL_RPATH "\$ORIGIN;${torch_rpath}")
  set_target_properties(merganser-torch PROPERTIES
    INSTALL_RPATH "${prefix_libexec_rpath};\$ORIGIN/../lib;${torch_rpath}")
endif()
