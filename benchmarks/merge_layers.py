"""Time and memory of the methods that hold whole layers and need no data, with four
experts of random weights:

    python benchmarks/merge_layers.py [--model minilm]

Every merge is a process of its own; reads come from the page cache. Prints a Markdown
table.
"""

import argparse
import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import merge_models
from executable import EXECUTABLE

RECIPES = {
    "`tsv_m`": ("tsv_m", {}),
    "`iso_c`": ("iso_c", {}),
    "`regmean`, `gram: task_vectors`": ("regmean", {"gram": "task_vectors"}),
}


def measure(folder, method, of_model):
    """Seconds, seconds of CPU time, and the buffers that the plan counts."""
    models = [{"model": name} | of_model for name in merge_models.NAMES[1:]]
    recipe = {"merge_method": method, "base_model": "base", "models": models}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))  # JSON is YAML
    plan = [EXECUTABLE, "plan", "recipe.yaml", "--json"]
    text = subprocess.run(plan, cwd=folder, check=True, stdout=subprocess.PIPE).stdout
    command = [EXECUTABLE, "merge", "recipe.yaml", f"out-{method}", "-q"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True)
    seconds = time.perf_counter() - begin
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    return seconds, cpu, json.loads(text)["peak_memory"] / 2**20


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=merge_models.CONFIGS, default="roberta")
    options = parser.parse_args()
    print("| merge | s | CPU time, s | buffers |\n|---|--:|--:|--:|")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        merge_models.make_models(options.model, "float32", folder)
        for label, recipe in RECIPES.items():
            seconds, cpu, buffers = measure(folder, *recipe)
            print(f"| {label} | {seconds:.1f} | {cpu:.1f} | {buffers:.0f} MiB |")


if __name__ == "__main__":
    main()
