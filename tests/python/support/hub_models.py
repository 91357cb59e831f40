"""Recipes of models on the Hub of `hub.serve`, plans of them, and the executable with
its URL."""

import collections
import json
import os
import shutil
import struct
import subprocess

import hub
import merganser
from command import executable
from merge_inputs import recipe

NAMES = ("me/base", "me/a", "me/b")
NOWHERE = "http://127.0.0.1:9"  # refuses connections


def files_of(folder):
    """A directory as a repository of `hub.serve`."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def write_recipe(folder, a="me/a", b="me/b", base="me/base"):
    path = folder / "r.yaml"
    content = {"merge_method": "task_arithmetic", "base_model": str(base)}
    content["models"] = [{"model": str(name)} for name in (a, b)]
    path.write_text(json.dumps(content))
    return path


def environment(cache, url):
    kept = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    own = {"HF_HUB_CACHE": str(cache), "HF_ENDPOINT": url, "NO_PROXY": "127.0.0.1"}
    return kept | own


def run(*arguments, cache, url=NOWHERE, cwd=None):
    command = [executable(), *map(str, arguments)]
    env = environment(cache, url)
    return subprocess.run(command, capture_output=True, text=True, env=env, cwd=cwd)


class Plans:
    """Plans with models on the Hub, next to those with the same models in the recipe's
    directory, under the same names.

    `local` has the models in me/, `away` lacks them; both have r.yaml and the Fishers.
    """

    def __init__(self, path, folder):
        self.local, self.away = path / "local", path / "away"
        self.away.mkdir()
        for name in NAMES:
            shutil.copytree(folder / name.removeprefix("me/"), self.local / name)
        for fisher in folder.glob("*_fisher.safetensors"):
            for to in (self.local, self.away):
                shutil.copy(fisher, to)
        self.write(write_recipe(self.local).read_text())

    def write(self, text):
        for to in (self.local, self.away):
            (to / "r.yaml").write_text(text)

    def repositories(self):
        return {
            f"me/{path.name}": files_of(path) for path in (self.local / "me").iterdir()
        }

    def plans(self, change_directory, connect, **options):
        """Plans, or InputErrors: the local one, and the Hub's with the bytes of each
        file that it received."""
        change_directory(self.local)
        local = plan_or_error()
        change_directory(self.away)
        received = collections.Counter()
        with hub.serve(
            self.repositories(),
            before_part=lambda file, count: received.update({file: count}),
            **options,
        ) as url:
            connect(url)
            return local, plan_or_error(), received


def plan_or_error():
    try:
        return merganser.plan("r.yaml")
    except merganser.InputError as error:
        return str(error)


def header_bytes(file):
    return 8 + struct.unpack("<Q", file.read_bytes()[:8])[0]


def without_notes(plan):
    return {key: plan[key] for key in plan if key not in ("notes", "downloads")}


def use_fishers(case):
    content = json.loads(recipe("gradient_matching", heads="per_task"))
    content["base_model"] = "me/base"
    for model in content["models"]:
        model["model"] = f"me/{model['model']}"
    case.write(json.dumps(content))
