"""What a caller did wrong, as an HTTP status and the three facts of `modalign.errors`."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class Failure(Exception):
    """An answer that is not the one asked for.

    Args:
        status: HTTP status.
        expected: what the service needed.
        got: what came instead, with the field or id where there is one.
        fix: what the caller can do about it.
        headers: to send along, such as Retry-After.

    Example:
        >>> failure = Failure(404, "a known user", "'x'", "send items instead")
        >>> failure.body("r1").decode()[:38]
        '{"error":{"status":404,"expected":"a k'
    """

    def __init__(
        self,
        status: int,
        expected: str,
        got: str,
        fix: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.status, self.expected, self.got, self.fix = status, expected, got, fix
        self.headers = dict(headers or {})
        super().__init__(f"{status}: expected {expected}; got {got}. To mend it: {fix}")

    def body(self, request_id: str) -> bytes:
        """The answer's JSON, as the schema `Error` of the API says."""
        facts = {
            "status": self.status,
            "expected": self.expected,
            "got": self.got,
            "fix": self.fix,
            "request_id": request_id,
        }
        return msgspec.json.encode({"error": facts})


def unavailable(got: str, fix: str, seconds: int = 1) -> Failure:
    """The service cannot do it now, but may in a moment."""
    return Failure(503, "a service that can answer", got, fix, {"retry-after": str(seconds)})
