"""An HTTP client that follows the process's rule for certificates and proxies (`app.network`)."""

from __future__ import annotations

from typing import Any, Final

import httpx2

from app.network import proxy_for, tls

__all__ = ["DEFAULT_LIMITS", "new_transport", "open_client"]

DEFAULT_LIMITS: Final = httpx2.Limits(max_connections=100, max_keepalive_connections=20)


def new_transport(
    proxy: str | None, limits: httpx2.Limits = DEFAULT_LIMITS
) -> httpx2.AsyncHTTPTransport:
    """Connections through one proxy, or direct ones.

    Raises:
        ConfigError: the certificates cannot be read.
    """
    through = None if proxy is None else httpx2.Proxy(proxy, ssl_context=_proxy_tls(proxy))
    return httpx2.AsyncHTTPTransport(verify=tls(), trust_env=False, limits=limits, proxy=through)


def open_client(limits: httpx2.Limits = DEFAULT_LIMITS, **options: Any) -> httpx2.AsyncClient:
    """A client whose requests each take the way that the rule has for their URL.

    Raises:
        ConfigError: the certificates cannot be read.
    """
    return httpx2.AsyncClient(transport=_Routed(limits), trust_env=False, **options)


def _proxy_tls(proxy: str) -> Any:
    return tls() if proxy.startswith("https:") else None


class _Routed(httpx2.AsyncBaseTransport):
    """Connections by the proxy that they go through."""

    def __init__(self, limits: httpx2.Limits) -> None:
        self._limits = limits
        # One is made at once: the first of a process loads a library and the certificates, for
        # which a request in the middle of a call would hold all calls up.
        self._by_proxy: dict[str | None, httpx2.AsyncHTTPTransport] = {
            None: new_transport(None, limits)
        }

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        proxy = proxy_for(str(request.url))
        if proxy not in self._by_proxy:
            self._by_proxy[proxy] = new_transport(proxy, self._limits)
        return await self._by_proxy[proxy].handle_async_request(request)

    async def aclose(self) -> None:
        for transport in self._by_proxy.values():
            await transport.aclose()
