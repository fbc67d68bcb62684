"""The TwiML that a server answers with.

Pure. Follows Twilio voice/twiml/connect and voice/twiml/stream. Verbs keep their order; performing
them is left to the shell, what Twilio would refuse in a stream to `faults`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from xml.etree import ElementTree

from app.errors import RemoteProtocolError

__all__ = ["StreamOrder", "Verb", "parse_twiml", "stream_of"]

_MEDIA_TYPES: Final = frozenset({"text/xml", "application/xml"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """One TwiML verb; `children` are the nouns inside it."""

    name: str
    text: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    children: tuple[Verb, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamOrder:
    """A `<Connect><Stream>`; `action` is the document that follows the stream."""

    url: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    action: str | None = None


def parse_twiml(document: str, content_type: str) -> tuple[Verb, ...]:
    """The verbs of a `<Response>`, in order.

    Raises:
        RemoteProtocolError: it is not TwiML; the message has Twilio's code, 12300 or 12100.
    """
    media_type = content_type.partition(";")[0].strip().lower()
    if media_type not in _MEDIA_TYPES:
        raise RemoteProtocolError(
            f"the answer is {media_type or 'without a content type'}, not text/xml (Twilio 12300)",
            code="twiml_content_type",
        )
    try:
        root = ElementTree.fromstring(document)
    except ElementTree.ParseError as error:
        text = f"the answer is not XML: {error} (Twilio 12100)"
        raise RemoteProtocolError(text, code="twiml_unreadable") from None
    if root.tag != "Response":
        text = f"the root element is <{root.tag}>, not <Response> (Twilio 12100)"
        raise RemoteProtocolError(text, code="twiml_unreadable")
    return tuple(_verb(element) for element in root)


def _verb(element: ElementTree.Element) -> Verb:
    return Verb(
        name=element.tag,
        text=" ".join((element.text or "").split()),
        attributes=dict(element.attrib),
        children=tuple(_verb(child) for child in element),
    )


def stream_of(verb: Verb) -> StreamOrder | None:
    """The stream that a `<Connect>` asks for; None for every other verb.

    Raises:
        RemoteProtocolError: a stream without a url.
    """
    stream = next((noun for noun in verb.children if noun.name == "Stream"), None)
    if verb.name != "Connect" or stream is None:
        return None
    url = stream.attributes.get("url", "")
    if not url:
        raise RemoteProtocolError("<Stream> has no url", code="twiml_unreadable")
    parameters = {
        noun.attributes.get("name", ""): noun.attributes.get("value", "")
        for noun in stream.children
        if noun.name == "Parameter"
    }
    return StreamOrder(url=url, parameters=parameters, action=verb.attributes.get("action"))
