"""Measurements of a cell: a model, a length, a dtype and a batch size."""

import time

from safetensors import safe_open

from .workers import Failed, Worker, log

OURS = ("exact", "mc", "empirical")
RUN_SECONDS = 0.5  # a run takes as many batches as fit in about this long
EXAMPLES = 32  # as many as worker.py makes


def make_cell(model, length, dtype, batch_size=None):
    """Batches of 16, of 8 where they are slow; "mixed": 16 to 128 tokens, padded."""
    tokens = 128 if length == "mixed" else int(length)
    if batch_size is None:
        batch_size = 8 if (model, tokens) == ("roberta-base", 384) else 16
    return {
        "model": model,
        "length": tokens,
        "mixed": length == "mixed",
        "dtype": dtype,
        "batch_size": batch_size,
    }


def measure_speed(cell, workers, seconds):
    """Seconds per example, each contestant's round by round.

    Rounds continue until they have taken `seconds`, at least two; in every other one
    the order is turned around, so that nobody always comes after the same one.
    """
    runs, times, errors = {}, {}, {}

    def attempt(work, worker):
        try:
            work(worker)
        except Failed as error:
            log(f"{worker.name}: {error}")
            errors[worker.name] = str(error)
            runs.pop(worker, None)

    def prepare(worker):
        worker.start(_cell_of(worker, cell))
        runs[worker] = _batches_per_run(worker, cell, worker.run(1))
        times[worker.name] = []

    def take_turn(worker):
        examples = runs[worker] * _cell_of(worker, cell)["batch_size"]
        times[worker.name].append(worker.run(runs[worker]) / examples)

    for worker in workers:
        attempt(prepare, worker)
    start = time.perf_counter()
    rounds = 0
    while rounds < 2 or time.perf_counter() - start < seconds:
        order = list(runs) if rounds % 2 == 0 else list(reversed(runs))
        for worker in order:
            attempt(take_turn, worker)
        rounds += 1
    for worker in list(runs):
        attempt(Worker.end, worker)
    times = {name: row for name, row in times.items() if name not in errors}
    return {**cell, "seconds_per_example": times, "errors": errors}


def measure_memory(cell, names):
    """Peak bytes beyond the model, each contestant in a process that did nothing
    before, and how many values its Fisher has."""
    peaks, values, errors = {}, {}, {}
    for name in names:
        worker = Worker(name)
        try:
            worker.start(_cell_of(worker, cell))
            worker.run(2)
            answer = worker.end()
            peaks[name], values[name] = answer["peak"], answer["values"]
        except Failed as error:
            errors[name] = str(error)
            log(f"{name}: {error}")
        worker.stop()
    return {**cell, "peak_bytes": peaks, "values": values, "errors": errors}


def compute_fisher(cell, worker, path):
    """Writes the contestant's Fisher of the cell's EXAMPLES examples."""
    cell = _cell_of(worker, cell)
    worker.start(cell)
    worker.run(EXAMPLES // cell["batch_size"])
    worker.end(str(path))


def difference(path, reference):
    """|a - b| / |b| over all values that a has, and how many they are."""
    total = norm = 0.0
    count = 0
    with safe_open(path, "pt") as a, safe_open(reference, "pt") as b:
        for name in a.keys():
            x, y = (file.get_tensor(name).double() for file in (a, b))
            total += float((x - y).square().sum())
            norm += float(y.square().sum())
            count += x.numel()
    return (total / norm) ** 0.5, count


def _cell_of(worker, cell):
    return {**cell, "batch_size": 1} if worker.name == "loop" else cell


def _batches_per_run(worker, cell, first):
    """first: seconds for the first batch, which no result counts."""
    if cell["mixed"]:  # all of them, so that everyone has the same lengths
        return EXAMPLES // _cell_of(worker, cell)["batch_size"]
    if first > RUN_SECONDS:
        return 1
    return max(1, round(RUN_SECONDS / worker.run(1)))
