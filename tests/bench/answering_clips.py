"""Those that answer a call that was placed, as a telephone line carries it: made at bench time.

Each recording is a script of sentences, pauses and tones, spoken by a voice of espeak-ng that the
engine does not use, limited to 250-3400 Hz, with the noise of a line, through mu-law. The scripts
and voices of `HELD_OUT` are held out: nothing was tuned on them; `TUNED_LATER` were, too, until a
fault that they had shown was mended. The transcript is what a
transcription model would give: the known words, when a turn detector and the model are done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from app.engine.speech.synthesizer_worker import _EspeakLibrary
from app.engine.speech.voices import Voice
from app.events import AnsweredBy
from audio.g711 import encode_ulaw

__all__ = ["Recording", "Turn", "line_tone", "recordings", "spoken_line"]

RATE_HZ: Final = 8_000
TURN_PAUSE_MS: Final = 500
"""The silence that ends a turn for the model's detector; a shorter pause stays inside of it."""
TRANSCRIPT_DELAY_MS: Final = 450
TAIL_MS: Final = 14_000
_SPEECH_RMS: Final = 2_500.0

H, S, V, I, F, W, N = (  # noqa: E741 - columns of the tables below
    AnsweredBy.HUMAN,
    AnsweredBy.SCREENING,
    AnsweredBy.VOICEMAIL,
    AnsweredBy.IVR,
    AnsweredBy.FAX,
    AnsweredBy.HOLD,
    AnsweredBy.NOBODY,
)

# A number is a pause in ms; "beep 1000 400" a tone in Hz and ms; "@ring" is silence to the end.
Step = str | int
Script = tuple[AnsweredBy, str, tuple[Step, ...]]

TUNED: Final[tuple[Script, ...]] = (
    (H, "en", ("Hello?",)),
    (H, "en", ("Hi.",)),
    (H, "en", ("Yes?",)),
    (H, "en", ("Hello, this is Karen.",)),
    (H, "en", ("Speaking.",)),
    (H, "en", ("Hello?", 1_800, "Hello?",)),
    (H, "en", ("Good morning, Brown and Sons, this is Mary speaking, how can I help you?",)),
    (H, "en", ("Yeah, who is this?",)),
    (H, "en", ("Johnson residence.",)),
    (H, "en", (2_500, "Hello?",)),
    (H, "de", ("Hallo?",)),
    (H, "de", ("Schneider.",)),
    (H, "de", ("Guten Tag, Autohaus Weber, mein Name ist Lange, was kann ich für Sie tun?",)),
    (H, "es", ("¿Dígame?",)),
    (H, "fr", ("Allô?",)),
    (H, "fr", ("Oui, bonjour?",)),
    (V, "en", ("Hi, you've reached Tom. I can't come to the phone right now. Please leave a "
               "message after the tone.", 700, "beep 1000 400")),
    (V, "en", ("Your call has been forwarded to an automatic voice message system.", 400,
               "Five five five, zero one two three.", 300,
               "is not available.", 400, "At the tone, please record your message. When you have "
               "finished recording, you may hang up, or press one for more options.", 500,
               "beep 850 500")),
    (V, "en", ("Hey, it's Dave.", 600, "Leave me your name and number and I'll get back to you.",
               900, "beep 1400 250")),
    (V, "en", ("You have reached the voicemail of Anna Miller. I am out of the office.",)),
    (V, "en", ("We're sorry, no one is available to take your call. Please leave your message.",)),
    (V, "de", ("Guten Tag, Sie sind verbunden mit dem Anschluss von Familie Maier. Wir sind gerade "
               "nicht erreichbar. Bitte hinterlassen Sie eine Nachricht nach dem Signalton.", 600,
               "beep 950 500")),
    (V, "de", ("Hallo, hier ist die Mailbox von Peter. Ich rufe Sie gerne zurück.",)),
    (V, "es", ("Hola, ha llamado a Carmen. En este momento no puedo atender. Deje su mensaje "
               "después de la señal.", 500, "beep 1000 600")),
    (V, "fr", ("Bonjour, vous êtes bien chez Luc. Je ne suis pas là. Laissez un message après le "
               "bip.", 500, "beep 1100 300")),
    (S, "en", ("Hi. If you record your name and reason for calling, I'll see if this person is "
               "available.",)),
    (S, "en", ("Hi, the person you're calling is using a screening service from Google. Go ahead "
               "and say your name, and why you're calling.",)),
    (S, "de", ("Bitte nennen Sie Ihren Namen und den Grund Ihres Anrufs.",)),
    (I, "en", ("Thank you for calling City Bank. For account balances, press one. For lost cards, "
               "press two.",)),
    (I, "en", ("Welcome to Acme. Please listen carefully, as our menu options have changed. To "
               "speak with a representative, press zero.",)),
    (I, "de", ("Willkommen bei der Stadtbank. Für Ihren Kontostand drücken Sie die Eins.",)),
    (F, "en", (1_000, "beep 2100 3000")),
    (F, "en", ("beep 1100 500", 3_000, "beep 1100 500", 3_000, "beep 1100 500")),
    (W, "en", ("All of our agents are busy. Please hold, your call is important to us.", 800,
               "You are number four in the queue.")),
    (N, "en", (14_000,)),
    (H, "en", ("Hello, who's calling?",)),
    (H, "en", ("Hey.",)),
    (H, "en", ("Yep.",)),
    (H, "en", ("Um, hello?",)),
    (H, "en", ("Susan Parker.",)),
    (H, "en", ("This is Robert.",)),
    (H, "en", ("Good afternoon.",)),
    (H, "en", ("Hello? Hello? Can you hear me?",)),
    (H, "en", (700, "Hello?", 1_500, "Is somebody there?")),
    (H, "en", ("Front desk, Michael here.",)),
    (H, "en", ("Thanks for calling Luigi's Pizza, what can I get you?",)),
    (H, "en", ("Oak Street Dental, Jennifer speaking. How may I help you today?",)),
    (H, "en", ("Hang on a second.", 900, "Okay. Hello?")),
    (H, "en", ("Mom, it's for you! Hello?",)),
    (H, "en", ("Hello, sorry, I was just in the kitchen. Who is it?",)),
    (H, "en", ("What's up?",)),
    (H, "de", ("Ja bitte?",)),
    (H, "de", ("Becker, hallo?",)),
    (H, "de", ("Praxis Doktor Vogel, Sie sprechen mit Frau Krüger, guten Tag.",)),
    (H, "de", ("Ja, hallo, wer ist denn da?",)),
    (H, "es", ("Hola, ¿quién es?",)),
    (H, "es", ("Sí, bueno.",)),
    (H, "fr", ("Oui, j'écoute.",)),
    (H, "fr", ("Bonjour, cabinet du docteur Petit, que puis-je faire pour vous?",)),
    (V, "en", ("Hello, this is Mark. Sorry I missed you. Leave a message and I'll call you back "
               "when I can.", 600, "beep 1000 300")),
    (V, "en", ("Hi!", 500, "We can't get to the phone at the moment. Please leave your name and a "
               "number after the beep.", 800, "beep 440 700")),
    (V, "en", ("The person you are trying to reach is not available. Please leave your message "
               "after the tone.", 700, "beep 1200 200")),
    (V, "en", ("The Google subscriber you have called is not available. Please leave a message "
               "after the tone.", 500, "beep 950 400")),
    (V, "en", ("You've reached Greene and Partners. Our office is closed. Leave us a message and "
               "we'll return your call on the next business day.",)),
    (V, "en", ("Hey, you know what to do.", 400, "beep 1000 350")),
    (V, "en", ("The mailbox is full and cannot accept any messages at this time. Goodbye.",)),
    (V, "en", ("Hi, it's Lucy, I'm probably on the other line or driving, so just say something "
               "nice and I'll ring you when I'm back.", 700, "beep 1330 450")),
    (V, "en", ("Hello.", 1_000, "You are through to the answering machine of the Wilson family.",
               600, "beep 800 600")),
    (V, "en", ("Please leave a message.", 300, "beep 1000 1000")),
    (V, "de", ("Der gewünschte Gesprächspartner ist zur Zeit nicht erreichbar. Sprechen Sie bitte "
               "nach dem Ton.", 500, "beep 1000 500")),
    (V, "de", ("Hallo, Sie haben die Nummer von Jana gewählt. Ich bin unterwegs, sprechen Sie mir "
               "doch einfach aufs Band, ich melde mich dann.", 600, "beep 900 400")),
    (V, "de", ("Sie haben außerhalb unserer Geschäftszeiten angerufen. Bitte hinterlassen Sie "
               "Ihren Namen und Ihre Nummer.",)),
    (V, "es", ("Este es el buzón de voz de Miguel. Grabe su mensaje al oír la señal.", 500,
               "beep 1000 400")),
    (V, "fr", ("Vous êtes sur le répondeur de Claire, laissez-moi vos coordonnées, je vous "
               "rappellerai.", 600, "beep 1050 300")),
    (V, "fr", ("Votre correspondant est indisponible. Veuillez laisser un message après le signal "
               "sonore.", 500, "beep 1000 500")),
    (S, "en", ("Hello. The person you are calling does not accept calls from unknown numbers. "
               "Please state your name and the purpose of your call.",)),
    (S, "en", ("This call may be screened. Please say your name and the reason you're calling "
               "after the tone.", 400, "beep 1000 200")),
    (S, "en", ("Before I connect you, can you tell me your name and what this is about?",)),
    (S, "en", ("To continue this call, please record your name and the reason for calling. I will "
               "see if they are available.",)),
    (S, "es", ("Por favor, diga su nombre y el motivo de su llamada.",)),
    (S, "fr", ("Veuillez indiquer votre nom et la raison de votre appel.",)),
    (I, "en", ("Hello, and thank you for calling the clinic. If this is an emergency, hang up and "
               "dial nine one one. To make an appointment, press one.",)),
    (I, "en", ("For sales, press one. For support, press two. For all other questions, stay on the "
               "line.",)),
    (I, "en", ("Thank you for calling. If you know your party's extension, you may dial it at any "
               "time. For the directory, press nine.",)),
    (I, "es", ("Bienvenido. Para información en español, marque dos. Para hablar con un agente, "
               "marque cero.",)),
    (I, "fr", ("Bienvenue. Pour le service commercial, tapez un. Pour les urgences, tapez deux.",)),
    (F, "en", (500, "beep 2100 2700")),
    (F, "en", (1_500, "beep 2100 3800")),
    (W, "en", ("Thank you for your patience. Please stay on the line, and your call will be "
               "answered by the next available operator.",)),
    (W, "de", ("Bitte haben Sie einen Moment Geduld. Sie werden gleich mit dem nächsten freien "
               "Mitarbeiter verbunden.",)),
    (N, "en", (14_000,)),
)  # fmt: skip

TUNED_LATER: Final[tuple[Script, ...]] = (
    (H, "en", ("Hello, Peter speaking.",)),
    (H, "en", ("Yello?",)),
    (H, "en", ("Good evening.", 1_600, "Anyone there?")),
    (H, "en", ("Hi there, Emma here.",)),
    (H, "en", ("Mm-hmm?",)),
    (H, "en", ("Who's this?",)),
    (H, "en", ("Hello hello.",)),
    (H, "en", ("O'Brien.",)),
    (H, "en", ("Hey babe, hang on, I'm just parking the car. Okay, go ahead.",)),
    (H, "en", ("Riverside Motors, service department, Tony speaking.",)),
    (H, "en", ("Good morning, thank you for calling Hilltop School, this is Grace, how can I "
               "direct your call?",)),
    (H, "en", (1_800, "Yes, hello?")),
    (H, "en", ("Hello, sorry about the noise, can you speak up?",)),
    (H, "en", ("I'm in a meeting, what is it?",)),
    (H, "de", ("Hoffmann.",)),
    (H, "de", ("Ja, hallo?",)),
    (H, "de", ("Firma Berger, Schulz, guten Morgen.",)),
    (H, "es", ("¿Bueno?",)),
    (H, "es", ("Sí, dígame, ¿quién llama?",)),
    (H, "fr", ("Allô, oui?",)),
    (H, "fr", ("Garage Martin, bonjour.",)),
    (V, "en", ("Hi, this is Jessica's phone. I'm not around, so leave me a message. Thanks, bye.",
               800, "beep 1000 500")),
    (V, "en", ("You've reached the law offices of Stone and Reed. If you know who you want to talk "
               "to, leave your details after the tone and somebody will be in touch.", 700,
               "beep 1150 350")),
    (V, "en", ("The number you have dialed is not available at this time. Please record your "
               "message after the beep. When you are done, hang up or press the pound key.", 500,
               "beep 650 800")),
    (V, "en", ("Yo, it's Jay, I can't pick up. Text me instead.", 900, "beep 1000 300")),
    (V, "en", ("Hello?", 400, "Ha, fooled you, I'm not here. Leave a message.", 700,
               "beep 1250 250")),
    (V, "en", ("We are closed for the holidays. Please call again after the second of January, or "
               "leave a voice message.",)),
    (V, "en", ("Thanks for your call. Nobody can answer right now. Your name, your number and the "
               "reason for your call, please, and we will ring you back.", 600, "beep 900 500")),
    (V, "en", ("Record your message at the tone.", 400, "beep 1400 600")),
    (V, "de", ("Hier ist der Anrufbeantworter von Familie Koch. Wir freuen uns über eine "
               "Nachricht.", 700, "beep 1000 400")),
    (V, "de", ("Die Mobilbox der Nummer null eins sieben. Bitte sprechen Sie nach dem Signal.",
               500, "beep 1100 400")),
    (V, "de", ("Hallo, ich kann grad nicht rangehen, bitte hinterlasst mir was.", 800,
               "beep 850 300")),
    (V, "es", ("El teléfono al que llama está apagado o fuera de cobertura. Deje su mensaje tras "
               "la señal.", 500, "beep 1000 500")),
    (V, "fr", ("Bonjour, je ne peux pas vous répondre. Merci de me laisser un message.", 700,
               "beep 1000 400")),
    (S, "en", ("Hi, I'm the assistant of the person you called. Tell me your name and why you are "
               "calling, and I'll check whether they want to talk.",)),
    (S, "en", ("Call screening is on. Please say who you are and why you're calling.",)),
    (S, "en", ("The person you have called is screening calls. After the beep, say your name.",
               500, "beep 1000 200")),
    (S, "de", ("Der Anruf wird gefiltert. Sagen Sie Ihren Namen und worum es geht.",)),
    (I, "en", ("Welcome to Northern Rail. For tickets, press one. For lost property, press two. To "
               "hear this again, press nine.",)),
    (I, "en", ("Your call may be monitored. Please say or enter your account number, followed by "
               "the pound key.",)),
    (I, "de", ("Herzlich willkommen. Bei Fragen zur Rechnung drücken Sie die Eins, sonst die "
               "Zwei.",)),
    (F, "en", (800, "beep 2100 3200")),
    (W, "en", ("You are being connected. Please hold the line while we find somebody for you.",)),
    (N, "en", (14_000,)),
)  # fmt: skip

HELD_OUT: Final[tuple[Script, ...]] = (
    (H, "en", ("Hello, Susan here.",)),
    (H, "en", ("Yes, hi.",)),
    (H, "en", ("Hello? I can hardly hear you.",)),
    (H, "en", ("Hey, what's going on?",)),
    (H, "en", ("Anderson.",)),
    (H, "en", ("Hello, you've got Martin.",)),
    (H, "en", ("Uh huh?",)),
    (H, "en", (1_200, "Hello?", 1_400, "Hello, who is there?")),
    (H, "en", ("Good morning, Greenfield Library, Laura speaking.",)),
    (H, "en", ("Thank you for calling Bayside Hotel, my name is Ken, how may I help you?",)),
    (H, "en", ("Sorry, I nearly missed it, I was out in the garden. Hello?",)),
    (H, "en", ("Harper household, Tim.",)),
    (H, "en", ("Accounts, good afternoon, you're speaking with Olivia Grant.",)),
    (H, "en", ("Hi, is that you, mum?",)),
    (H, "de", ("Ja?",)),
    (H, "de", ("Lehmann, guten Tag.",)),
    (H, "de", ("Gasthaus zur Post, mein Name ist Huber, was darf es sein?",)),
    (H, "es", ("Hola, buenas tardes.",)),
    (H, "es", ("¿Sí, quién es?",)),
    (H, "fr", ("Allô, bonjour?",)),
    (H, "fr", ("Mairie de Valence, bonjour, je vous écoute.",)),
    (V, "en", ("Hi, you've reached Paul Jones. I'm not available right now, so please leave a "
               "message and I'll get back to you soon.", 700, "beep 1000 450")),
    (V, "en", ("This is Nora. Sorry I can't take your call. Say something after the beep.", 500,
               "beep 1180 300")),
    (V, "en", ("You have reached a number that is not in use for calls at this moment. Please "
               "leave a voice message.", 600, "beep 880 500")),
    (V, "en", ("Hello, this is the Baker family. We're out, but we'd love to hear from you.", 800,
               "beep 700 600")),
    (V, "en", ("The party you are calling is unavailable. At the tone, record your message.", 500,
               "beep 950 250")),
    (V, "en", ("Our offices are closed until Monday. Leave your name and number, and we will "
               "return your call.",)),
    (V, "en", ("Hey! You know the drill.", 500, "beep 1000 400")),
    (V, "de", ("Sie haben die Familie Brandt erreicht. Leider ist niemand zu Hause. Sprechen Sie "
               "nach dem Piepton.", 600, "beep 1000 400")),
    (V, "de", ("Die Rufnummer ist derzeit nicht erreichbar. Hinterlassen Sie eine Nachricht.",)),
    (V, "es", ("Soy Elena, ahora no puedo contestar. Deja tu mensaje y te llamo.", 600,
               "beep 1000 350")),
    (V, "fr", ("Bonjour, vous êtes sur la messagerie de Julien. Laissez-moi un message.", 600,
               "beep 1000 400")),
    (S, "en", ("Hello, this person uses call screening. Please state your name and the reason for "
               "calling.",)),
    (S, "en", ("Who should I say is calling? Record your name and why you're calling, and I'll "
               "check if they are available.",)),
    (S, "fr", ("Cet appel est filtré. Dites votre nom et le motif de votre appel.",)),
    (I, "en", ("You have reached Summit Insurance. For claims, press one. For a new policy, press "
               "two.",)),
    (I, "en", ("Thanks for calling the ticket office. In a few words, tell me what you need.",)),
    (I, "es", ("Gracias por llamar. Para ventas, pulse uno. Para soporte, pulse dos.",)),
    (F, "en", (1_200, "beep 2100 2900")),
    (W, "en", ("Please stay on the line while we connect you to the next available agent.",)),
    (N, "en", (14_000,)),
)  # fmt: skip

# Language and espeak variant, pitch, words per minute as a share of 160. The engine speaks with
# en-us and the variants f2, f3, f4, m3, m7.
_TUNED_VOICES: Final = {
    "en": (("en-us+f1", 55, 1.05), ("en-gb+m1", 40, 0.95), ("en-gb-scotland+m5", 35, 1.15)),
    "de": (("de+f1", 55, 1.0), ("de+m5", 35, 1.15)),
    "es": (("es+m1", 45, 1.0), ("es-419+f5", 60, 1.1)),
    "fr": (("fr-fr+f1", 50, 1.0), ("fr-be+m5", 40, 1.1)),
}
_TUNED_LATER_VOICES: Final = {
    "en": (
        ("en-gb-x-gbclan+m6", 45, 1.1),
        ("en-gb-x-gbcwmd+f5", 70, 0.9),
        ("en-us+klatt2", 40, 1.2),
    ),
    "de": (("de+m8", 50, 1.05), ("de+klatt3", 60, 0.9)),
    "es": (("es+f5", 65, 1.15), ("es-419+m8", 40, 0.95)),
    "fr": (("fr-ch+m6", 45, 1.05), ("fr-fr+klatt2", 55, 0.95)),
}
_HELD_OUT_VOICES: Final = {
    "en": (
        ("en-us-nyc+Annie", 60, 1.05),
        ("en-029+david", 40, 1.0),
        ("en-gb-x-rp+linda", 55, 1.15),
    ),
    "de": (("de+Andrea", 60, 1.1), ("de+max", 40, 0.95)),
    "es": (("es+pablo", 45, 1.05), ("es-419+steph", 60, 0.95)),
    "fr": (("fr-fr+michel", 40, 1.0), ("fr-be+Alicia", 60, 1.1)),
}
_NOISE_DB: Final = (35.0, 25.0, 18.0)
"""The distance of the line's noise below the speech: clean, usual, bad."""


@dataclass(frozen=True, slots=True)
class Turn:
    """Words of a transcript, and the time in ms at which the model would give them."""

    at_ms: int
    words: str


@dataclass(frozen=True, slots=True)
class Recording:
    """A call from its answer: mu-law at 8 kHz, and what else is known of it.

    `turns` are the transcript, `speech` the spans in which something speaks, in ms; `ready_ms` the
    time from which a mailbox records, for calls that reach one.
    """

    name: str
    kind: AnsweredBy
    held_out: bool
    sound: bytes
    turns: tuple[Turn, ...]
    speech: tuple[tuple[int, int], ...]
    ready_ms: int | None


def recordings() -> Iterator[Recording]:
    """All recordings: every script with each voice of its language, at changing noise."""
    for held_out, scripts, voices in (
        (False, TUNED, _TUNED_VOICES),
        (False, TUNED_LATER, _TUNED_LATER_VOICES),
        (True, HELD_OUT, _HELD_OUT_VOICES),
    ):
        for number, (kind, language, steps) in enumerate(scripts):
            spoken = any(isinstance(step, str) and not step.startswith("beep") for step in steps)
            for at, (voice, pitch, speed) in enumerate(
                voices[language] if spoken else [("", 0, 1)]
            ):
                noise_db = _NOISE_DB[(number + at) % len(_NOISE_DB)]
                name = f"{kind} {number} {voice} {noise_db:.0f} dB"
                made = Voice(voice, pitch, "")
                yield _record(name, kind, steps, made, speed, noise_db, held_out=held_out)


def spoken_line(text: str, voice: Voice, speed: float = 1.0) -> bytes:
    """A sentence as a telephone line carries it: mono mu-law at 8 kHz."""
    return encode_ulaw(np.rint(_speak(text, voice, speed)).astype(np.int16))


def line_tone(hz: int, ms: int) -> bytes:
    """A tone as loud as speech, mono mu-law at 8 kHz."""
    return encode_ulaw(np.rint(_tone(hz, ms)).astype(np.int16))


def _tone(hz: int, ms: int) -> NDArray[np.float64]:
    wave: NDArray[np.float64] = np.sin(2 * np.pi * hz * np.arange(8 * ms) / RATE_HZ)
    return wave * _SPEECH_RMS


def _record(
    name: str,
    kind: AnsweredBy,
    steps: tuple[Step, ...],
    voice: Voice,
    speed: float,
    noise_db: float,
    *,
    held_out: bool,
) -> Recording:
    random = np.random.default_rng(sum(map(ord, name)))
    parts: list[NDArray[np.float64]] = [np.zeros(8 * int(random.integers(150, 900)))]
    speech: list[tuple[int, int]] = []
    said: list[tuple[int, str]] = []  # each turn's end, and its words
    ready_ms = None
    for step in steps:
        now_ms = sum(map(len, parts)) // 8
        if isinstance(step, int):
            parts.append(np.zeros(8 * step))
        elif step.startswith("beep"):
            hz, ms = (int(word) for word in step.split()[1:])
            parts.append(_tone(hz, ms) * random.uniform(0.6, 1.6))
            ready_ms = now_ms + ms
        else:
            spoken = _speak(step, voice, speed)
            parts.append(spoken)
            end_ms = now_ms + len(spoken) // 8
            if speech and said and now_ms - speech[-1][1] < TURN_PAUSE_MS:
                said[-1] = (end_ms, f"{said[-1][1]} {step}")
            else:
                said.append((end_ms, step))
            speech.append((now_ms, end_ms))
    parts.append(np.zeros(8 * TAIL_MS))
    line = np.concatenate(parts)
    noise = _band(random.normal(size=len(line)))
    line += noise / noise.std() * _SPEECH_RMS / 10 ** (noise_db / 20)
    line *= random.uniform(0.5, 1.5)
    wire = encode_ulaw(np.clip(np.rint(line), -32768, 32767).astype(np.int16))
    done_ms = TURN_PAUSE_MS + TRANSCRIPT_DELAY_MS
    turns = tuple(Turn(end_ms + done_ms, words) for end_ms, words in said)
    return Recording(name, kind, held_out, wire, turns, tuple(speech), ready_ms)


@cache
def _library() -> _EspeakLibrary:
    return _EspeakLibrary()


@cache
def _speak(text: str, voice: Voice, speed: float) -> NDArray[np.float64]:
    """Speech at 8 kHz, without the silence that the synthesizer puts around it."""
    samples, rate_hz = _library().render(text, voice, speed)
    size = len(samples) * RATE_HZ // rate_hz
    spectrum = np.fft.rfft(samples)[: size // 2 + 1]
    narrow = _band(np.fft.irfft(spectrum, size) * size / len(samples))
    loud = np.flatnonzero(np.abs(narrow) > 0.02 * np.abs(narrow).max())
    narrow = narrow[loud[0] : loud[-1] + 1]
    voiced = narrow[np.abs(narrow) > 0.1 * np.abs(narrow).max()]
    spoken: NDArray[np.float64] = narrow / np.sqrt(np.mean(voiced**2)) * _SPEECH_RMS
    return spoken


def _band(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Limit sound at 8 kHz to 250-3400 Hz."""
    spectrum = np.fft.rfft(samples)
    hz = np.fft.rfftfreq(len(samples), 1 / RATE_HZ)
    spectrum[(hz < 250) | (hz > 3_400)] = 0
    limited: NDArray[np.float64] = np.fft.irfft(spectrum, len(samples))
    return limited
