"""Runs of a script in several processes that torch.distributed connects."""

import os
import socket
import subprocess
import sys

from repository import SUPPORT


def run_ranks(script, folder, *arguments, count=2, codes=None):
    """Runs a script of the support directory in `count` processes with a directory and
    further arguments. Returns the outputs.

    codes: the expected exit codes; None: 0.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, SUPPORT / script, folder, *arguments],
            env=os.environ
            | {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(count)}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(count)
    ]
    outputs = []
    try:
        for process, code in zip(processes, codes or [0] * count, strict=True):
            outputs.append(process.communicate(timeout=300)[0])
            assert process.returncode == code, outputs[-1]
    finally:
        for process in processes:
            process.kill()
    return outputs
