"""Fisher-weighted merging of fine-tuned models.

The functions and classes listed here are the public interface. The tensor operators
under them are `torch.ops.merganser.*`, documented in `merganser.ops`.
"""

from . import _build
from ._common.torch_version import check_torch

check_torch(_build)

from . import ops
from ._C import Error, InputError
from .adamerging import AdaMergingResult, adamerging
from .adamw_fisher import AdamWFisher
from .calibrate import calibrate
from .comparison import compare_fishers
from .fisher import fisher
from .fisher_from_checkpoint import fisher_from_checkpoint
from .fisher_result import FisherResult
from .gram import GramResult, gram
from .linearize import linearize
from .merging import merge
from .mismatch import mismatch
from .mismatch_result import MismatchResult
from .ops import has_cuda
from .posterior import Posterior
from .recipes import inspect, merge_recipe, plan, verify
from .refine import RefineResult, refine
from .regmean_plus_plus import regmean_plus_plus
from .subspace_fisher import subspace_fisher
from .subspace_result import SubspaceResult
from .trainer import Trainer

__version__ = _build.VERSION


__all__ = [
    "AdaMergingResult",
    "AdamWFisher",
    "Error",
    "FisherResult",
    "GramResult",
    "InputError",
    "MismatchResult",
    "Posterior",
    "RefineResult",
    "SubspaceResult",
    "Trainer",
    "__version__",
    "adamerging",
    "calibrate",
    "compare_fishers",
    "fisher",
    "fisher_from_checkpoint",
    "gram",
    "has_cuda",
    "inspect",
    "linearize",
    "merge",
    "merge_recipe",
    "mismatch",
    "ops",
    "plan",
    "refine",
    "regmean_plus_plus",
    "subspace_fisher",
    "verify",
]
