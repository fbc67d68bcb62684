"""Token buckets: so many at once, and then so many a second. Pure; seconds of one clock."""

from __future__ import annotations

from collections import OrderedDict

__all__ = ["TokenBucket", "TokenBuckets"]


class TokenBucket:
    """`most` tokens, of which `per_s` come back each second."""

    def __init__(self, most: float, per_s: float, now_s: float) -> None:
        self._most, self._per_s = float(most), per_s
        self._left, self._since_s = self._most, now_s

    def take(self, now_s: float) -> bool:
        """Take a token; False where there is none."""
        left = min(self._most, self._left + (now_s - self._since_s) * self._per_s)
        self._since_s = now_s
        self._left = left - 1 if left >= 1 else left
        return left >= 1

    def give_back(self) -> None:
        """Put back a token that was taken."""
        self._left += 1

    @property
    def wait_s(self) -> float:
        """Seconds from the last `take` to the next token."""
        return max(0.0, (1 - self._left) / self._per_s)


class TokenBuckets:
    """A bucket for each of the `remembered` names that were seen last."""

    def __init__(self, most: float, per_s: float, remembered: int) -> None:
        self.per_s = per_s
        self._most = most
        self._remembered = remembered
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def of(self, name: str, now_s: float) -> TokenBucket:
        """The bucket of a name: full, unless it was seen before."""
        bucket = self._buckets.pop(name, None) or TokenBucket(self._most, self.per_s, now_s)
        self._buckets[name] = bucket
        if len(self._buckets) > self._remembered:
            self._buckets.popitem(last=False)
        return bucket
