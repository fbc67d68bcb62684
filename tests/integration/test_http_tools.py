"""HTTP tools against a real server, and what must never reach one."""

from __future__ import annotations

import asyncio
import gzip
import json
import ssl
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from app.agents.tools.http_tool import HttpToolSpec, http_tool
from app.agents.tools.invocation import ToolInvoker
from app.agents.tools.tool import ToolContext, ToolResult
from app.errors import ToolError, ToolFailed
from app.events import CallId
from app.http.client import Fetched, Outgoing, SafeHttp
from app.network import Network, use_network
from tests.fakes.certificates import Authority
from tests.fakes.web_service import Asked, Script, WebService, answer

PUBLIC = "93.184.216.34"
TEXT = {"type": "string"}


async def refuse_names(host: str, port: int) -> Sequence[str]:
    raise OSError(f"no such name: {host}")


@pytest.fixture
async def http() -> AsyncIterator[SafeHttp]:
    async with SafeHttp(resolve=refuse_names) as client:
        yield client


def local(service: WebService, path: str = "/", **more: Any) -> HttpToolSpec:
    fields = {"name": "ask", "description": "Asks.", "allow_private": True, **more}
    return HttpToolSpec(url=f"{service.url}{path}", **fields)


async def run(spec: HttpToolSpec, http: SafeHttp, **arguments: Any) -> ToolResult:
    context = ToolContext(call_id=CallId("c1"), tool_call_id="t1", caller_number="+15550100")
    box = ToolInvoker([http_tool(spec, http)])
    return await box.invoke(spec.name, json.dumps(arguments), context)


def told(result: ToolResult) -> Any:
    return json.loads(result.output)


# A tool at work -----------------------------------------------------------------------------------


async def test_a_booking_is_posted_and_the_part_asked_for_comes_back(http: SafeHttp) -> None:
    async with WebService(answer(b'{"booking": {"id": 7, "at": "9:00"}, "log": "x"}')) as service:
        spec = local(
            service,
            "/salons/{salon}/bookings?lang=en",
            method="POST",
            headers={"Authorization": "Bearer secret"},
            parameters={
                "type": "object",
                "properties": {"salon": TEXT, "at": TEXT},
                "required": ["salon", "at"],
            },
            body={"at": "{at}", "phone": "{context.caller_number}"},
            result="/booking",
        )
        result = await run(spec, http, salon="a b", at="9:00")
        again = await run(spec, http, salon="a b", at="9:00")
    assert told(result) == told(again) == {"result": {"id": 7, "at": "9:00"}}
    asked, repeated = service.asked
    assert (asked.method, asked.target) == ("POST", "/salons/a%20b/bookings?lang=en")
    assert json.loads(asked.body) == {"at": "9:00", "phone": "+15550100"}
    assert asked.headers["authorization"] == "Bearer secret"
    assert asked.headers["content-type"] == "application/json"
    assert asked.headers["host"] == f"127.0.0.1:{service.port}"
    assert asked.headers["idempotency-key"] == repeated.headers["idempotency-key"]
    assert service.connections == 1  # the second request used the warm connection


@pytest.mark.parametrize(
    ("script", "result"),
    [
        (answer(b"plain \xff", content_type="text/plain"), {"result": "plain \ufffd"}),
        (answer(status=204), {"result": {"status": 204}}),
        (answer(gzip.compress(b"[1]"), Content_Encoding="gzip"), {"result": [1]}),
        (answer(zlib.compress(b"[1]"), Content_Encoding="deflate"), {"result": [1]}),
    ],
)
async def test_answers_of_several_kinds_are_understood(
    http: SafeHttp, script: Script, result: Any
) -> None:
    async with WebService(script) as service:
        assert told(await run(local(service), http)) == result


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (answer(b"{", content_type="application/json"), "response_invalid"),
        (answer(b"[" * 100_000, content_type="application/json"), "response_invalid"),
        (answer(b"{}", Content_Encoding="br"), "response_invalid"),
        (answer(b"{}", Content_Encoding="gzip"), "response_invalid"),
        (answer(gzip.compress(b"[1]")[:-9], Content_Encoding="gzip"), "response_invalid"),
        (answer(b'{"secret": 1}', status=404), "http_error"),
        (answer(b"sorry", status=500), "http_error"),
    ],
)
async def test_the_text_of_an_unusable_answer_does_not_reach_the_model(
    http: SafeHttp, script: Script, code: str
) -> None:
    async with WebService(script) as service:
        result = await run(local(service), http)
    assert result.error == code
    assert "secret" not in result.output


async def test_the_body_of_a_refusal_reaches_the_model_where_the_settings_say_so(
    http: SafeHttp,
) -> None:
    async with WebService(answer(b'{"free": ["9:30"]}', status=409)) as service:
        result = await run(local(service, error_body=True), http)
        assert told(result)["result"] == {"status": 409, "answer": {"free": ["9:30"]}}


# Again, and not again -----------------------------------------------------------------------------


async def hang_up(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.close()


@pytest.mark.parametrize("trouble", [hang_up, answer(status=503), answer(status=429)])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_failure_that_may_pass_is_tried_again_under_the_same_key(
    http: SafeHttp, trouble: Script, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.agents.tools.http_tool._FIRST_DELAY_S", 0.001)
    async with WebService(trouble, answer(b"[1]")) as service:
        assert told(await run(local(service, method=method, retries=1), http)) == {"result": [1]}
    first, second = service.asked
    assert first.headers.get("idempotency-key") == second.headers.get("idempotency-key")
    assert ("idempotency-key" in first.headers) is (method == "POST")


@pytest.mark.parametrize(
    ("trouble", "retries"), [(hang_up, 0), (answer(status=503), 0), (answer(status=500), 3)]
)
async def test_requests_without_retries_are_sent_once(
    http: SafeHttp, trouble: Script, retries: int
) -> None:
    async with WebService(trouble) as service:
        assert (await run(local(service, retries=retries), http)).error
    assert len(service.asked) == 1


async def test_retries_end_with_the_last_failure(
    http: SafeHttp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.agents.tools.http_tool._FIRST_DELAY_S", 0.001)
    async with WebService(hang_up) as service:
        assert (await run(local(service, retries=2), http)).error == "unreachable"
    assert len(service.asked) == 3


# Bounds -------------------------------------------------------------------------------------------


async def endless(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        writer.write(b"x" * 16_384)
        await writer.drain()


async def drip(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.005)


async def silence(_: Asked, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def endless_headers(_: Asked, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Filler: " + b"x" * 8_000 + b"\r\n")
        await writer.drain()


BOMB = gzip.compress(bytes(64_000_000))  # about 62 kB on the wire


@pytest.mark.parametrize(
    ("script", "code"),
    [
        (endless, "response_too_large"),
        (answer(b"x" * 300_000), "response_too_large"),
        (answer(BOMB, Content_Encoding="gzip"), "response_too_large"),
        (answer(gzip.compress(BOMB), Content_Encoding="gzip"), "response_invalid"),
        (endless_headers, "unreachable"),
        (drip, "tool_timeout"),
        (silence, "tool_timeout"),
    ],
)
async def test_answers_are_bounded_in_size_and_time(
    http: SafeHttp, script: Script, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with WebService(script) as service:
        spec = local(service, timeout_ms=250 if code == "tool_timeout" else 5_000)
        await asyncio.sleep(0)
        tracemalloc.start()
        try:
            result = await run(spec, http)
            _, peak_bytes = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert result.error == code
    assert peak_bytes < 5_000_000
    # The tool's own limit ends a wait, and what an answer says is found out later.
    if code in ("response_too_large", "unreachable"):
        (record,) = (one for one in caplog.records if one.msg == "http tool got no answer")
        assert (record.error, record.host) == (code, f"127.0.0.1:{service.port}")  # type: ignore[attr-defined]


# Where nothing may go -----------------------------------------------------------------------------


class Internet:
    """Names, and a public address that is in truth a server on this machine.

    Only the last step is bent: what the client asks the loop to connect to is recorded, and for
    `PUBLIC` the local port is used. Everything before it is what runs in production.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: dict[str, list[list[str]]] = {}
        self.resolved: list[str] = []
        self.connected: list[str] = []
        self.public_port = 0
        loop = asyncio.get_running_loop()
        self._connect = loop.create_connection
        monkeypatch.setattr(loop, "create_connection", self._create_connection)

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.resolved.append(host)
        answers = self.names.get(host)
        if not answers:
            raise OSError(f"no such name: {host}")
        return answers.pop(0) if len(answers) > 1 else answers[0]

    async def _create_connection(
        self, factory: Any, host: str, port: int, **more: Any
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        self.connected.append(host)
        if host == PUBLIC:
            host, port = "127.0.0.1", self.public_port
        return await self._connect(factory, host, port, **more)


@pytest.fixture
def certified(tmp_path: Path) -> Iterator[ssl.SSLContext]:
    """TLS of shop.example, whose authority is trusted."""
    authority = Authority(tmp_path)
    use_network(Network(ca_file=authority.file))
    yield authority.server("shop.example")
    use_network(None)


@pytest.fixture
async def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    """Under proxy settings that would break everything if anyone read them."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    return Internet(monkeypatch)


async def fetched(client: SafeHttp, url: str, **more: Any) -> Fetched:
    return await client.fetch(Outgoing(method="GET", url=url, **more))


async def refusal(client: SafeHttp, url: str, **more: Any) -> str:
    with pytest.raises(ToolError) as caught:
        await fetched(client, url, **more)
    return caught.value.code


BLOCKED = [
    "http://127.0.0.1:{port}/",
    "https://127.0.0.1:{port}/",
    "https://localhost:{port}/",
    "https://localhost.:{port}/",
    "https://LOCALHOST:{port}/",
    "https://127.1:{port}/",
    "https://127.0.1:{port}/",
    "https://2130706433:{port}/",
    "https://017700000001:{port}/",
    "https://0177.0.0.1:{port}/",
    "https://0x7f000001:{port}/",
    "https://0x7f.0.0.1:{port}/",
    "https://0x7f.1:{port}/",
    "https://127.0.0.1.:{port}/",
    "https://127。0。0。1:{port}/",
    "https://①②⑦.0.0.1:{port}/",
    "https://127.0.0.2:{port}/",
    "https://0.0.0.0:{port}/",
    "https://0:{port}/",
    "https://10.0.0.5:{port}/",
    "https://172.16.0.1:{port}/",
    "https://192.168.0.1:{port}/",
    "https://100.64.0.1:{port}/",
    "https://169.254.169.254/latest/meta-data/",
    "https://2852039166/latest/meta-data/",
    "https://168.63.129.16/machine/",
    "https://[::1]:{port}/",
    "https://[::]:{port}/",
    "https://[0:0:0:0:0:0:0:1]:{port}/",
    "https://[::ffff:127.0.0.1]:{port}/",
    "https://[::ffff:10.0.0.1]:{port}/",
    "https://[::ffff:7f00:1]:{port}/",
    "https://[::127.0.0.1]:{port}/",
    "https://[64:ff9b::7f00:1]:{port}/",
    "https://[2002:7f00:1::]:{port}/",
    "https://[fe80::1%25lo]:{port}/",
    "https://[fd00:ec2::254]/",
    "https://private.example:{port}/",
    "https://mixed.example:{port}/",
    "https://mapped.example:{port}/",
    "https://metadata.example/",
    "https://user@127.0.0.1:{port}/",
    "https://93.184.216.34@127.0.0.1:{port}/",
    "file:///etc/hostname",
    "ftp://127.0.0.1:{port}/",
]


@pytest.mark.parametrize("url", BLOCKED)
async def test_no_spelling_of_an_inner_address_reaches_it(url: str, internet: Internet) -> None:
    loopback = [["127.0.0.1"]]
    internet.names = {
        "localhost": loopback,
        "localhost.": loopback,
        "private.example": [["10.0.0.5"]],
        "mixed.example": [[PUBLIC, "127.0.0.1"]],
        "mapped.example": [["::ffff:127.0.0.1"]],
        "metadata.example": [["169.254.169.254"]],
    }
    async with (
        WebService(answer(b"canary")) as canary,
        SafeHttp(resolve=internet.resolve) as client,
    ):
        internet.public_port = canary.port
        assert (
            await refusal(client, url.format(port=canary.port), timeout_ms=2_000) == "url_refused"
        )
        assert canary.connections == 0
        assert internet.connected == []
        # The canary sings: the same address, where the settings open it.
        assert (await fetched(client, canary.url, allow_private=True)).body == b"canary"
        assert canary.connections == 1


async def test_the_name_is_kept_for_host_and_tls_while_the_address_is_pinned(
    internet: Internet,
    certified: ssl.SSLContext,
) -> None:
    asked_for: list[str | None] = []
    certified.sni_callback = lambda _socket, name, _context: asked_for.append(name)
    internet.names = {"shop.example": [[PUBLIC]]}
    async with (
        WebService(answer(b"hello"), tls=certified) as service,
        SafeHttp(resolve=internet.resolve) as client,
    ):
        internet.public_port = service.port
        assert (await fetched(client, "https://shop.example/")).body == b"hello"
        assert service.asked[0].headers["host"] == "shop.example"
        assert asked_for == ["shop.example"]
        assert internet.resolved == ["shop.example"]
        assert internet.connected == [PUBLIC]
        # Another name of the same address gets a connection and a certificate check of its own.
        internet.names["other.example"] = [[PUBLIC]]
        assert await refusal(client, "https://other.example/") == "unreachable"
    assert len(service.asked) == 1


async def test_a_name_that_changes_its_address_is_checked_each_time(
    internet: Internet,
    certified: ssl.SSLContext,
) -> None:
    internet.names = {"shop.example": [[PUBLIC], ["169.254.169.254"], ["127.0.0.1"]]}
    async with (
        WebService(answer(b"hello"), tls=certified) as service,
        SafeHttp(resolve=internet.resolve) as client,
    ):
        internet.public_port = service.port
        assert (await fetched(client, "https://shop.example/")).status == 200
        assert internet.resolved == ["shop.example"]  # once: no second look between check and use
        assert await refusal(client, "https://shop.example/") == "url_refused"
        assert await refusal(client, "https://shop.example/") == "url_refused"
    assert len(service.asked) == 1
    assert internet.connected == [PUBLIC]


@pytest.mark.parametrize(
    "target",
    [
        "https://127.0.0.1:{port}/",
        "http://shop.example/plain",
        "https://inner.example:{port}/",
        "//127.0.0.1:{port}/",
        "https://2130706433:{port}/",
        "https://169.254.169.254/",
        "file:///etc/passwd",
        "https://[/",
    ],
)
async def test_a_redirect_to_an_inner_address_is_not_followed(
    target: str,
    internet: Internet,
    certified: ssl.SSLContext,
) -> None:
    internet.names = {"shop.example": [[PUBLIC]], "inner.example": [["127.0.0.1"]]}
    async with WebService(answer(b"canary")) as canary:
        script = answer(status=302, Location=target.format(port=canary.port))
        async with (
            WebService(script, tls=certified) as service,
            SafeHttp(resolve=internet.resolve) as client,
        ):
            internet.public_port = service.port
            url = "https://shop.example/"
            assert await refusal(client, url, follow_redirects=True) == "url_refused"
            assert await refusal(client, url) == "redirect_refused"
        assert canary.connections == 0
    assert set(internet.connected) == {PUBLIC}


async def test_a_redirect_is_followed_without_the_secrets_of_the_first_host(
    http: SafeHttp,
) -> None:
    secret = {"Authorization": "Bearer secret"}
    async with WebService(answer(b"there")) as second:
        scripts = [answer(status=307, Location="/b"), answer(status=302, Location=second.url)]
        async with WebService(*scripts) as first:
            got = await fetched(
                http, first.url, headers=secret, follow_redirects=True, allow_private=True
            )
    assert got.body == b"there"
    assert [asked.headers.get("authorization") for asked in first.asked] == ["Bearer secret"] * 2
    assert first.asked[1].target == "/b"
    assert "authorization" not in second.asked[0].headers


async def test_redirects_end_and_a_change_is_never_sent_on(http: SafeHttp) -> None:
    async with WebService(answer(status=302, Location="/again")) as service:
        assert (
            await refusal(http, service.url, follow_redirects=True, allow_private=True)
            == "redirect_refused"
        )
        assert len(service.asked) == 4
        spec = local(service, method="POST", follow_redirects=True)
        assert (await run(spec, http)).error == "redirect_refused"
        assert len(service.asked) == 5


async def test_the_next_address_is_tried_when_one_does_not_answer(http: SafeHttp) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["127.0.0.9", "127.0.0.1"]

    async with WebService(answer(b"hello")) as service, SafeHttp(resolve=resolve) as client:
        url = f"http://service.example:{service.port}/"
        assert (await fetched(client, url, allow_private=True)).body == b"hello"


async def test_closing_leaves_no_connection(http: SafeHttp) -> None:
    async with WebService(answer(b"hello")) as service:
        async with SafeHttp() as client:
            await fetched(client, service.url, allow_private=True)
        with pytest.raises(ToolFailed):
            await fetched(client, "https://127.0.0.1/")
