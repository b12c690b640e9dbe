#!/bin/sh
# A fresh environment without torch: predict, doctor and a server on an exported bundle, with the same answers.
#   scripts/check_without_torch.sh ONNX_BUNDLE IMAGE...
# Prints the JSON lines of `tesela predict`, then OK. About a minute with a warm package cache, 250 MB in a temporary folder.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
bundle=$1
shift
folder=$(mktemp -d)
server=
trap 'test -z "$server" || kill "$server"; rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
unset PYTHONPATH
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check -c "$here/constraints.txt" "$here[serve]"
if "$folder/venv/bin/python" -c "import torch" 2>/dev/null; then
  echo "torch is installed: this environment proves nothing" >&2
  exit 1
fi
"$folder/venv/bin/tesela" predict "$bundle" "$@" --top 5 --json | tee "$folder/predicted"
"$folder/venv/bin/tesela" doctor >/dev/null
"$folder/venv/bin/tesela" serve "$bundle" --port 0 --json >"$folder/served" &
server=$!
"$folder/venv/bin/python" - "$folder" <<'EOF'
"""Each image's five labels from the server against those of predict; a heat map is refused by name."""
import json, sys, time, urllib.error, urllib.request
from pathlib import Path

folder = Path(sys.argv[1])
for _ in range(300):
    lines = (folder / "served").read_text().splitlines()
    if lines:
        break
    time.sleep(0.1)
address = json.loads(lines[0])["address"]


def ask(path, image):
    request = urllib.request.Request(address + path, Path(image).read_bytes(), {"Content-Type": "image/*"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


rows = [row for row in map(json.loads, (folder / "predicted").read_text().splitlines()) if "image" in row]
assert rows
for row in rows:
    served = ask("/v1/classify?top=5", row["image"])["top"]
    assert [one["label"] for one in served] == [one["label"] for one in row["top"]], row["image"]
    assert all(abs(a["probability"] - b["probability"]) < 1e-6 for a, b in zip(served, row["top"])), row["image"]
try:
    ask("/v1/explain", rows[0]["image"])
except urllib.error.HTTPError as error:
    assert json.load(error)["code"] == "explain_unavailable"
else:
    raise AssertionError("a graph without its network was explained")
EOF
echo OK
