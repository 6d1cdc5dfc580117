"""The interceptors that come with the package: a log line for each call, and metrics."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support import Divide, Math, Patient, Sum, Wait, turns

from amp_asyncio import AMP, Call, CallLog, CallMetrics
from amp_asyncio.testing import pair


def surrounded(base: type[AMP], interceptor: Any) -> Any:
    return type(base.__name__, (base,), {"interceptors": [interceptor]})


async def test_a_line_for_each_call(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with pair(surrounded(Patient, CallLog()), surrounded(AMP, CallLog())) as (server, client):
        await client.callRemote(Sum, a=1, b=2)
        with pytest.raises(ZeroDivisionError):
            await client.callRemote(Divide, a=1, b=0)
        waiting = client.callRemote(Wait, name="x")
        await server.started.get()
        waiting.cancel()
        server.abort()
        await turns()
    lines = [each.getMessage() for each in caplog.records if each.name == "amp_asyncio.calls"]
    beginnings, times = zip(*(line.split(" after ") for line in lines), strict=True)
    assert [*beginnings] == [
        "answered Sum for ('127.0.0.1', 50001): ok",
        "asked Sum of ('127.0.0.1', 7001): ok",
        "answered Divide for ('127.0.0.1', 50001): ZeroDivisionError",
        "asked Divide of ('127.0.0.1', 7001): ZeroDivisionError",
        "asked Wait of ('127.0.0.1', 7001): cancelled",
        "answered Wait for ('127.0.0.1', 50001): cancelled",
    ]
    assert all(float(time.removesuffix(" ms")) >= 0 for time in times)


async def test_the_logger_and_the_level_of_the_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "mine")
    log = CallLog(logging.getLogger("mine"), level=logging.DEBUG)
    async with pair(surrounded(Math, log)) as (_, client):
        await client.callRemote(Sum, a=1, b=2)
    (line,) = [each for each in caplog.records if each.name == "mine"]
    assert line.levelno == logging.DEBUG


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return what Prometheus makes of its text format."""
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_metrics() -> None:
    metrics = CallMetrics(bounds=[0.0, 3600.0])
    both = surrounded(Patient, metrics)
    async with pair(both, both) as (server, client):
        for _ in range(3):
            await client.callRemote(Sum, a=1, b=2)
        with pytest.raises(ZeroDivisionError):
            await client.callRemote(Divide, a=1, b=0)
        waiting = client.callRemote(Wait, name="x")
        await server.started.get()
        found = samples(metrics.render())
        for direction in ("asking", "answering"):
            assert found["amp_calls_total", direction, "Sum", "ok"] == 3
            assert found["amp_calls_total", direction, "Divide", "ZeroDivisionError"] == 1
            assert found["amp_calls_running", direction, "Sum"] == 0
            assert found["amp_calls_running", direction, "Wait"] == 1
            assert found["amp_call_seconds_count", direction, "Sum"] == 3
            assert 0 < found["amp_call_seconds_sum", direction, "Sum"] < 3600
            assert found["amp_call_seconds_bucket", direction, "Sum", "0.0"] == 0
            assert found["amp_call_seconds_bucket", direction, "Sum", "3600.0"] == 3
            assert found["amp_call_seconds_bucket", direction, "Sum", "+Inf"] == 3
            assert metrics.durations[direction, "Sum"].counts == [0, 3, 0]
        assert metrics.running["asking", "Wait"] == 1
        server.let("x")
        await waiting
        waiting = client.callRemote(Wait, name="x")
        await server.started.get()
        waiting.cancel()
        server.let("x")
    assert metrics.calls["asking", "Wait", "ok"] == 1
    assert metrics.calls["asking", "Wait", "cancelled"] == 1
    assert metrics.running["asking", "Wait"] == 0


async def test_the_format_of_the_metrics() -> None:
    metrics = CallMetrics(bounds=[1000])
    async with pair(surrounded(Math, metrics)) as (_, client):
        await client.callRemote(Sum, a=1, b=2)
    seconds = metrics.durations["answering", "Sum"].sum
    assert (
        metrics.render()
        == f"""\
# HELP amp_calls_total Calls that have ended.
# TYPE amp_calls_total counter
amp_calls_total{{direction="answering",command="Sum",outcome="ok"}} 1
# HELP amp_calls_running Calls that have not ended.
# TYPE amp_calls_running gauge
amp_calls_running{{direction="answering",command="Sum"}} 0
# HELP amp_call_seconds How long the calls took that have ended.
# TYPE amp_call_seconds histogram
amp_call_seconds_bucket{{direction="answering",command="Sum",le="1000.0"}} 1
amp_call_seconds_bucket{{direction="answering",command="Sum",le="+Inf"}} 1
amp_call_seconds_sum{{direction="answering",command="Sum"}} {seconds}
amp_call_seconds_count{{direction="answering",command="Sum"}} 1
"""
    )


async def test_a_peer_cannot_make_metrics_without_bound() -> None:
    """It may be able to write the name of a method `amp_NAME` in many ways."""

    async def proceed() -> None:
        pass

    metrics = CallMetrics(bounds=[1])
    for number in range(1_010):
        await metrics(Call("answering", b'say "%d"\n\\' % number, None), proceed)
    assert len(metrics.durations) == 1_001
    assert metrics.calls["answering", "other", "ok"] == 10
    (line,) = [line for line in metrics.render().splitlines() if "total" in line and '\\"7\\"' in line]
    assert samples(line) == {("amp_calls_total", "answering", 'say "7"\n\\', "ok"): 1}
