"""``tesela serve``: the HTTP API and its page, on localhost unless a key is set."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal


def serve(
    *runs: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: tuple[str, ...] = (),
    allow_anonymous: bool = False,
    backend: Literal["auto", "onnxruntime", "torch"] = "auto",
    max_batch: int = 16,
    queue: int = 64,
    max_megabytes: int = 20,
    max_pixels: int = 40_000_000,
    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP"),
    json: bool = False,
) -> None:
    """HTTP API and a page on this machine.

    Args:
        runs: Run folders or bundles; the first one answers where a request names none.
        host: The address to listen on. One that other machines reach needs an API key.
        port: The port; 0 takes a free one.
        api_key: A key that clients must send; can be given again. TESELA_API_KEY in the environment is one
            too, and is not seen by others.
        allow_anonymous: Listen on any address without a key.
        backend: What computes; auto prefers an exported ONNX graph.
        max_batch: Most images that are computed at once.
        queue: Most images that wait or are worked on; what comes on top is refused with 503.
        max_megabytes: Most megabytes of a request.
        max_pixels: Most pixels of an image.
        formats: Image formats that are taken, with commas between: also BMP, GIF, TIFF, AVIF, HEIF, JPEG2000
            and PPM.
        json: Print one JSON object with the address once requests are taken.
    """
    from tesela.cli import output
    from tesela.core.errors import UsageError
    from tesela.core.files import unique_names
    from tesela.runtime.predictor import Predictor
    from tesela.serve.app import create_app
    from tesela.serve.config import ServeConfig
    from tesela.serve.security import check_address
    from tesela.serve.server import bind, listen

    output.use_json(json)
    keys = (*api_key, *filter(None, [os.environ.get("TESELA_API_KEY")]))
    hosts = check_address(host, keys=keys, allow_anonymous=allow_anonymous)
    config = ServeConfig(
        api_keys=keys,
        hosts=hosts,
        max_batch=max_batch,
        queue=queue,
        max_bytes=max_megabytes * 1024 * 1024,
        max_pixels=max_pixels,
        formats=formats,
    )
    if not runs:
        raise UsageError("no model was given", hint="name a run or a bundle")
    names = unique_names(Path(run).resolve().name for run in runs)
    predictors = {name: Predictor(run, backend=backend) for name, run in zip(names, runs, strict=True)}
    listening = bind(host, port)
    app = create_app(predictors, config=config)

    def started(address: str) -> None:
        output.say(f"{', '.join(names)} at {address} (stop with Ctrl-C)")
        output.result({"address": address, "models": names}, json)

    listen(app, listening, on_start=started)
    output.note("stopped")
