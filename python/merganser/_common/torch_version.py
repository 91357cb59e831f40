"""Version check that runs before compiled code is loaded.

The C++ interface of torch changes with every minor version: with another torch,
`_C` fails to load with the name of a missing symbol, or loads and crashes later.
"""

import torch


def check_torch(build) -> None:
    """Raises ImportError unless the running torch fits `build`.

    `build` has VERSION, TORCH and CUDA, like `merganser._build`. Major and minor
    versions must be equal; a build with CUDA kernels needs a torch with CUDA.
    """
    if _minor(torch.__version__) != _minor(build.TORCH):
        raise ImportError(
            f"merganser {build.VERSION} was built with torch {build.TORCH}, but "
            f"torch {torch.__version__} is installed: install "
            f"torch=={_minor(build.TORCH)}.*, or rebuild merganser with the "
            "installed torch"
        )
    if build.CUDA is not None and torch.version.cuda is None:
        raise ImportError(
            f"merganser {build.VERSION} was built with CUDA {build.CUDA} kernels, "
            f"but torch {torch.__version__} is a CPU build: install torch with "
            "CUDA, or rebuild merganser with the installed torch"
        )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
