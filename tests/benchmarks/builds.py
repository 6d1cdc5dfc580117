"""Other builds of this package, each in a folder that a process can import it from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processes import environment

__all__ = ["ROOT", "checked_out", "compiled"]

#: The folder of the working tree.
ROOT = Path(__file__).parents[2]

PACKAGE = "amp_asyncio"
#: What a build needs.
SOURCES = [PACKAGE, "pyproject.toml", "README.md", "LICENSE"]


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """Make a folder with the sources as they were at `revision`; `SystemExit` if git has none."""
    command = ["git", "archive", revision, *SOURCES]
    archive = subprocess.run(command, cwd=ROOT, capture_output=True)
    if archive.returncode:
        raise SystemExit(f"git cannot show {revision}: {archive.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["tar", "-x", "-C", folder], input=archive.stdout, check=True)
        yield Path(folder)


@contextmanager
def compiled(sources: Path) -> Iterator[Path]:
    """Compile the sources that are in a folder, and install them in another one.

    `SystemExit` if that fails: it needs a C compiler.
    """
    with tempfile.TemporaryDirectory() as folder:
        # A build leaves files beside the sources.
        copy, target = Path(folder, "sources"), Path(folder, "packages")
        copy.mkdir()
        for name in SOURCES:
            of = sources / name
            shutil.copytree(of, copy / name) if of.is_dir() else shutil.copy(of, copy)
        print("compiling", file=sys.stderr)
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", target, copy]
        hook = {"HATCH_BUILD_HOOK_ENABLE_MYPYC": "1"}
        done = subprocess.run(pip, capture_output=True, text=True, env=os.environ | hook)
        if done.returncode:
            raise SystemExit(f"{sources} cannot be compiled:\n{done.stderr.strip()}")
        # (A build without a compiler falls back on nothing, but an import may find another package.)
        check = f"import {PACKAGE}; assert {PACKAGE}.compiled, {PACKAGE}.__file__"
        subprocess.run([sys.executable, "-P", "-c", check], check=True, env=environment(target))
        yield target
