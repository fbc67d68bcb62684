"""Everything that leaves the process: one authority is trusted, and one proxy gone through."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Final

import httpx2
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

from app.agents.tools.mcp import McpTools
from app.agents.tools.mcp_server import McpServerSpec
from app.carrier.twilio.rest import TwilioRest
from app.dial.carrier_http import http_client
from app.dial.leg import open_stream
from app.doctor.system_checks import check_clock, check_public_address
from app.engine.stages.base import StageSpec
from app.engine.stages.deepgram import DeepgramTranscriber
from app.engine.stages.transcriptions import HttpTranscriber
from app.errors import AppError
from app.events import CallId
from app.gateway.channels import RemoteChannel
from app.http.client import Outgoing, SafeHttp
from app.http.place_call import place_call
from app.http.streaming import StreamingHttp
from app.network import Network, use_network
from app.realtime.dialect import GA
from app.realtime.events import SessionConfig
from app.realtime.websocket import WebSocketModel
from app.settings import GatewayChannel, Server, Settings
from app.tracing import otlp_exporter
from tests.fakes.certificates import Authority
from tests.fakes.connect_proxy import ConnectProxy
from tests.fakes.web_service import WebService, answer

NAME: Final = "service.test"
"""Known to the proxy alone: no resolver has it."""
Knock = Callable[[str], Awaitable[object]]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def certified(authority: Authority) -> ssl.SSLContext:
    return authority.server("localhost", NAME)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("TRUNKLINE_CA_FILE", "SSL_CERT_FILE", "TRUNKLINE_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("https_proxy", "http_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    use_network(None)
    yield
    use_network(None)


# Every client, asking something of a server -------------------------------------------------------


def websocket(url: str) -> str:
    return "ws" + url.removeprefix("http")


async def voice_model(url: str) -> None:
    await WebSocketModel(websocket(url)).connect(SessionConfig())


async def gateway_upstream(url: str) -> None:
    channel = RemoteChannel("one", GatewayChannel(url=websocket(url)))
    async with asyncio.TaskGroup() as group:
        await channel.open("m", GA, group)


async def tool_or_webhook(url: str) -> None:
    async with SafeHttp() as http:
        await http.fetch(Outgoing(method="GET", url=url, allow_private=True))


async def mcp_server(url: str) -> None:
    spec = McpServerSpec(name="books", transport="http", url=url, allow_private=True)
    async with McpTools([spec]):
        pass


async def twilio(url: str) -> None:
    rest = TwilioRest("AC" + "1" * 32, "secret", base_url=url, attempts=1)
    try:
        await rest.check_account()
    finally:
        await rest.aclose()


async def transcription(url: str) -> None:
    async with StreamingHttp() as http:
        spec = StageSpec(base_url=f"{url}/v1", model="m", api_key="k", timeout_s=5)
        await HttpTranscriber(spec, http).transcribe(bytes(3_200))


async def deepgram(url: str) -> None:
    spec = StageSpec(base_url=websocket(url), model="m", api_key="k", timeout_s=5)
    await DeepgramTranscriber(spec).transcribe(bytes(3_200))


async def doctor(url: str) -> None:
    await check_public_address(Settings(server=Server(public_url=url)))


async def doctors_clock(url: str) -> None:
    await check_clock(url)


async def dialed_webhook(url: str) -> None:
    async with http_client() as client:
        await client.post(url)


async def dialed_stream(url: str) -> None:
    await open_stream(websocket(url), "signature")


async def placed_call(url: str) -> None:
    await place_call("+15005550006", agent="desk", server=url)


async def traces(url: str) -> None:
    def export() -> None:
        provider = TracerProvider()
        provider.add_span_processor(SimpleSpanProcessor(otlp_exporter(url, {})))
        provider.get_tracer("t").start_span(str(CallId("c1"))).end()
        provider.shutdown()

    await asyncio.to_thread(export)


CLIENTS: Final[tuple[Knock, ...]] = (
    voice_model,
    gateway_upstream,
    tool_or_webhook,
    mcp_server,
    twilio,
    transcription,
    deepgram,
    doctor,
    doctors_clock,
    dialed_webhook,
    dialed_stream,
    placed_call,
    traces,
)
every_client = pytest.mark.parametrize("client", CLIENTS, ids=lambda one: one.__name__)


@contextlib.asynccontextmanager
async def service(tls: ssl.SSLContext) -> AsyncIterator[WebService]:
    async with WebService(answer(b"{}", status=404), tls=tls) as made:
        yield made


async def knock(client: Knock, url: str) -> None:
    """Ask the server, which answers 404 to everything."""
    with contextlib.suppress(AppError, OSError, ExceptionGroup, httpx2.HTTPError):
        await client(url)


# The rule -----------------------------------------------------------------------------------------


@every_client
async def test_only_the_authority_of_the_file_is_trusted(
    client: Knock,
    authority: Authority,
    certified: ssl.SSLContext,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with service(certified) as server:
        url = f"https://localhost:{server.port}"
        if client is not traces:  # its exporter tries for six seconds of real time
            await knock(client, url)
            assert server.asked == []
        monkeypatch.setenv("TRUNKLINE_CA_FILE", "  ")
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        await knock(client, url)
        assert server.asked


@pytest.mark.parametrize("client", [voice_model, mcp_server, twilio], ids=lambda one: one.__name__)
@pytest.mark.parametrize(
    ("name", "days", "reason"),
    [
        ("localhost", -0.5, "certificate has expired"),
        ("another.test", 1, "Hostname mismatch"),
    ],
)
async def test_a_certificate_that_is_not_valid_is_told_with_the_reason(
    client: Knock, name: str, days: float, reason: str, authority: Authority
) -> None:
    use_network(Network(ca_file=authority.file))
    async with service(authority.server(name, days=days)) as server:
        with pytest.raises(AppError, match=reason):
            await client(f"https://localhost:{server.port}")
        assert server.asked == []


@every_client
async def test_the_proxy_of_the_settings_is_gone_through(
    client: Knock, authority: Authority, certified: ssl.SSLContext
) -> None:
    async with service(certified) as server, ConnectProxy() as proxy:
        url = f"https://{NAME}:{server.port}"
        use_network(Network(ca_file=authority.file, proxy=proxy.url))
        await knock(client, url)
        assert server.asked
        assert set(proxy.asked) == {f"{NAME}:{server.port}"}
