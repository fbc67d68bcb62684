"""The paths at which a carrier finds a server, unless its configuration names others.

For the settings, and for the simulated caller, which knows nothing else of the servers it calls.
"""

from __future__ import annotations

from typing import Final

__all__ = ["MEDIA_STREAM_PATH", "STATUS_PATH", "VOICE_PATH"]

VOICE_PATH: Final = "/twilio/voice"
STATUS_PATH: Final = "/twilio/status"
MEDIA_STREAM_PATH: Final = "/twilio/media-stream"
