#!/bin/sh
# A fresh environment with tesela's base only: predict and serve-side imports must work where torch cannot even be found.
#   scripts/check_without_torch.sh ONNX_BUNDLE IMAGE...
# Prints the JSON lines of `tesela predict`, then OK. About 20 s with a warm package cache, 200 MB in a temporary folder.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
bundle=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$here/constraints.txt" "$here"
if "$folder/venv/bin/python" -c "import torch" 2>/dev/null; then
  echo "torch is installed: this environment proves nothing" >&2
  exit 1
fi
"$folder/venv/bin/tesela" predict "$bundle" "$@" --json
"$folder/venv/bin/tesela" doctor >/dev/null
echo OK
