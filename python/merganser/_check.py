"""The test that runs before anything compiled is loaded.

torch's C++ interface changes with every minor version: `_C` against another
torch fails with the name of a missing symbol, or not at all until it crashes.
"""

import torch


def check_torch(build) -> None:
    """Raises ImportError unless the running torch is the one of `build`.

    `build` has VERSION, TORCH and CUDA, as `merganser._build`. Versions must
    agree up to the minor one; a build with CUDA kernels needs a torch with CUDA.
    """
    if _minor(torch.__version__) != _minor(build.TORCH):
        raise ImportError(
            f"merganser {build.VERSION} was built with torch {build.TORCH}, but "
            f"this Python has torch {torch.__version__}: install "
            f"torch=={_minor(build.TORCH)}.*, or build merganser again with "
            "the torch that is here"
        )
    if build.CUDA is not None and torch.version.cuda is None:
        raise ImportError(
            f"merganser {build.VERSION} was built with CUDA {build.CUDA} kernels, "
            f"but torch {torch.__version__} is a CPU build: install torch with "
            "CUDA, or build merganser again with the torch that is here"
        )


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
