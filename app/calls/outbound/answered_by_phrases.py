"""Phrases by which those that answer calls give themselves away, by language. Pure.

They are written as `plain` makes them: small letters without accents, apostrophes or punctuation.
All languages are looked for at once, since a person may answer in another one than the agent's. A
phrase stands for whole words. What is `TELLING` decides nearly alone; what is only a `HINT` needs
company. To add a language, add a row to each table; `make bench` (answered_by) measures them.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["Found", "Kind", "find_phrases", "is_hello", "plain"]


class Kind(StrEnum):
    """The kinds of phrases, in the order in which they are believed."""

    SCREENING = "screening"
    PERSON = "person"
    SCREENING_HINT = "screening hint"
    VOICEMAIL = "voicemail"
    MENU = "menu"
    HOLD = "hold"
    VOICEMAIL_HINT = "voicemail hint"


_TABLE: Final[Mapping[Kind, Mapping[str, tuple[str, ...]]]] = {
    # A person who talks of messages, or asks the caller to say more.
    Kind.PERSON: {
        "en": (
            "how can i help", "how may i help", "how can we help", "what can i get",
            "who is it", "who is that", "can i ask whos calling", "may i ask whos calling",
            "can i ask who is calling", "may i ask who is calling", "sorry what", "say again",
            "can i help you", "would you like to leave", "do you want to leave",
            "can i take a message", "may i take a message", "shall i take a message",
            "this is he", "this is she", "who is this", "whos this", "who is calling please",
            "whos calling please", "whos speaking", "who am i speaking", "speaking",
            "what can i do for you", "what do you want", "what is it", "say that again",
            "i cant hear you", "is anybody there", "is anyone there",
        ),
        "de": (
            "was kann ich fur sie tun", "sie sprechen mit", "wer ist denn da", "wie bitte",
            "wie kann ich ihnen helfen", "wie kann ich helfen", "am apparat", "wer ist da",
            "wer spricht", "mit wem spreche ich", "was gibts", "ja bitte",
            "soll ich etwas ausrichten", "mein name ist", "ich hore",
        ),
        "es": (
            "en que puedo ayudar", "en que le puedo ayudar", "quien habla", "quien es",
            "de parte de quien", "con quien hablo", "al habla", "quiere dejar",
        ),
        "fr": (
            "que puis je faire pour vous", "comment puis je vous aider", "en quoi puis je",
            "qui est a lappareil", "cest qui", "qui est ce", "a lappareil", "je vous ecoute",
            "voulez vous laisser", "cest de la part de qui",
        ),
    },
    Kind.SCREENING: {
        "en": (
            "record your name and", "say your name and", "state your name", "call screening",
            "screening service", "being screened", "be screened", "screening this call",
            "screening calls", "if this person is available", "if the person is available",
            "if they are available", "subscriber is using", "does not accept calls from",
            "doesnt accept calls from", "before i connect", "before i try to connect",
            "before connecting", "unknown callers", "call assistant",
        ),
        "de": (
            "nennen sie ihren namen und", "sagen sie ihren namen und", "anruf wird gepruft",
            "anruf wird gefiltert", "anruffilter", "ob die person erreichbar ist",
            "ob die person verfugbar ist", "bevor ich sie verbinde", "bevor ich verbinde",
        ),
        "es": (
            "diga su nombre y", "grabe su nombre y", "filtro de llamadas", "filtrando",
            "si esta persona esta disponible", "antes de conectar",
        ),
        "fr": (
            "dites votre nom et", "enregistrez votre nom et", "filtrage dappels",
            "filtre dappels", "si cette personne est disponible",
            "avant de vous mettre en relation",
        ),
    },
    Kind.SCREENING_HINT: {
        "en": (
            "your name and why", "your name and the reason", "your name and reason",
            "your name and what", "your name and purpose", "your name and the purpose",
            "reason for your call", "reason for calling", "purpose of your call",
            "why you are calling", "why youre calling", "what this is about",
            "what its regarding", "record your name", "announce yourself",
        ),
        "de": (
            "namen und den grund", "grund ihres anrufs", "grund fur ihren anruf",
            "namen und grund", "namen und das anliegen", "namen und ihr anliegen",
            "warum sie anrufen", "worum es geht", "ihren namen",
        ),
        "es": (
            "su nombre y el motivo", "motivo de su llamada", "motivo de la llamada",
            "por que llama", "diga su nombre", "grabe su nombre", "indique su nombre",
        ),
        "fr": (
            "votre nom et la raison", "votre nom et le motif", "raison de votre appel",
            "motif de votre appel", "objet de votre appel", "pourquoi vous appelez",
            "dites votre nom", "indiquer votre nom", "votre nom et",
        ),
    },
    Kind.VOICEMAIL: {
        "en": (
            "leave a message", "leave your message", "leave me a message", "leave us a message",
            "leave a brief message", "leave a short message", "leave a detailed message",
            "leave your name", "leave me your name", "leave your number", "record your message",
            "record a message", "record after", "after the tone", "after the beep",
            "at the tone", "at the beep", "voice mailbox", "voicemail", "voice mail",
            "voice message", "voice messaging", "mailbox is full", "mailbox of",
            "ill get back to you", "ill call you back", "well get back to you",
            "get back to you as soon", "return your call", "call you back as soon",
            "answering machine",
        ),
        "de": (
            "hinterlassen sie", "nachricht hinterlassen", "nach dem signalton",
            "nach dem piepton", "nach dem ton", "nach dem piep", "mailbox", "anrufbeantworter",
            "sprachnachricht", "aufs band", "sprechen sie bitte nach", "rufe sie zuruck",
            "rufe zuruck", "rufen sie zuruck", "rufe dich zuruck", "melde mich zuruck",
            "auf band", "sprachbox",
        ),
        "es": (
            "deje su mensaje", "deje un mensaje", "dejar un mensaje", "deja tu mensaje",
            "deje un recado", "despues de la senal", "despues del tono", "tras la senal",
            "al oir la senal", "buzon de voz", "contestador", "le devolvere la llamada",
            "grabe su mensaje", "devolvere la llamada",
        ),
        "fr": (
            "laissez un message", "laisser un message", "laissez votre message",
            "laissez moi un message", "laissez nous un message", "apres le bip",
            "apres le signal sonore", "messagerie vocale", "sur la messagerie", "repondeur",
            "boite vocale", "je vous rappellerai", "je vous rappelle", "laisser votre message",
        ),
    },
    Kind.MENU: {
        "en": (
            "press one", "press 1", "press two", "press 2", "press three", "press 3",
            "press zero", "press 0", "press star", "press pound", "press nine", "press 9",
            "main menu", "menu options", "following options", "options have changed",
            "menu has changed", "enter your", "say or press", "dial your partys",
            "dial by name", "to speak with a representative", "in a few words", "for sales",
            "for english", "know your partys extension",
        ),
        "de": (
            "drucken sie", "wahlen sie die", "hauptmenu", "folgenden optionen",
            "sagen sie bitte", "geben sie ihre",
        ),
        "es": (
            "pulse uno", "pulse 1", "oprima", "marque uno", "marque 1", "pulse el", "marque el",
            "menu principal", "siguientes opciones", "presione", "pulse dos", "pulse 2",
            "marque dos", "marque cero", "marque 2", "para espanol",
        ),
        "fr": (
            "tapez", "appuyez sur", "faites le", "menu principal", "composez le",
            "options suivantes",
        ),
    },
    Kind.HOLD: {
        "en": (
            "please hold", "hold the line", "hold on please", "stay on the line",
            "remain on the line", "your call is important", "all of our", "all our agents",
            "all our operators", "next available", "in the queue", "position in queue",
            "thank you for holding", "thanks for holding", "while i connect you",
            "while we connect you", "thank you for your patience", "trying to connect you",
            "one moment while",
        ),
        "de": (
            "bitte warten", "bleiben sie dran", "bleiben sie in der leitung",
            "der nachste freie", "nachster freier", "alle unsere", "ihr anruf ist uns wichtig",
            "werden verbunden", "warteschleife", "bitte haben sie etwas geduld",
            "moment geduld", "nachsten freien",
        ),
        "es": (
            "permanezca en linea", "permanezca a la espera", "no cuelgue",
            "mantengase en linea", "todos nuestros", "su llamada es importante",
            "espere por favor",
        ),
        "fr": (
            "ne quittez pas", "veuillez patienter", "merci de patienter", "restez en ligne",
            "tous nos", "votre appel est important", "mise en relation",
        ),
    },
    Kind.VOICEMAIL_HINT: {
        "en": (
            "youve reached", "you have reached", "youre through to", "cant take your call",
            "cannot take your call", "cant come to the phone", "cant get to the phone",
            "unable to take your call", "unable to answer", "unable to come to the phone",
            "not available", "unavailable", "not able to", "away from my", "missed your call",
            "out of the office", "when you have finished", "when you are finished", "hang up",
            "is not in service", "has been forwarded", "forwarded to", "automated",
            "the number", "sorry i missed", "miss your call", "busy right now", "our hours are",
            "closed",
        ),
        "de": (
            "nicht erreichbar", "nicht zu erreichen", "nicht personlich", "ich bin gerade",
            "bin zurzeit", "bin momentan", "zur zeit nicht", "im moment nicht", "anschluss von",
            "sie sind verbunden mit", "derzeit nicht", "geschlossen", "der angerufene",
        ),
        "es": (
            "no puedo atender", "no podemos atender", "no esta disponible", "no se encuentra",
            "en este momento no", "ha llamado a", "ahora no puedo", "no puedo contestar",
        ),
        "fr": (
            "pas disponible", "ne suis pas la", "absent", "indisponible",
            "ne peux pas repondre", "ne pouvons pas", "vous etes bien", "bien chez",
            "pour le moment", "injoignable", "correspondant",
        ),
    },
}  # fmt: skip

# The first word, or the only ones, of somebody who picks up.
_HELLO_WORDS: Final = (
    "hello hi hey yes yeah yep yo hallo hullo morning speaking ja bitte tag moin servus "
    "guten grussgott hola si diga digame bueno alo mande oui allo bonjour bonsoir salut"
)
_HELLOS: Final = frozenset(_HELLO_WORDS.split())
_FEW_WORDS: Final = 4


def plain(words: str) -> str:
    """Words in small letters without accents or punctuation, one space between them."""
    letters = unicodedata.normalize("NFKD", words.lower().replace("ß", "ss"))
    kept = "".join(one for one in letters if not unicodedata.combining(one))
    kept = re.sub(r"['\u2019`]", "", kept)
    return " ".join(re.findall(r"\w+", kept))


def _compiled(phrases: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(map(plain, phrases), key=len, reverse=True)
    return re.compile(rf"\b(?:{'|'.join(longest_first)})\b")


_FINDS: Final = {
    kind: _compiled(phrase for language in table.values() for phrase in language)
    for kind, table in _TABLE.items()
}


@dataclass(frozen=True, slots=True)
class Found:
    """The first phrase of each kind in some words, and how many there were of it."""

    phrases: Mapping[Kind, str]
    counts: Mapping[Kind, int]
    words: int

    def has(self, kind: Kind) -> bool:
        return kind in self.phrases


def find_phrases(plain_words: str) -> Found:
    """The phrases in words that `plain` has made."""
    phrases: dict[Kind, str] = {}
    counts: dict[Kind, int] = {}
    for kind, pattern in _FINDS.items():
        found = dict.fromkeys(pattern.findall(plain_words))
        if found:
            phrases[kind] = next(iter(found))
            counts[kind] = len(found)
    return Found(phrases, counts, len(plain_words.split()))


def is_hello(words: str) -> bool:
    """True for a few words such as a person says who picks up; a short question is one, too."""
    said = plain(words).split()
    few = 0 < len(said) <= _FEW_WORDS and not _HELLOS.isdisjoint(said)
    return few or (len(said) <= 2 * _FEW_WORDS and words.rstrip().endswith("?"))
