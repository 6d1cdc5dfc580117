"""The layers of the package: what may import what, and what an import brings in.

Imports for type checkers alone count as well.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import amp_asyncio

PACKAGE = Path(amp_asyncio.__file__).parent
NAME = "amp_asyncio"

# From the bottom to the top; those on one line are on one level, and may import one another.
LAYERS = [
    ["errors", "limits", "descriptors"],
    ["clock", "logs"],
    ["wire"],
    ["commands"],
    ["transports", "tls", "session"],
    ["connection"],
    ["composed"],
    ["protocol", "dispatcher"],
    ["amp"],
    ["serving", "endpoints", "interceptors"],
    ["processes", "running"],
    ["client"],
    [""],  # The package itself, which has all the public names.
    ["testing", "cli"],
    ["__main__"],
]
LEVEL = {wing: level for level, wings in enumerate(LAYERS) for wing in wings}

# Within a level: these do not know each other, in one direction or in both.
STRANGERS = {
    ("session", "transports"),
    ("transports", "session"),
    ("transports", "tls"),
    ("tls", "session"),
    ("tls", "transports"),
    ("errors", "limits"),
    ("limits", "errors"),
    ("serving", "endpoints"),
    ("testing", "cli"),
    ("cli", "testing"),
}

# What has to do with I/O.
IO = {"asyncio", "socket", "ssl", "selectors", "subprocess"}
WITHOUT_IO = {"errors", "limits", "wire", "commands"}


def modules() -> list[str]:
    """Return the full name of each module of the package."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        parts = [NAME, *path.relative_to(PACKAGE).with_suffix("").parts]
        found.append(".".join(parts).removesuffix(".__init__"))
    return sorted(found)


def wing(module: str) -> str:
    """Return the folder, or the module at the top of the package, to which `module` belongs."""
    return module.split(".")[1] if "." in module else ""


def tree(module: str) -> ast.Module:
    path = PACKAGE.joinpath(*module.split(".")[1:])
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(source.read_text())


def imports(module: str, known: set[str]) -> Iterator[tuple[str, str, str]]:
    """Yield each import: the module, the name taken from it if one is, and the name it gets here."""
    is_package = PACKAGE.joinpath(*module.split(".")[1:]).is_dir()
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, "", alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                up = module.split(".")[: None if is_package and node.level == 1 else -1]
                up = up[: len(up) - node.level + (2 if is_package and node.level > 1 else 1)]
                source = ".".join([*up, *([node.module] if node.module else [])])
            for alias in node.names:
                here = alias.asname or alias.name
                inner = f"{source}.{alias.name}"
                yield (inner, "", here) if inner in known else (source, alias.name, here)


def is_private(name: str) -> bool:
    return name.startswith("_") and not (name.startswith("__") and name.endswith("__"))


def test_no_import_goes_up_and_nothing_private_is_shared() -> None:
    known = {*modules()}
    assert {wing(module) for module in known} == {*LEVEL}, "each wing has its layer"
    wrong = []
    for module in known:
        ours: dict[str, str] = {}  # The modules of the package that this one knows by a name.
        own = wing(module)
        for source, name, here in imports(module, known):
            if own in WITHOUT_IO and source.split(".")[0] in IO:
                wrong.append(f"{module} imports {source}")
            if source.split(".")[0] != NAME:
                continue
            assert source in known, f"{module} imports {source}, which does not exist"
            other = wing(source)
            if not name:
                ours[here] = source
            if own and LEVEL[other] > LEVEL[own]:
                wrong.append(f"{module} imports {source}, which is above it")
            if (own, other) in STRANGERS:
                wrong.append(f"{module} imports {source}, which it should not know")
            if is_private(name) or is_private(source.rpartition(".")[2]):
                wrong.append(f"{module} takes {name or source} from {source}")
        wrong += [
            f"{module} uses {ast.unparse(node)} of {ours[node.value.id]}"
            for node in ast.walk(tree(module))
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in ours
            and is_private(node.attr)
        ]
    assert not wrong, "\n".join(["", *sorted(wrong)])


def test_the_import_of_the_package_is_light() -> None:
    """It brings in nothing that most programs do not need."""
    heavy = ["attr", "attrs", "cryptography"]
    heavy += [f"amp_asyncio.{name}" for name in ("testing", "processes", "client", "cli")]
    program = f"""
import sys
import amp_asyncio
print(*[name for name in {heavy!r} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert done.stderr == ""
