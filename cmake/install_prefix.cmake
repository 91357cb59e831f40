# PREFIX/lib        libmerganser_core, libmerganser_torch
# PREFIX/include    merganser/<layer>/<header>.h
# PREFIX/lib/cmake  find_package(Merganser COMPONENTS core torch)
# PREFIX/bin        merganser
# PREFIX/libexec    merganser/merganser-torch, which merganser starts

include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/Merganser)
set(libexec_dir ${CMAKE_INSTALL_LIBEXECDIR}/merganser)

# Sets `result` to the runpath from a directory of the prefix to its libraries.
function(relative_rpath result from)
  file(RELATIVE_PATH path /prefix/${from} /prefix/${CMAKE_INSTALL_LIBDIR})
  set(${result} "\$ORIGIN/${path}" PARENT_SCOPE)
endfunction()
relative_rpath(prefix_bin_rpath ${CMAKE_INSTALL_BINDIR})
relative_rpath(prefix_libexec_rpath ${libexec_dir})

install(TARGETS merganser_core EXPORT MerganserCore)
install(TARGETS merganser)
install(EXPORT MerganserCore NAMESPACE merganser:: DESTINATION ${package_dir})

if(MERGANSER_TORCH)
  install(TARGETS merganser_torch EXPORT MerganserTorch)
  install(TARGETS merganser-torch DESTINATION ${libexec_dir})
  install(EXPORT MerganserTorch
    NAMESPACE merganser:: DESTINATION ${package_dir})
  install(FILES ${CMAKE_CURRENT_LIST_DIR}/torch.cmake
    DESTINATION ${package_dir})
endif()

set(layers numeric base io text recipe plan merge provenance engine)
if(MERGANSER_TORCH)
  list(APPEND layers kernels ops model fisher eval train objective
    search experiment)
endif()
list(TRANSFORM layers PREPEND ${CMAKE_SOURCE_DIR}/csrc/merganser/)
install(DIRECTORY ${layers}
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/merganser
  FILES_MATCHING PATTERN *.h)

configure_package_config_file(
  ${CMAKE_CURRENT_LIST_DIR}/MerganserConfig.cmake.in
  ${CMAKE_BINARY_DIR}/cmake/MerganserConfig.cmake
  INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(
  ${CMAKE_BINARY_DIR}/cmake/MerganserConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES
  ${CMAKE_BINARY_DIR}/cmake/MerganserConfig.cmake
  ${CMAKE_BINARY_DIR}/cmake/MerganserConfigVersion.cmake
  DESTINATION ${package_dir})
