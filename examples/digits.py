"""From images to an explained prediction, step by step, in the manner of a notebook (cells start with `#
%%`).

    python examples/digits.py [OUT]

Takes about a minute on two cores and needs no download.
"""

# %% The library; nothing heavy is imported before it is used.
import sys
from pathlib import Path

import torch

import tesela as ts

out = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/example")

# %% Train a small ViT on scikit-learn's handwritten digits. Any field of the configuration can be given.
run = ts.train("digits", recipe="digits", epochs=25, out=out / "run", optim={"lr": 3e-3})
print(f"{run.model}: {run.parameters:,} parameters, accuracy {run.accuracy:.3f} on {run.split}")

# %% Evaluate it again, from what lies on the disk.
scores = ts.evaluate(run.path)
print(f"expected calibration error {scores['ece']:.3f}")

# %% The model is an ordinary nn.Module: normalised images in, logits out.
model = ts.load(run.path)
print(model(torch.zeros(2, 1, 8, 8)).shape)

# %% Predict from files or arrays; preprocessing is the bundle's.
import numpy as np  # noqa: E402
from sklearn.datasets import load_digits  # noqa: E402

pictures = (load_digits().images[:3] * 255 / 16).astype(np.uint8)[..., None]
for prediction in ts.predict(run.path, list(pictures), top=2):
    print([(score.label, round(score.probability, 3)) for score in prediction.scores])

# %% Which patches spoke for the class? One map per image and class, at the input's size.
from tesela.imaging.preprocess import preprocess  # noqa: E402

images = torch.from_numpy(preprocess(list(pictures), model.info.image))
heat = ts.explain(model, images, target=None)
print(heat.method, tuple(heat.map.shape), heat.scores.squeeze(1).tolist())

# %% Export to ONNX; the difference to torch is measured and printed. The result runs without torch.
report = ts.export(run.path, to="onnx", out=out / "onnx")
print(report)
