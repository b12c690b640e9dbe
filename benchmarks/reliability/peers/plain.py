"""The model behind a FastAPI app as its tutorial writes one: a function that takes the file and answers.

python -m benchmarks.reliability.peers.plain BUNDLE PORT
"""

from __future__ import annotations

import sys
from typing import Annotated, Any

import uvicorn
from fastapi import Body, FastAPI

from tesela.runtime.predictor import Predictor


def main() -> None:
    predictor = Predictor(sys.argv[1], precision="auto")
    app = FastAPI()

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/v1/classify")
    def classify(data: Annotated[bytes, Body(media_type="image/jpeg")]) -> Any:
        return predictor.predict([data])[0].body()

    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")


if __name__ == "__main__":
    main()
