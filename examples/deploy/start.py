"""Three services behind HAProxy, and a client that asks them, in one command.

Restart one while it runs, or kill one: `kill PID`, `kill -9 PID`. The client goes on. HAProxy has to be
installed (apt-get install haproxy).

Run it: python examples/deploy/start.py
"""

import contextlib
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PORTS = (7001, 7002, 7003)


def main(arguments: list[str]) -> None:
    haproxy = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if haproxy is None:
        sys.exit("haproxy is not installed: apt-get install haproxy")
    with contextlib.ExitStack() as stack:

        def start(*command: str | Path) -> subprocess.Popen[bytes]:
            process = stack.enter_context(subprocess.Popen(command))
            stack.callback(process.terminate)
            return process

        for port in PORTS:
            listen = f"127.0.0.1:{port}"
            service = start(
                sys.executable, HERE / "service.py", "--listen", listen, "--proxies", "127.0.0.1",
                "--grace", "2",
            )  # fmt: skip
            print(f"the service at {listen} is process {service.pid}", flush=True)
        start(haproxy, "-db", "-f", HERE / "haproxy.cfg")
        client = start(sys.executable, HERE / "client.py", "127.0.0.1:7000", *arguments)
        with contextlib.suppress(KeyboardInterrupt):
            client.wait()


if __name__ == "__main__":
    main(sys.argv[1:])
