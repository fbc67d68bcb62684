"""Thousands of ways to change a signed request: none is taken for Twilio's."""

from __future__ import annotations

import random
from urllib.parse import urlencode

import pytest

from app.carrier.twilio.http import SignatureChecker, parse_form, read_incoming, sign_http
from app.errors import RemoteProtocolError, SignatureError

TOKEN = "9a1f8c0e5b7d4a2f9a1f8c0e5b7d4a2f"
PUBLIC = "https://voice.example.com"
PATH = "/twilio/voice?line=1"
FORM = [
    ("AccountSid", "AC1"),
    ("CallSid", "CA1"),
    ("CallerName", ""),
    ("Direction", "inbound"),
    ("From", "+15551230001"),
    ("To", "+15551230002"),
]
BODY = urlencode(FORM)
SIGNATURE = sign_http(TOKEN, PUBLIC + PATH, FORM)
CHECKER = SignatureChecker([TOKEN], PUBLIC)
MEDIA = "/twilio/media-stream"
MEDIA_SIGNATURE = sign_http(TOKEN, f"wss://voice.example.com{MEDIA}")


def signed_text(path: str, form: list[tuple[str, str]]) -> str:
    """The text that the signature covers, by Twilio's rule and without its library."""
    target, mark, query = path.partition("?")
    pairs = sorted(set(form))
    return target.removesuffix("/") + mark + query + "".join(name + value for name, value in pairs)


TRUE_TEXT = signed_text(PATH, FORM)


def changed(text: str, chance: random.Random) -> str:
    """`text` with one to three of its characters replaced, removed, added, or its end cut off."""
    for _ in range(chance.randint(1, 3)):
        place = chance.randint(0, len(text))
        match chance.choice(["replace", "remove", "insert", "double", "swap", "cut"]):
            case "replace":
                text = text[:place] + chr(chance.randint(0, 0x2FF)) + text[place + 1 :]
            case "remove":
                text = text[:place] + text[place + 1 :]
            case "insert":
                text = text[:place] + chance.choice("&=%+/?#;A0 \0é") + text[place:]
            case "double":
                text = text + "&" + text[place:]
            case "swap":
                text = text[:place] + text[place : place + 2][::-1] + text[place + 2 :]
            case _:
                text = text[:place]
    return text


@pytest.mark.parametrize("seed", range(5))
def test_no_changed_webhook_is_accepted(seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(1_000):
        refuse_a_changed_webhook(chance)


def refuse_a_changed_webhook(chance: random.Random) -> None:
    parts: list[str] = [PATH, BODY, SIGNATURE]
    for place in chance.choice([[0], [1], [1], [2], [0, 1, 2]]):
        parts[place] = changed(parts[place], chance)
    path, body, signature = parts
    try:
        form = parse_form(body)
    except RemoteProtocolError:
        return
    if signed_text(path, form) == TRUE_TEXT and signature == SIGNATURE:
        return  # nothing changed, or something that the signature does not cover: see below
    with pytest.raises(SignatureError):
        CHECKER.check_http(path, form, signature)


@pytest.mark.parametrize("in_path", [True, False])
def test_no_changed_handshake_is_accepted(in_path: bool) -> None:
    chance = random.Random(0)
    for _ in range(250):
        refuse_a_changed_handshake(chance, in_path)


def refuse_a_changed_handshake(chance: random.Random, in_path: bool) -> None:
    path = changed(MEDIA, chance) if in_path else MEDIA
    signature = MEDIA_SIGNATURE if in_path else changed(MEDIA_SIGNATURE, chance)
    if path.removesuffix("/") == MEDIA and signature == MEDIA_SIGNATURE:
        return
    with pytest.raises(SignatureError):
        CHECKER.check_websocket(path, signature)


def test_the_unchanged_request_is_accepted() -> None:
    assert CHECKER.check_http(PATH, parse_form(BODY), SIGNATURE) == PUBLIC + PATH
    assert CHECKER.check_websocket(MEDIA, MEDIA_SIGNATURE) == f"wss://voice.example.com{MEDIA}"


def test_borders_moved_between_fields_keep_twilios_signature_but_make_no_call() -> None:
    # Twilio signs names and values without a separator: nothing can tell these from the original.
    for border in range(1, len("CallSidCA1")):
        if border == len("CallSid"):
            continue
        name, value = "CallSidCA1"[:border], "CallSidCA1"[border:]
        form = [(name, value) if pair[0] == "CallSid" else pair for pair in FORM]
        if signed_text(PATH, form) == TRUE_TEXT:
            assert CHECKER.check_http(PATH, form, SIGNATURE)
        with pytest.raises(RemoteProtocolError):
            read_incoming(form)
    merged = [pair for pair in FORM if pair[0] not in ("Direction", "From", "To")]
    merged.append(("Direction", "inboundFrom+15551230001To+15551230002"))
    assert CHECKER.check_http(PATH, merged, SIGNATURE)
    with pytest.raises(RemoteProtocolError):
        read_incoming(merged)
