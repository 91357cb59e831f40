# Component "package", into site-packages:
#   merganser/_C...so, merganser/_build.py
#   merganser/lib/    libmerganser_core, libmerganser_torch
#   merganser/bin/    merganser-torch
# Component "scripts", into bin/: merganser, an executable of its own, so that
# starting it costs no start of Python.
#
# Libraries are found relative to who needs them: torch is another folder in
# site-packages. MERGANSER_TORCH_RPATH: where else it may be (setup.py).

set(MERGANSER_TORCH_RPATH "" CACHE STRING "More folders to look for torch in")

install(TARGETS merganser_core merganser_torch
  LIBRARY DESTINATION merganser/lib COMPONENT package NAMELINK_SKIP)
install(TARGETS merganser-torch
  DESTINATION merganser/bin COMPONENT package)
install(TARGETS merganser_python
  LIBRARY DESTINATION merganser COMPONENT package)
install(FILES ${CMAKE_BINARY_DIR}/python/merganser/_build.py
  DESTINATION merganser COMPONENT package)
install(TARGETS merganser DESTINATION . COMPONENT scripts)

set(torch_rpath "\$ORIGIN/../../torch/lib")
if(MERGANSER_WITH_CUDA) # the runtime, as the wheels of CUDA 13 and 12 have it
  list(APPEND torch_rpath
    "\$ORIGIN/../../nvidia/cu13/lib"
    "\$ORIGIN/../../nvidia/cuda_runtime/lib")
endif()
list(APPEND torch_rpath ${MERGANSER_TORCH_RPATH})
set_target_properties(merganser_torch PROPERTIES
  INSTALL_RPATH "\$ORIGIN;${torch_rpath}")
set_target_properties(merganser-torch PROPERTIES
  INSTALL_RPATH "\$ORIGIN/../lib;${torch_rpath}")
# Python has loaded torch before.
set_target_properties(merganser_python PROPERTIES INSTALL_RPATH "\$ORIGIN/lib")

# site-packages as seen from bin/; Debian's own Python calls it dist-packages,
# and Red Hat's has it in lib64.
set(script_rpath "")
set(python python${Python_VERSION_MAJOR}.${Python_VERSION_MINOR})
foreach(lib lib lib64)
  foreach(packages site-packages dist-packages)
    list(APPEND script_rpath
      "\$ORIGIN/../${lib}/${python}/${packages}/merganser/lib")
  endforeach()
endforeach()
set_target_properties(merganser PROPERTIES INSTALL_RPATH "${script_rpath}")
