# Component "wheel", into site-packages:
#   merganser/_C...so, merganser/_build.py
#   merganser/lib/    libmerganser_core, libmerganser_torch
#   merganser/bin/    merganser-torch
# Component "scripts", into bin/: merganser, an executable of its own, so that
# starting it costs no start of Python.

install(TARGETS merganser_core merganser_torch
  LIBRARY DESTINATION merganser/lib
  COMPONENT wheel NAMELINK_SKIP EXCLUDE_FROM_ALL)
install(TARGETS merganser-torch
  DESTINATION merganser/bin COMPONENT wheel EXCLUDE_FROM_ALL)
install(TARGETS merganser_python
  LIBRARY DESTINATION merganser COMPONENT wheel EXCLUDE_FROM_ALL)
install(FILES ${CMAKE_BINARY_DIR}/python/merganser/_build.py
  DESTINATION merganser COMPONENT wheel EXCLUDE_FROM_ALL)
install(TARGETS merganser
  DESTINATION . COMPONENT scripts EXCLUDE_FROM_ALL)

# Python has loaded torch before.
set_target_properties(merganser_python PROPERTIES INSTALL_RPATH "\$ORIGIN/lib")

# site-packages as seen from bin/; Debian's own Python calls it dist-packages,
# and Red Hat's has it in lib64.
set(wheel_bin_rpath "")
set(python python${Python_VERSION_MAJOR}.${Python_VERSION_MINOR})
foreach(lib lib lib64)
  foreach(packages site-packages dist-packages)
    list(APPEND wheel_bin_rpath
      "\$ORIGIN/../${lib}/${python}/${packages}/merganser/lib")
  endforeach()
endforeach()
