"""Runs of a script in two processes that torch.distributed connects."""

import os
import socket
import subprocess
import sys

from repository import SUPPORT


def run_twice(script, folder):
    """Runs a script of the support directory with a directory as its argument."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes = [
        subprocess.Popen(
            [sys.executable, SUPPORT / script, folder],
            env=os.environ
            | {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in "01"
    ]
    for process in processes:
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 0, output
