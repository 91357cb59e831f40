"""merganser fisher --from-checkpoint DIR and merganser fisher --import FILE."""

from __future__ import annotations

import argparse
import json
import sys
import warnings

from .._C import Error, InputError
from .._common.parser import Parser, failed
from ..fisher_from_checkpoint import fisher_from_checkpoint
from ..fisher_result import STORAGES
from .import_file import import_fisher


def _parser() -> Parser:
    parser = Parser(
        prog="merganser fisher --from-checkpoint",
        description="Writes the Fisher in an optimizer's state, or in a file of "
        "another program, without data.",
        allow_abbrev=False,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    add = source.add_argument
    add("--from-checkpoint", metavar="DIR", help="checkpoint with an optimizer's state")
    add("--import", dest="file", metavar="FILE", help="Fisher of another program")
    add = parser.add_argument
    add("--out", required=True, help="file to write (.safetensors)")
    add("--num-examples", type=int, required=True, help="N of the data set")
    add("--model", metavar="DIR", help="--import: the model that the Fisher belongs to")
    add(
        "--storage",
        choices=STORAGES,
        default=STORAGES[0],
        help="form of the file",
    )
    own = parser.add_argument_group("options of --from-checkpoint")
    add = own.add_argument
    add("--max-grad-norm", type=float, help="gradient-clipping norm; 0: no clipping")
    add("--batch-size", type=float, help="examples per step, over all processes")
    add(
        "--loss-terms",
        type=float,
        help="divisor of a step's loss, if not the number of examples",
    )
    add("--start", metavar="DIR", help="earlier checkpoint: only the steps after it")
    add("--betas", type=float, nargs=2, help="Adam's, where the files lack them")
    add("--step", type=int, help="steps taken, where the files lack it")
    parser.add_common(quiet="print no summary")
    return parser


_ONLY_CHECKPOINTS = (
    "max_grad_norm",
    "batch_size",
    "loss_terms",
    "start",
    "betas",
    "step",
)


def _run(arguments: argparse.Namespace):
    given = {
        name: value
        for name in _ONLY_CHECKPOINTS
        if (value := getattr(arguments, name)) is not None
    }
    if arguments.file is not None:
        if given:
            raise InputError(
                f"--{next(iter(given)).replace('_', '-')} applies to --from-checkpoint"
            )
        return import_fisher(
            arguments.file,
            arguments.out,
            num_examples=arguments.num_examples,
            model=arguments.model,
            storage=arguments.storage,
        )
    if arguments.model is not None:
        raise InputError("--model applies to --import")
    if "max_grad_norm" not in given:
        raise InputError(
            "expected --max-grad-norm, the norm that training clipped gradients to "
            "(a Trainer's default is 1), or 0 for none"
        )
    return fisher_from_checkpoint(
        arguments.from_checkpoint,
        arguments.out,
        num_examples=arguments.num_examples,
        storage=arguments.storage,
        **given,
    )


def _show_warning(message, *_, **__) -> None:
    print(f"merganser: {message}", file=sys.stderr)


def main() -> int:
    parser = _parser()
    # Also after --from-checkpoint, of which argparse would take it for the value.
    if {"-h", "--help"} & set(sys.argv[1:]):
        parser.print_help()
        return 0
    arguments = parser.parse_args()
    warnings.showwarning = _show_warning
    try:
        result = _run(arguments)
    except Error as error:
        return failed(error)
    if arguments.json:
        report = {
            "out": arguments.out,
            "estimator": result.estimator,
            "num_examples": result.num_examples,
            "num_examples_used": result.num_examples_used,
        }
        print(json.dumps(report, indent=2))
    elif not arguments.quiet:
        print(
            f"{arguments.out}: {result.estimator} Fisher of {len(result)} tensors, "
            f"{result.num_examples_used} of {result.num_examples} examples"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
