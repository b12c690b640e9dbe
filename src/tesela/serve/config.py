"""Limits of the server: sizes, queue, deadline, keys; safe by default."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tesela.core.errors import ConfigError
from tesela.imaging.limits import DEFAULT_LIMITS, DecodeLimits, format_names
from tesela.runtime.predictor import DECODE_SECONDS

_COUNTS = (
    "max_bytes",
    "max_parts",
    "max_pixels",
    "max_batch",
    "queue",
    "explain_queue",
    "decoders",
    "max_decoded",
    "max_connections",
)
_SECONDS = ("deadline", "decode_seconds", "body_seconds", "head_seconds", "drain_seconds")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeConfig:
    """Limits of one application."""

    max_bytes: int = 20 * 1024 * 1024
    """Most bytes of a request's body; counted while it arrives."""
    max_parts: int = 32
    """Most images of a form."""
    max_pixels: int = 40_000_000
    """Most pixels of an image, checked before it is decoded."""
    formats: tuple[str, ...] = DEFAULT_LIMITS.formats
    """Image formats that are decoded; every other one is refused with 415."""
    max_batch: int = 16
    """Most images that the model computes at once."""
    queue: int = 64
    """Most images that are being worked on or wait; what comes on top is refused with 503."""
    explain_queue: int = 4
    """The same for explanations, which cost several times a classification."""
    deadline: float = 20.0
    """Seconds after which a waiting request is refused instead of computed."""
    decoders: int = 2
    """Processes that decode images; one more is there so that small ones always find one."""
    decode_seconds: float = 10.0
    """Seconds after which the process that decodes an image is ended; of processor time where it is slow."""
    max_decoded: int = 2 << 30
    """Most bytes of decoded images that are worked on or wait; what comes on top is refused with 503."""
    body_seconds: float = 30.0
    """Seconds within which a body must have arrived."""
    max_connections: int = 1000
    """Most sockets; a new one takes the place of the one that has been silent for longest."""
    head_seconds: float = 10.0
    """Seconds within which a socket must have sent the head of a request."""
    drain_seconds: float = 30.0
    """Seconds that accepted requests get to finish after a signal."""
    rate: float = 0.0
    """Most requests a second for each key, or for each address where no key is needed; 0 for any number."""
    prefix: str = ""
    """Path under which a proxy publishes the server, such as ``/tesela``; with or without it in requests."""
    api_keys: tuple[str, ...] = ()
    """Keys that clients must send; none means open to everybody who reaches the address."""
    key_digests: tuple[str, ...] = ()
    """The same as SHA-256 digests (hexadecimal), as a file of keys holds them."""
    examples: bool = True
    """Let clients see the example images that a run has kept of its test images."""
    hosts: tuple[str, ...] = ()
    """Host names that requests may name; empty means any. On loopback this keeps foreign web pages out (DNS
    rebinding)."""

    def __post_init__(self) -> None:
        for name in _COUNTS:
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"{name} must be 1 or more, not {getattr(self, name)}",
                    hint="leave it out for the usual value",
                )
        for name in _SECONDS:
            if not 0 < getattr(self, name) < float("inf"):
                raise ConfigError(f"{name} must be above 0", hint="leave it out for the usual value")
        if not 0 <= self.rate < float("inf"):
            raise ConfigError(
                f"rate cannot be {self.rate}", hint="give requests a second, or 0 for any number"
            )
        if self.prefix and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", self.prefix):
            raise ConfigError(
                f"{self.prefix!r} is no path prefix", hint="write it as /name, without a / behind"
            )
        if any(len(key) < 8 for key in self.api_keys):
            raise ConfigError(
                "an API key needs 8 characters or more", hint="make one with: openssl rand -hex 16"
            )
        object.__setattr__(self, "formats", format_names(self.formats))
        _ = self.decode_limits

    @property
    def decode_limits(self) -> DecodeLimits:
        """Limits within which images are decoded.

        Raises:
            ConfigError: an unknown format.
        """
        return DecodeLimits(
            max_pixels=self.max_pixels,
            max_bytes=self.max_bytes,
            formats=self.formats,
            seconds=min(DECODE_SECONDS, self.decode_seconds),
        )
