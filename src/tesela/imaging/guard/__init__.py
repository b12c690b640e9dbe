"""Guards of decoding: work that is refused, time that is limited, and turns at large images."""
