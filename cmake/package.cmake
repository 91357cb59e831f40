# What cmake --install puts where. Two layouts:
#   a prefix    libraries, headers, find_package(Merganser), executables
#   the wheel   the same libraries beside the Python module (setup.py, which
#               sets MERGANSER_WHEEL, installs the components one by one)

option(MERGANSER_WHEEL "Install into the layout of the Python package" OFF)
mark_as_advanced(MERGANSER_WHEEL)
if(MERGANSER_WHEEL)
  include(install_wheel)
else()
  include(install_prefix)
endif()
