"""The model behind LitServe, with its batching.

python -m benchmarks.reliability.peers.lit BUNDLE PORT

Odd: LitServe looks at annotations as objects, so this file has no postponed ones.
"""

import sys
from typing import Annotated, Any

import litserve
import numpy as np
from fastapi import Body

from tesela.runtime.predictor import Predictor


class Classifier(litserve.LitAPI):  # type: ignore[misc]
    """Decode, a batch through the network, scores."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        self.predictor = Predictor(sys.argv[1], precision="auto")

    def decode_request(self, request: Annotated[bytes, Body(media_type="image/jpeg")]) -> Any:
        return self.predictor.prepare(request)

    def batch(self, inputs: list[Any]) -> Any:
        return inputs

    def predict(self, inputs: list[Any]) -> Any:
        return self.predictor.outputs(inputs)

    def unbatch(self, output: Any) -> Any:
        return list(output)

    def encode_response(self, output: Any) -> dict[str, Any]:
        task, info = self.predictor.task, self.predictor.info
        return dict(task.decode(np.asarray(output)[None], info)[0].body())


def main() -> None:
    api = Classifier(max_batch_size=16, batch_timeout=0.005, api_path="/v1/classify")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1, healthcheck_path="/healthz")
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
