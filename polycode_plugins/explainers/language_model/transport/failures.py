"""What can go wrong with a request: the run stops, the request is refused, or it is tried again."""

from __future__ import annotations

from polycode_plugins.errors import PolycodeError


class RemoteError(PolycodeError):
    """The whole run is pointless as it was asked for: a wrong key, no credit, an unknown model.

    Attributes:
        status: of the HTTP answer, None where it was not that.
        said: what the server said, cleared of the key; "" where it said nothing.
    """

    def __init__(self, message: str, status: int | None = None, said: str = "") -> None:
        super().__init__(message)
        self.status, self.said = status, said


class BudgetError(RemoteError):
    """The budget is spent; everything that was paid for is in the store."""


class Refused(Exception):
    """One request failed for good.

    Attributes:
        reason: one short sentence, the same for the same cause: failures are counted by it.
        detail: what the server said, for the store.
        lost: whether it may have been paid for.
    """

    def __init__(self, reason: str, detail: str = "", *, lost: bool = False) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.lost = reason, detail, lost


class Unreadable(Exception):
    """An answer that came, but does not say what was asked for; its text is the reason."""


class Transient(Exception):
    """One request may succeed later: 429, 5xx, a time-out, a dropped connection.

    Attributes:
        reason: as in `Refused`, for when there are no attempts left.
        retry_after: seconds the server asked to wait, None where it did not.
        busy: whether the server has too much to do: fewer requests at once may help.
        slow: whether it was a time-out.
        detail, lost: as in `Refused`.
    """

    def __init__(
        self,
        reason: str,
        detail: str = "",
        retry_after: float | None = None,
        *,
        lost: bool = False,
        busy: bool = False,
        slow: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason, self.detail, self.retry_after, self.lost = reason, detail, retry_after, lost
        self.busy, self.slow = busy, slow
