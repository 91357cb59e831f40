# cmake --install and the wheel
