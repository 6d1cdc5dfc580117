"""dissector: AMP for Wireshark and tshark, as a program in their Lua."""

from __future__ import annotations

from argparse import Namespace
from importlib.resources import files

from .failures import Status
from .output import say

__all__ = ["dissector"]


def dissector(options: Namespace) -> Status:
    """Print the Lua, for these ports and this version of AMP."""
    lua = files("amp_asyncio.cli").joinpath("amp.lua").read_text("utf-8")
    ports = ",".join(map(str, options.port))
    lua = lua.replace('local PORTS = ""', f'local PORTS = "{ports}"')
    lua = lua.replace("local VERSION = 1", f"local VERSION = {options.amp_version}")
    say(lua.rstrip())
    return Status.DONE
