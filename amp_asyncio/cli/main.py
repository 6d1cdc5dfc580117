"""main: what the program does from its arguments to its exit status."""

from __future__ import annotations

import json
from collections.abc import Sequence

from .failures import Failure, Status
from .options import parser
from .output import complain
from .text import printable

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program with these arguments, or with those of the process; return its exit status.

    Raises `SystemExit` where the arguments are wrong or ask for help.
    """
    reader = parser()
    options, rest = reader.parse_known_args(arguments)
    # argparse does not take what stands after an option for more of a list.
    if any(each.startswith("-") for each in rest) or (rest and not hasattr(options, "arguments")):
        reader.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.arguments += rest
    try:
        status: Status = options.run(options)
    except Failure as failure:
        if failure.status is not Status.OUTPUT_CLOSED:
            complain(_described(failure, options.json))
        return failure.status
    except KeyboardInterrupt:
        return Status.INTERRUPTED
    return status


def _described(failure: Failure, as_json: bool) -> str:
    if not as_json:
        return f"amp-asyncio: {printable(str(failure))}"
    code = {} if failure.code is None else {"code": failure.code}
    return json.dumps({"error": failure.text, **code})
