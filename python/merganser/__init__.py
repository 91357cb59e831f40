"""Fisher-weighted merging of fine-tuned models.

The functions and classes named here are the public interface; the tensor
operators behind them are `torch.ops.merganser.*`, described in
`merganser.ops`.
"""

from . import _build
from ._check import check_torch

check_torch(_build)

from ._C import Error, InputError
from .fisher import fisher
from .fisher_result import FisherResult
from .merging import inspect, merge, merge_recipe, plan
from .trainer import Trainer

__version__ = _build.VERSION


def has_cuda() -> bool:
    """Whether this build holds CUDA kernels."""
    return _build.CUDA is not None


__all__ = [
    "Error",
    "FisherResult",
    "InputError",
    "Trainer",
    "__version__",
    "fisher",
    "has_cuda",
    "inspect",
    "merge",
    "merge_recipe",
    "plan",
]
