"""The guide's configurations of Kubernetes and systemd: those that no test can run as they stand."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
from engines import EXAMPLES, ROOT, SERVICE, free_ports, listens, program, running, wait_until

pytestmark = pytest.mark.system

# How long `run` takes to close at most, beside `grace`.
CLOSING = 10


def documents(text: str) -> list[Any]:
    """Return the documents of a YAML file of mappings and lists; some lists are written as in JSON."""
    found = []
    for document in text.split("\n---\n"):
        lines = [line.rstrip() for line in document.splitlines()]
        kept = [line for line in lines if line and not line.lstrip().startswith("#")]
        found.append(node(kept))
        assert kept == [], "the indentation is that of the whole document"
    return found


def node(lines: list[str]) -> Any:
    """Take a mapping or a list, and all that is in it, from the beginning of `lines`."""
    indent = len(lines[0]) - len(lines[0].lstrip())
    if lines[0].lstrip().startswith("- "):
        items = []
        while lines and lines[0].startswith(" " * indent + "- "):
            lines[0] = lines[0].replace("- ", "  ", 1)
            items.append(node(lines))
        return items
    pairs: dict[str, Any] = {}
    while lines and len(lines[0]) - len(lines[0].lstrip()) == indent:
        key, colon, value = lines.pop(0).strip().partition(":")
        assert colon, key
        assert key not in pairs, key
        if value:
            value = value.strip()
            pairs[key] = json.loads(value) if value[0] in "[{" or value.isdigit() else value
        else:
            assert lines[0].startswith(" " * (indent + 2)), key
            pairs[key] = node(lines)
    return pairs


def here(command: Sequence[str], port: int) -> list[str]:
    """Return a command of a container as it is run here, for a service at this port."""
    scripts = Path(sys.executable).parent
    places = {"python": sys.executable, "service.py": str(SERVICE)}
    places["amp-asyncio"] = shutil.which("amp-asyncio", path=str(scripts)) or "not installed"
    return [places.get(word, word).replace("7001", f"{port}") for word in command]


def test_kubernetes(tmp_path: Path) -> None:
    service, deployment = documents((EXAMPLES / "kubernetes.yaml").read_text())
    assert (service["apiVersion"], service["kind"]) == ("v1", "Service")
    assert (deployment["apiVersion"], deployment["kind"]) == ("apps/v1", "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    [container] = spec["containers"]
    # The service finds the pods, and their port.
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["ports"][0]["port"] == container["ports"][0]["containerPort"]

    [port] = free_ports(1)
    command = container["command"]
    grace = float(command[command.index("--grace") + 1])
    assert spec["terminationGracePeriodSeconds"] > grace + CLOSING
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    # The time that Kubernetes gives them by default is a second.
    assert container["readinessProbe"]["timeoutSeconds"] == 5
    assert container["livenessProbe"]["timeoutSeconds"] == 5

    def probe(name: str) -> int:
        asked = here(container[name]["exec"]["command"], port)
        return subprocess.run(asked, env=environment, capture_output=True, timeout=30).returncode

    assert probe("readinessProbe") != 0
    assert probe("livenessProbe") != 0
    with running(here(command, port), tmp_path / "log", env=environment) as process:
        wait_until(lambda: listens(port), process.output())
        assert (probe("readinessProbe"), probe("livenessProbe")) == (0, 0)
        # It is to get no more calls, and must not be killed either.
        process.tell(signal.SIGTERM)
        wait_until(lambda: probe("readinessProbe") != 0, process.output())
        assert probe("livenessProbe") == 0
        assert process.wait() == 0


def test_units_of_systemd(tmp_path: Path) -> None:
    unit = (EXAMPLES / "hotel.service").read_text()
    settings = ConfigParser(interpolation=None)
    settings.read_string(unit)
    _, service, *arguments = shlex.split(settings["Service"]["ExecStart"])
    assert service.endswith("/service.py")
    grace = float(arguments[arguments.index("--grace") + 1])
    assert settings["Service"].getint("TimeoutStopSec") > grace + CLOSING
    # The service knows all of its arguments.
    command = [sys.executable, str(SERVICE), *arguments, "--help"]
    subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True, capture_output=True
    )

    analyze = program("systemd-analyze", "systemd")
    unit = unit.replace("/srv/hotel/venv/bin/python", sys.executable)
    (tmp_path / "hotel.service").write_text(unit.replace("/srv/hotel/", f"{EXAMPLES}/"))
    shutil.copy(EXAMPLES / "hotel.socket", tmp_path)
    units = [tmp_path / "hotel.service", tmp_path / "hotel.socket"]
    done = subprocess.run([analyze, "verify", *units], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
