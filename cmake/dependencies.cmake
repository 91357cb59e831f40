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
require(Threads libc6-dev)
if(MERGANSER_TESTS)
  require(GTest libgtest-dev)
endif()

# utf8proc and xxHash ship no CMake package on Debian.
macro(require_library target header library package)
  find_path(${target}_INCLUDE ${header})
  find_library(${target}_LIBRARY ${library})
  if(${target}_INCLUDE AND ${target}_LIBRARY)
    add_library(${target} UNKNOWN IMPORTED)
    set_target_properties(${target} PROPERTIES
      IMPORTED_LOCATION ${${target}_LIBRARY}
      INTERFACE_INCLUDE_DIRECTORIES ${${target}_INCLUDE})
  else()
    list(APPEND missing ${package})
  endif()
endmacro()
require_library(utf8proc utf8proc.h utf8proc libutf8proc-dev)
require_library(xxhash xxhash.h xxhash libxxhash-dev)

if(missing)
  list(JOIN missing " " missing)
  message(FATAL_ERROR
    "Merganser needs system packages that are not installed; on Debian or "
    "Ubuntu run: apt-get install ${missing}")
endif()
