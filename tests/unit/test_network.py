"""The rule for certificates and proxies: a proxy for each URL, and what keeps it from working."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.cli.check import check_config
from app.errors import ConfigError
from app.network import ENVIRONMENT, NONE, Network, tls, use_network
from tests.fakes.certificates import Authority

PROXY = "http://proxy.example:3128"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.lower().endswith(("_proxy", "_ca_file"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    use_network(None)
    yield
    use_network(None)


@pytest.mark.parametrize(
    ("url", "variables", "expected"),
    [
        ("https://a.example", {"HTTPS_PROXY": PROXY}, PROXY),
        ("wss://a.example", {"https_proxy": PROXY, "HTTPS_PROXY": "http://other:1"}, PROXY),
        ("https://a.example", {"HTTPS_PROXY": "proxy.example:3128"}, PROXY),
        ("https://a.example", {"HTTP_PROXY": PROXY}, None),
        ("ws://a.example", {"HTTP_PROXY": PROXY}, PROXY),
        ("https://a.example", {"ALL_PROXY": PROXY}, PROXY),
        ("https://a.example", {"ALL_PROXY": PROXY, "NO_PROXY": "*"}, None),
        ("https://a.example", {"ALL_PROXY": PROXY, "NO_PROXY": " b.example, a.example"}, None),
        ("https://x.a.example", {"ALL_PROXY": PROXY, "NO_PROXY": "a.example"}, None),
        ("https://x.a.example", {"ALL_PROXY": PROXY, "NO_PROXY": ".A.example"}, None),
        ("https://x.a.example", {"ALL_PROXY": PROXY, "NO_PROXY": "*.a.example"}, None),
        ("https://xa.example", {"ALL_PROXY": PROXY, "NO_PROXY": "a.example,,"}, PROXY),
        ("https://a.example:8443", {"ALL_PROXY": PROXY, "NO_PROXY": "a.example:8443"}, None),
        ("https://a.example", {"ALL_PROXY": PROXY, "NO_PROXY": "a.example:8443"}, PROXY),
        ("https://10.1.2.3", {"ALL_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, None),
        ("https://11.1.2.3", {"ALL_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}, PROXY),
        ("https://[fd00::1]", {"ALL_PROXY": PROXY, "NO_PROXY": "fd00::/8"}, None),
        ("http://127.0.0.1:8080", {"ALL_PROXY": PROXY}, None),
        ("http://localhost", {"ALL_PROXY": PROXY}, None),
    ],
)
def test_the_environment_decides_where_it_is_asked_to(
    url: str,
    variables: dict[str, str],
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Network(proxy=ENVIRONMENT).proxy_for(url) == expected
    assert Network(proxy=NONE).proxy_for(url) is None


def test_a_proxy_of_the_settings_is_for_everything_but_its_exceptions() -> None:
    rule = Network(proxy=PROXY, no_proxy=("inner.example",))
    assert rule.proxy_for("http://a.example") == rule.proxy_for("wss://a.example") == PROXY
    assert rule.proxy_for("https://crm.inner.example") is None
    assert rule.proxy_for("https://localhost") is None


def test_a_file_of_certificates_is_named_with_what_is_wrong_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "text.pem"
    text.write_text("no certificate")
    for path, problem in (
        (tmp_path / "none.pem", "does not exist"),
        (tmp_path, "cannot be read (is a directory)"),
        (text, "holds no certificate in PEM form"),
    ):
        for name in ("SSL_CERT_FILE", "TRUNKLINE_CA_FILE"):
            monkeypatch.setenv(name, str(path))
            with pytest.raises(ConfigError, match=f"^{name}: ") as caught:
                tls()
            assert f"{path} {problem}" in caught.value.message
            monkeypatch.delenv(name)
    monkeypatch.setenv("SSL_CERT_FILE", str(text))
    monkeypatch.setenv("TRUNKLINE_CA_FILE", str(Authority(tmp_path).file))
    assert tls().cert_store_stats()["x509_ca"] == 1  # the other one is not looked at


def test_a_start_names_the_line_of_a_wrong_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"

    def problems(text: str) -> str:
        config.write_text(f"voice_model: offline\nnetwork:\n  {text}\n")
        return "\n".join(check_config(config, dict(os.environ)).problems)

    assert problems("ca_file: nowhere.pem").startswith("config.yaml:3: network.ca_file: ")
    for proxy, problem in (
        ("socks5://proxy:1080", "is a socks5:// proxy"),
        ("http://user:hunter22@proxy:port", "has no URL such as"),
        ("http://proxy:3128/path", "more in its URL than a host and a port"),
    ):
        found = problems(f'proxy: "{proxy}"')
        assert found.startswith("config.yaml:3: network.proxy: ")
        assert problem in found
        assert "hunter22" not in found
    monkeypatch.setenv("ALL_PROXY", "socks5://proxy:1080")
    assert "only http:// and https:// ones" in problems("proxy: environment")


def test_a_proxy_of_the_environment_that_is_not_used_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config.yaml"
    monkeypatch.setenv("HTTPS_PROXY", PROXY)

    def noticed(text: str) -> bool:
        config.write_text(f"voice_model: offline\n{text}\n")
        notices = check_config(config, dict(os.environ)).notices
        return any("HTTPS_PROXY is set and not used" in text for text in notices)

    assert noticed("")
    assert not noticed("network: {proxy: none}")
    assert not noticed("network: {proxy: environment}")
