"""``tesela serve``: the HTTP API and its page, on localhost unless a key is set."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Literal


def serve(
    *runs: str,
    host: str = "127.0.0.1",
    port: int = 8000,
    api_key: tuple[str, ...] = (),
    api_keys: Path | None = None,
    rate: float = 0.0,
    allow_host: tuple[str, ...] = (),
    prefix: str = "",
    allow_anonymous: bool = False,
    backend: Literal["auto", "onnxruntime", "openvino", "torch", "compiled"] = "auto",
    precision: Literal["auto", "fp32", "bf16", "int8", "int8-weights"] = "auto",
    max_batch: int = 16,
    queue: int = 64,
    explain_queue: int = 4,
    deadline: float = 20.0,
    decoders: int = 2,
    decode_seconds: float = 10.0,
    max_decoded: int = 2048,
    max_megabytes: int = 20,
    max_parts: int = 32,
    max_pixels: int = 40_000_000,
    max_connections: int = 1000,
    head_seconds: float = 10.0,
    body_seconds: float = 30.0,
    drain_seconds: float = 30.0,
    formats: tuple[str, ...] = ("JPEG", "PNG", "WEBP"),
    examples: bool | None = None,
    engine: Literal["local", "ray"] = "local",
    replicas: str = "",
    json: bool = False,
) -> None:
    """HTTP API and a page on this machine.

    Args:
        runs: Run folders or bundles; the first one answers where a request names none.
        host: The address to listen on. One that other machines reach needs an API key.
        port: The port; 0 takes a free one.
        api_key: A key that clients must send; can be given again. TESELA_API_KEY in the environment is one
            too, and is not seen by others.
        api_keys: A file of more keys as SHA-256 digests, one a line, as sha256sum writes them.
        rate: Most requests a second for each key, or each address where no key is needed; 0 for any number.
        allow_host: A host name that requests may name, such as the one a proxy passes on; can be given again.
        prefix: Path under which a proxy publishes the server, such as /tesela.
        allow_anonymous: Listen on any address without a key.
        backend: What computes; auto measures what can be used here, once, and takes the fastest.
        precision: Number format of the network; auto takes bf16 where it is faster and the answers agree.
        max_batch: Most images that are computed at once.
        queue: Most images that wait or are worked on; what comes on top is refused with 503.
        explain_queue: The same for explanations and attention.
        deadline: Seconds after which a request is refused instead of answered.
        decoders: Processes that decode images, beside one for those that take long.
        decode_seconds: Seconds after which a process that decodes one image is ended; of processor time for
            those of more than 1.5 megapixels.
        max_decoded: Most megabytes of decoded images that are worked on or wait.
        max_megabytes: Most megabytes of a request.
        max_parts: Most images of a form.
        max_pixels: Most pixels of an image.
        max_connections: Most sockets; a new one takes the place of the one that has been silent for longest.
        head_seconds: Seconds within which a socket must have sent the head of a request.
        body_seconds: Seconds within which a body must have arrived, and an answer must have been taken.
        drain_seconds: Seconds that accepted requests get to finish after Ctrl-C or SIGTERM.
        formats: Image formats that are taken, with commas between: also BMP, GIF, TIFF, AVIF, HEIF, JPEG2000
            and PPM.
        examples: Show some of the run's test images to try, where it kept some; by default on this machine
            alone.
        engine: What answers: this process, or with ray replicas on a cluster, all of whose machines see the
            run under the same path (RAY_ADDRESS, else Ray is started here).
        replicas: With --engine ray: how many, as a number or MIN..MAX; by default 1 to as many as there are
            processors. Queues, decoders and max-decoded count for each.
        json: Print one JSON object with the address once requests are taken.
    """
    from tesela.cli import output
    from tesela.core.errors import UsageError
    from tesela.core.files import unique_names
    from tesela.runtime.predictor import Predictor
    from tesela.serve.app import create_app
    from tesela.serve.cluster.front import create_front
    from tesela.serve.cluster.replicas import RayReplicas, replica_reach
    from tesela.serve.config import ServeConfig
    from tesela.serve.security import check_address, is_loopback, read_digests
    from tesela.serve.server import bind, listen

    output.use_json(json)
    if replicas and engine == "local":
        raise UsageError("--replicas belongs to a server on a cluster", hint="add --engine ray")
    reach = replica_reach(replicas)
    keys = (*api_key, *filter(None, [os.environ.get("TESELA_API_KEY")]))
    digests = () if api_keys is None else read_digests(api_keys)
    hosts = check_address(host, keys=(*keys, *digests), allow_anonymous=allow_anonymous, names=allow_host)
    config = ServeConfig(
        api_keys=keys,
        key_digests=digests,
        hosts=hosts,
        rate=rate,
        prefix=prefix,
        max_batch=max_batch,
        queue=queue,
        explain_queue=explain_queue,
        deadline=deadline,
        decoders=decoders,
        decode_seconds=decode_seconds,
        max_decoded=max_decoded * 1024 * 1024,
        max_parts=max_parts,
        max_connections=max_connections,
        head_seconds=head_seconds,
        body_seconds=body_seconds,
        drain_seconds=drain_seconds,
        max_bytes=max_megabytes * 1024 * 1024,
        max_pixels=max_pixels,
        formats=formats,
        examples=is_loopback(host) if examples is None else examples,
    )
    if not runs:
        raise UsageError("no model was given", hint="name a run or a bundle")
    names = unique_names(Path(run).resolve().name for run in runs)
    predictors = {
        name: Predictor(run, backend=backend, precision=precision, threads=1 if engine == "ray" else None)
        for name, run in zip(names, runs, strict=True)
    }
    for predictor in predictors.values():
        if predictor.choice is not None and predictor.choice.line():
            output.note(predictor.choice.line())

    def started(address: str) -> None:
        output.say(f"{', '.join(names)} at {address} (stop with Ctrl-C)")
        output.result({"address": address, "models": names}, json)

    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(bind(host, port))
        if engine == "local":
            app = create_app(predictors, config=config)
        else:
            cluster = RayReplicas(predictors, runs, config=config, reach=reach)
            stack.callback(cluster.close)
            app = create_front(cluster, cluster.document(), config=config, most=cluster.most)
        listen(app, listening, config=config, on_start=started, admission=app.state.admission)
    output.note("stopped")
