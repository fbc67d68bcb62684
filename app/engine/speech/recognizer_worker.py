"""The recognizer's process: pocketsphinx decoders fed over a pipe.

Run as `python -m app.engine.speech.recognizer_worker` by `recognizer.py`. It knows nothing of
intents: it gets grammars and training sentences in its set-up and returns the words of both
listeners. Turns share the process in pieces of 20 ms, one piece each in rotation, so that a long
turn cannot hold up another. Same audio in, same words out: nothing is carried from one turn to the
next.
"""

from __future__ import annotations

import itertools
import json
import queue
import random
import signal
import sys
import tempfile
import threading
import warnings
from array import array
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

from app.engine.speech.frames import Frame, Kind, pack, read_frame

__all__ = ["main"]


_PIECE_BYTES: Final = 640
"""20 ms of int16 at 16 kHz."""

_NOISE_RMS: Final = 30
"""About -61 dBFS, added because the acoustic model is wideband and a telephone line leaves the
upper band empty (measured gain: docs/engine.md)."""

_NOISE_SAMPLES: Final = 16_000

_CHANNEL_PIECES: Final = 70
"""The first 1.4 s of a turn (or all of it) are held back to learn how the line sounds, and then
decoded. The silence that ends a turn leaves time to catch up."""

_CHANNEL_WEIGHT: Final = 0.7
_TELEPHONE_CEPSTRUM: Final = (
    44.3, 2.8, -2.9, 17.5, 0.0, -3.7, 9.7, -6.0, -2.0, -0.5, -5.8, 2.7, -5.0,
)  # fmt: skip
"""The mean cepstrum of telephone speech, from the tuning voices. The one that the model comes with
is for wideband microphones and costs half of the right answers here."""

_DISCOUNT: Final = 0.1
_DECODING: Final[dict[str, float]] = {"silprob": 0.3, "wip": 0.1, "lw": 8.0, "maxhmmpf": 1500}
"""Search weights, chosen on the tuning set of `tests/bench/intents.py`."""


class _Refused(Exception):
    """The set-up is unusable; the text is for the operator."""


def _decoder(folder: Path, *, bestpath: bool = True) -> Any:
    import pocketsphinx  # here, so that a missing extra is refused with a sentence

    return pocketsphinx.Decoder(
        hmm=pocketsphinx.get_model_path("en-us/en-us"),
        dict=str(folder / "words.dict"),
        lm=None,
        loglevel="FATAL",
        bestpath=bestpath,
        **_DECODING,
    )


class _ChannelEstimator:
    """Measures the sound of a line and a voice as their mean cepstrum, without decoding."""

    def __init__(self, folder: Path, word: str) -> None:
        self._decoder = _decoder(folder)
        # A decoder wants something to search for, although nothing is searched here.
        self._decoder.add_jsgf_string("any", f"#JSGF V1.0;\ngrammar any;\npublic <any> = {word};\n")
        self._decoder.activate_search("any")

    def mean(self, audio: bytes) -> str:
        """The mean to begin a turn with, from its first audio and the telephone's usual mean."""
        self._decoder.start_stream()
        self._decoder.start_utt()
        self._decoder.process_raw(audio, True, True)
        self._decoder.end_utt()
        heard = [float(part) for part in self._decoder.get_cmn(False).split(",")]
        return ",".join(
            f"{_CHANNEL_WEIGHT * here + (1 - _CHANNEL_WEIGHT) * usual:.3f}"
            for here, usual in zip(heard, _TELEPHONE_CEPSTRUM, strict=True)
        )


class _Listeners:
    """A pair of decoders that hear the same turn."""

    def __init__(self, setup: Mapping[str, Any], folder: Path, models: dict[str, Any]) -> None:
        import pocketsphinx

        self._lm = _decoder(folder)
        # The search for the best path through a grammar's lattice takes seconds and changes
        # little; the same search for the language model takes a millisecond.
        self._grammar = _decoder(folder, bestpath=False)
        for state, jsgf in setup["grammars"].items():
            self._grammar.add_jsgf_string(state, jsgf)
            if state not in models:
                file = folder / f"{len(models)}.lm"
                _write_model(setup["training"][state], file)
                models[state] = pocketsphinx.NGramModel(
                    self._lm.config, self._lm.logmath, str(file)
                )
            self._lm.add_lm(state, models[state])

    def begin(self, state: str, mean: str) -> None:
        """Start a turn in a dialogue state."""
        for decoder in (self._lm, self._grammar):
            decoder.activate_search(state)
            decoder.set_cmn(mean)
            decoder.start_stream()  # forgets the noise of the turn before
            decoder.start_utt()

    def push(self, piece: bytes) -> None:
        self._lm.process_raw(piece)
        self._grammar.process_raw(piece)

    def end(self) -> dict[str, str]:
        """End the turn; return the words of each listener."""
        words = {}
        for name, decoder in (("lm", self._lm), ("grammar", self._grammar)):
            decoder.end_utt()
            hypothesis = decoder.hyp()
            words[name] = hypothesis.hypstr if hypothesis is not None else ""
        return words


class _Turn:
    """One turn: its audio that is not decoded yet, and its decoders once it has any."""

    def __init__(self, state: str) -> None:
        self.state = state
        self.pieces: deque[bytes] = deque()
        self.rest = b""
        self.at = 0
        self.finished = False
        self.listeners: _Listeners | None = None

    def push(self, audio: bytes, noise: array[int]) -> None:
        audio = self.rest + audio
        whole = len(audio) - len(audio) % _PIECE_BYTES
        self.rest = audio[whole:]
        for start in range(0, whole, _PIECE_BYTES):
            self.pieces.append(self._noisy(audio[start : start + _PIECE_BYTES], noise))

    def finish(self, noise: array[int]) -> None:
        if len(self.rest) >= 2:
            self.pieces.append(self._noisy(self.rest[: len(self.rest) & ~1], noise))
        self.rest = b""
        self.finished = True

    def _noisy(self, piece: bytes, noise: array[int]) -> bytes:
        samples = array("h", piece)
        if sys.byteorder == "big":
            samples.byteswap()
        hiss = noise[self.at : self.at + len(samples)]
        self.at = (self.at + len(samples)) % _NOISE_SAMPLES
        mixed = (a + b for a, b in zip(samples, hiss, strict=True))
        return array("h", [max(-32768, min(32767, sample)) for sample in mixed]).tobytes()


class _TurnScheduler:
    """The turns of one process and the decoders that they share."""

    def __init__(self, setup: Mapping[str, Any], out: BinaryIO) -> None:
        self._out = out
        self._turns: dict[int, _Turn] = {}
        chance = random.Random(7)
        noise = array("h", (round(chance.gauss(0, _NOISE_RMS)) for _ in range(_NOISE_SAMPLES)))
        self._noise = noise + noise[: _PIECE_BYTES // 2]  # a piece never runs over the end
        with tempfile.TemporaryDirectory(prefix="trunkline-") as name:
            folder = Path(name)
            _write_dictionary(setup, folder / "words.dict")
            self._channel = _ChannelEstimator(folder, setup["vocabulary"][0])
            models: dict[str, Any] = {}
            self._free = [_Listeners(setup, folder, models) for _ in range(setup["hearings"])]

    @property
    def idle(self) -> bool:
        return not any(self._can_work(turn) for turn in self._turns.values())

    def take(self, frame: Frame) -> None:
        turn = self._turns.get(frame.number)
        match frame.kind:
            case Kind.BEGIN:
                self._turns[frame.number] = _Turn(frame.body.decode())
            case Kind.AUDIO if turn is not None:
                turn.push(frame.body, self._noise)
            case Kind.FINISH if turn is not None:
                turn.finish(self._noise)
            case Kind.ABANDON if turn is not None:
                del self._turns[frame.number]
                if turn.listeners is not None:
                    turn.listeners.end()
                    self._free.append(turn.listeners)
            case _:
                pass  # about a turn that is over

    def work(self) -> None:
        """Give every turn 20 ms of decoding."""
        for number, turn in list(self._turns.items()):
            if not self._can_work(turn):
                continue
            if turn.listeners is None and not turn.pieces:
                self._answer(number, {})
                continue
            if turn.listeners is None:
                turn.listeners = self._free.pop()
                first = b"".join(itertools.islice(turn.pieces, _CHANNEL_PIECES))
                turn.listeners.begin(turn.state, self._channel.mean(first))
            if turn.pieces:
                turn.listeners.push(turn.pieces.popleft())
            if turn.finished and not turn.pieces:
                self._free.append(turn.listeners)
                self._answer(number, turn.listeners.end())

    def _answer(self, number: int, words: dict[str, str]) -> None:
        del self._turns[number]
        self._out.write(pack(Kind.RESULT, number, json.dumps(words).encode()))
        self._out.flush()

    def _can_work(self, turn: _Turn) -> bool:
        if turn.listeners is not None:
            return bool(turn.pieces) or turn.finished
        heard_enough = len(turn.pieces) >= _CHANNEL_PIECES or turn.finished
        return heard_enough and bool(self._free)


def _write_dictionary(setup: Mapping[str, Any], file: Path) -> None:
    """Write the pronunciations of the dialogue's words only: the whole dictionary costs 30 MB.

    Raises:
        _Refused: words without a pronunciation.
    """
    import pocketsphinx

    wanted = set(setup["vocabulary"])
    said: dict[str, list[str]] = {}
    whole = Path(pocketsphinx.get_model_path("en-us/cmudict-en-us.dict"))
    with whole.open(encoding="utf-8") as lines:
        for line in lines:
            word = line.split(" ", 1)[0].split("(")[0]
            if word in wanted:
                said.setdefault(word, []).append(line)
    for word, phones in setup["pronunciations"].items():
        said[word] = [f"{word} {phones}\n"]
    unknown = sorted(wanted - set(said))
    if unknown:
        raise _Refused(f"words without a pronunciation: {', '.join(unknown)}")
    file.write_text("".join(line for word in sorted(said) for line in said[word]), "utf-8")


def _write_model(training: list[tuple[str, int]], file: Path) -> None:
    """Count sentences into a trigram model and write it as an ARPA file."""
    from pocketsphinx.lm import ArpaBoLM

    model = ArpaBoLM(discount_mass=_DISCOUNT)
    for sentence, count in training:
        words = ["<s>", *sentence.split(), "</s>"]
        for word in words:
            model.grams_1[word] += count
        for left, right in itertools.pairwise(words):
            model.grams_2[left][right] += count
        for left, middle, right in zip(words, words[1:], words[2:], strict=False):
            model.grams_3[left][middle][right] += count
    model.compute()
    with file.open("w", encoding="utf-8") as out:
        model.write(out)


def _read(stream: BinaryIO, inbox: queue.SimpleQueue[Frame | None]) -> None:
    while (frame := read_frame(stream)) is not None:
        inbox.put(frame)
    inbox.put(None)


def main() -> None:
    """Listen until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which then closes us
    # pocketsphinx calls `start_stream` unnecessary; without it, a turn depends on the one before.
    warnings.filterwarnings("ignore", "start_stream", DeprecationWarning)
    stdin, out = sys.stdin.buffer, sys.stdout.buffer
    first = read_frame(stdin)
    if first is None:
        return
    try:
        scheduler = _TurnScheduler(json.loads(first.body), out)
    except (_Refused, ImportError, ValueError, RuntimeError) as error:
        out.write(pack(Kind.REFUSED, 0, str(error).encode()))
        out.flush()
        return
    inbox: queue.SimpleQueue[Frame | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(stdin, inbox), daemon=True).start()
    out.write(pack(Kind.READY))
    out.flush()
    while True:
        while not inbox.empty() or scheduler.idle:
            frame = inbox.get()
            if frame is None:
                return
            scheduler.take(frame)
        scheduler.work()


if __name__ == "__main__":
    main()
