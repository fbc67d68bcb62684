"""The simulated Twilio caller of `trunkline dial`: recorded speech in, stereo WAV and report out.

Speaks signed webhooks and Media Streams to any server, plays its audio out in real time, returns
marks as Twilio does and finds the faults in what it gets.
"""

from app.dial.command import DEFAULT_TO, DialOptions, dial, run
from app.dial.report import DialReport

__all__ = ["DEFAULT_TO", "DialOptions", "DialReport", "dial", "run"]
