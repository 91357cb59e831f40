"""Facts about a build; CMake writes _build.py."""

VERSION: str
TORCH: str  # version that it was compiled against
CUDA: str | None  # version of its kernels; None: a CPU build
