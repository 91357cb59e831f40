"""Drives CMake, which is the only description of the build.

Environment:
  CMAKE_ARGS                  more arguments for CMake: "-DMERGANSER_CUDA=OFF"
  CMAKE_BUILD_PARALLEL_LEVEL  jobs at once
  MERGANSER_BUILD_DIR         a configured build tree (build/cpu) of this very
                              Python and torch: packed instead of a new build
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build import build
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
TORCH_DIR = "import os, torch; print(os.path.dirname(torch.__file__))"


def version() -> str:
    text = (ROOT / "CMakeLists.txt").read_text()
    return re.search(r"project\(merganser VERSION ([\d.]+)", text).group(1)


def torch_requirement() -> str:
    """The minor version of the build: torch's C++ interface changes with it."""
    try:
        import torch
    except ImportError:
        sys.exit(
            "merganser is compiled against torch, which this Python does not have: "
            "install torch, or leave out --no-build-isolation"
        )
    major, minor = torch.__version__.split(".")[:2]
    return f"torch=={major}.{minor}.*"


def lasting_torch_folders() -> list[str]:
    """Directories of torch's libraries, if not in the future site-packages.

    That is so where torch reaches an environment from outside of it (a .pth file,
    --system-site-packages). Asked of a Python without PYTHONPATH: pip brings the
    torch of an isolated build by it, in a temporary directory.
    """
    found = subprocess.run(
        [sys.executable, "-I", "-c", TORCH_DIR], capture_output=True, text=True
    )
    folder = Path(found.stdout.strip() or sys.prefix)
    return [] if folder.is_relative_to(sys.prefix) else [str(folder / "lib")]


class CleanBuild(build):
    def run(self):
        # Leftovers of an earlier version would get into the wheel.
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class CMakeExtension(Extension):
    def __init__(self, name: str):
        super().__init__(name, sources=[])


class CMakeBuild(build_ext):
    def run(self):
        if self.editable_mode:
            sys.exit(
                "merganser cannot be installed as editable: build it with cmake "
                "--preset cpu and set PYTHONPATH=build/cpu/python, whose Python "
                "files are links to the sources"
            )
        if shutil.which("cmake") is None:
            sys.exit("merganser needs CMake; install it: apt-get install cmake")
        tree = Path(self.build_temp).resolve()
        if "MERGANSER_BUILD_DIR" in os.environ:
            tree = Path(os.environ["MERGANSER_BUILD_DIR"]).resolve()
        else:
            self.configure(tree)
        jobs = os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", os.cpu_count())
        targets = ["merganser_python", "merganser", "merganser-torch"]
        self.cmake("--build", tree, "--parallel", jobs, "--target", *targets)
        scripts = tree / "scripts"
        self.install(tree, "wheel", Path(self.build_lib).resolve())
        self.install(tree, "scripts", scripts)
        self.distribution.data_files = [("bin", [str(scripts / "merganser")])]

    def configure(self, tree: Path):
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        self.cmake(
            *("-S", ROOT, "-B", tree, *generator),
            f"-DPython_EXECUTABLE={sys.executable}",
            "-DMERGANSER_TESTS=OFF",
            "-DCMAKE_UNITY_BUILD=ON",
            f"-DMERGANSER_TORCH_RPATH={';'.join(lasting_torch_folders())}",
            *shlex.split(os.environ.get("CMAKE_ARGS", "")),
        )

    def install(self, tree: Path, component: str, prefix: Path):
        self.cmake("--install", tree, "--component", component, "--prefix", prefix)

    def cmake(self, *arguments):
        subprocess.run(["cmake", *map(str, arguments)], check=True)

    def get_outputs(self):
        package = Path(self.build_lib) / "merganser"
        return [str(path) for path in package.rglob("*") if path.is_file()]


setup(
    version=version(),
    install_requires=[torch_requirement()],
    ext_modules=[CMakeExtension("merganser._C")],
    cmdclass={"build": CleanBuild, "build_ext": CMakeBuild},
)
