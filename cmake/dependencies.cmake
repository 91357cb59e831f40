# The libraries of the torch-free core, from the system.
# scripts/setup installs them where there is root.

set(missing "")
macro(require name package)
  find_package(${name} QUIET ${ARGN})
  if(NOT ${name}_FOUND)
    list(APPEND missing ${package})
  endif()
endmacro()

require(fmt libfmt-dev)
require(nlohmann_json nlohmann-json3-dev)
require(yaml-cpp libyaml-cpp-dev)
require(CLI11 libcli11-dev)
require(Eigen3 libeigen3-dev NO_MODULE)
require(Threads libc6-dev)
if(MERGANSER_TESTS)
  require(GTest libgtest-dev)
endif()

# xxHash ships no CMake package on Debian.
find_path(XXHASH_INCLUDE xxhash.h)
find_library(XXHASH_LIBRARY xxhash)
if(XXHASH_INCLUDE AND XXHASH_LIBRARY)
  add_library(xxhash UNKNOWN IMPORTED)
  set_target_properties(xxhash PROPERTIES
    IMPORTED_LOCATION ${XXHASH_LIBRARY}
    INTERFACE_INCLUDE_DIRECTORIES ${XXHASH_INCLUDE})
  # Three times as fast with AVX2, where the library chooses when it runs.
  include(CheckSymbolExists)
  set(CMAKE_REQUIRED_INCLUDES ${XXHASH_INCLUDE})
  set(CMAKE_REQUIRED_LIBRARIES ${XXHASH_LIBRARY})
  check_symbol_exists(
    XXH3_128bits_dispatch xxh_x86dispatch.h MERGANSER_XXHASH_DISPATCHES)
  unset(CMAKE_REQUIRED_INCLUDES)
  unset(CMAKE_REQUIRED_LIBRARIES)
  if(MERGANSER_XXHASH_DISPATCHES)
    target_compile_definitions(xxhash INTERFACE MERGANSER_XXHASH_DISPATCHES)
  endif()
else()
  list(APPEND missing libxxhash-dev)
endif()

if(missing)
  list(JOIN missing " " missing)
  message(FATAL_ERROR
    "Merganser needs system packages that are not installed; on Debian or "
    "Ubuntu run: apt-get install ${missing}")
endif()
