#!/bin/sh
# A fresh environment of tesela[edge]: everything that a board does must work where torch cannot even be found.
#   scripts/check_without_torch.sh BUNDLE IMAGE...        BUNDLE is what `tesela export` wrote
#   DATA=FOLDER scripts/check_without_torch.sh ...        evaluates on that data too
# Prints the JSON lines of `tesela predict`, then sizes, times and OK. Less than a minute with a warm package cache, 250 MB in a
# temporary folder. explain runs where the program has maps (tesela export --with-map).
set -eu
unset PYTHONPATH
here=$(cd "$(dirname "$0")/.." && pwd)
bundle=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${PYTHON:-python3}" -m venv "$folder/venv"
python="$folder/venv/bin/python"
tesela="$folder/venv/bin/tesela"
"$python" -m pip install --quiet --disable-pip-version-check -c "$here/constraints.txt" "$here[edge]"
if "$python" -c "import torch" 2>/dev/null; then
  echo "torch is installed: this environment proves nothing" >&2
  exit 1
fi
size=$("$python" - "$folder/venv" <<'PYTHON'
import pathlib, sys
skipped = {"pip", "__pycache__"}
files = (path for path in pathlib.Path(sys.argv[1]).rglob("*") if path.is_file() and not path.is_symlink())
print(sum(path.stat().st_size for path in files if not skipped & set(path.parts)) // 1_000_000)
PYTHON
)
if [ "$size" -gt 250 ]; then
  echo "the environment takes $size MB, more than 250" >&2
  exit 1
fi
"$tesela" predict "$bundle" "$@" --json >"$folder/predicted.json"
cat "$folder/predicted.json"
"$python" - "$tesela" predict "$bundle" "$1" --json <<'PYTHON'
import resource, subprocess, sys, time
begin = time.perf_counter()
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
seconds = time.perf_counter() - begin
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1000
print(f"one image from a cold start: {seconds:.2f} s, {peak} MB resident", file=sys.stderr)
PYTHON
"$tesela" doctor >/dev/null
"$tesela" bench "$bundle" --batch 1 --seconds 0.2 >/dev/null
if grep -q '"map"' "$bundle/config.json"; then
  "$tesela" explain "$bundle" "$1" --out "$folder/maps" >/dev/null
fi
if [ -n "${DATA:-}" ]; then
  "$tesela" evaluate "$bundle" "$DATA" >/dev/null
fi
# the server says what predict and explain say: the same classes in the same order, probabilities and maps to 1e-4
"$python" - "$tesela" "$bundle" "$1" "$folder" <<'PYTHON'
import json, pathlib, subprocess, sys, urllib.request
import numpy as np
from tesela.attribution.draw.heatmap import stretched
from tesela.serve.looking.program import patch_values
tesela, bundle, image, folder = sys.argv[1:]
command = [tesela, "serve", bundle, "--port", "0", "--json"]
server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def ask(path):
    data = pathlib.Path(image).read_bytes()
    request = urllib.request.Request(f"{address}/v1/{path}", data=data, headers={"Content-Type": "image/*"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def same(served, wanted, label, number):
    for one, other in zip(served, wanted, strict=True):
        if one[label] != other[label] or abs(one[number] - other[number]) > 1e-4:
            sys.exit(f"the server says {one}, predict {other}")


try:
    for line in server.stdout:
        if line.startswith("{"):
            address = json.loads(line)["address"]
            break
    else:
        sys.exit("tesela serve did not start")
    info = json.loads(pathlib.Path(bundle, "config.json").read_text())
    served = ask(info["task"])
    wanted = json.loads(pathlib.Path(folder, "predicted.json").read_text().splitlines()[0])
    if "top" in wanted:
        same(served["top"], wanted["top"], "label", "probability")
    else:
        same(served["areas"], wanted["areas"], "label", "share")
    maps = list(pathlib.Path(folder).glob("maps/*.npz"))
    if maps:
        explained = ask("explain")
        with np.load(maps[0]) as arrays:
            values = stretched(patch_values(arrays["map"][0], tuple(explained["grid"])))
        size = explained["height"], explained["width"]
        if size == (info["image"]["height"], info["image"]["width"]) and not np.allclose(
            explained["tokens"], values, atol=1e-4
        ):
            sys.exit("the server's map is not that of tesela explain")
finally:
    server.terminate()
    server.wait(timeout=30)
PYTHON
echo "environment: $size MB" >&2
echo OK
