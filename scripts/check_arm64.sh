#!/bin/sh
# The edge runtime on an arm64 Debian, emulated by qemu: predict, explain and serve answer as on this machine.
#   sudo scripts/check_arm64.sh BUNDLE IMAGE...        BUNDLE: tesela export RUN --to onnx --precision int8
#   MAPS=BUNDLE sudo -E scripts/check_arm64.sh ...     explains with that one: tesela export RUN --to onnx --with-map
# Needs root, debootstrap and qemu-user-static (Debian packages), and TESELA, the command here (by default
# .venv/bin/tesela). Builds a root file system in build/arm64 once, from Debian's packages and the wheels for aarch64
# of the package index; every wheel that is not there fails here. Emulation is 10 to 50 times slower than a board.
# Where the kernel does not know qemu for arm64 yet, it does until the end of this script.
set -eu
here=$(cd "$(dirname "$0")/.." && pwd)
root=${ROOT:-$here/build/arm64}
suite=${SUITE:-bookworm}
mirror=${MIRROR:-http://deb.debian.org/debian}
tesela=${TESELA:-$here/.venv/bin/tesela}
pip="$(dirname "$tesela")/python -m pip"
bundle=$(realpath "$1")
shift
maps=$(realpath "${MAPS:-$bundle}")
for tool in debootstrap qemu-aarch64-static unshare; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install debootstrap qemu-user-static" >&2; exit 2; }
done
work=$(mktemp -d)
server=
known=yes
formats=/proc/sys/fs/binfmt_misc
finish() {
  [ -z "$server" ] || kill "$server" 2>/dev/null || true
  [ $known = yes ] || echo -1 >$formats/qemu-aarch64
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 3' INT TERM

# 1. Debian: downloaded and unpacked; nothing has to be configured to run Python
if [ ! -x "$root/usr/bin/python3" ]; then
  rm -rf "$root.new"
  mkdir -p "$root.new"
  debootstrap --arch=arm64 --foreign --variant=minbase --include=python3 "$suite" "$root.new" "$mirror" >&2
  for package in "$root.new"/var/cache/apt/archives/*.deb; do
    dpkg-deb -x "$package" "$root.new"
  done
  mv "$root.new" "$root"
fi
version=$(readlink "$root/usr/bin/python3" | sed s/python//)

# 2. the wheels of tesela[edge] for aarch64, none built from source
rm -rf "$root/opt/tesela" "$root/opt/wheels"
mkdir -p "$root/opt/wheels"
$pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir "$root/opt/wheels" "$here"
platforms=$(for minor in 17 24 26 27 28 31 34 35 36; do printf -- '--platform manylinux_2_%s_aarch64 ' $minor; done)
# shellcheck disable=SC2086
$pip install --quiet --disable-pip-version-check --no-compile --target "$root/opt/tesela" --only-binary=:all: \
  --implementation cp --python-version "$version" $platforms --platform manylinux2014_aarch64 \
  -c "$here/constraints.txt" "$(ls "$root"/opt/wheels/tesela-*.whl)[edge]"
echo "wheels for aarch64, Python $version:" >&2
grep -h '^Tag:.*aarch64' "$root"/opt/tesela/*.dist-info/WHEEL | sort | uniq -c >&2
rm -rf "$root/opt/tesela/torch"

# 3. the same commands there and here
mkdir -p "$root/srv/bundle" "$root/srv/maps" "$root/srv/images" "$root/srv/out" "$root/tmp"
rm -rf "$root"/srv/bundle/* "$root"/srv/maps/* "$root"/srv/images/* "$root"/srv/out/*
cp "$bundle"/* "$root/srv/bundle/"
cp "$maps"/* "$root/srv/maps/"
cp "$@" "$root/srv/images/"
[ -e $formats/register ] || mount -t binfmt_misc binfmt_misc $formats
if [ ! -e $formats/qemu-aarch64 ]; then
  known=no
  magic='\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
  mask='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
  printf '%s' ":qemu-aarch64:M::$magic:$mask:$(command -v qemu-aarch64-static):F" >$formats/register
fi
# a mount namespace of its own: nothing of it is seen outside, and it ends with the command
board() {
  # shellcheck disable=SC2016
  unshare --mount sh -c '
    root=$1; shift
    mount --rbind /proc "$root/proc"; mount --rbind /dev "$root/dev"
    exec chroot "$root" /usr/bin/env -i PATH=/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 PYTHONPATH=/opt/tesela \
      sh -c "cd /srv; exec python3 \"\$@\"" sh "$@"' sh "$root" "$@"
}
board -c 'import platform, sys; assert platform.machine() == "aarch64"; print(sys.version, file=sys.stderr)'
if board -c 'import torch' 2>/dev/null; then
  echo "torch is installed: this environment proves nothing" >&2
  exit 1
fi
board -m tesela predict bundle images --json --backend onnxruntime >"$work/board.jsonl"
(cd "$root/srv" && "$tesela" predict bundle images --json --backend onnxruntime) >"$work/here.jsonl"
board -m tesela explain maps images --out out --json >"$work/explained.json"
(cd "$root/srv" && "$tesela" explain maps images --out "$work/out" --json) >"$work/here.json"

board -m tesela serve bundle --port 0 --deadline 300 --json >"$work/served" 2>"$work/serve.log" &
server=$!
python=$(dirname "$tesela")/python
"$python" - "$root/srv/images" "$work" "$root/srv/out" <<'PYTHON' || { cat "$work/serve.log" >&2; exit 1; }
import json, pathlib, sys, time, urllib.request
import numpy as np

images, work, out = map(pathlib.Path, sys.argv[1:])


def rows(name):
    return [json.loads(line) for line in (work / name).read_text().splitlines()]


def same(here, there, what):
    """The same labels in the same order, but for ties, and probabilities that differ by rounding."""
    known = {one["label"]: one["probability"] for one in here}
    assert {one["label"] for one in there} == set(known), (what, here, there)
    worst = max(abs(one["probability"] - known[one["label"]]) for one in there)
    assert worst < 0.02 and here[0]["label"] == there[0]["label"], (what, worst)
    return worst


here, there = rows("here.jsonl"), rows("board.jsonl")
assert len(here) == len(there) == len(list(images.iterdir()))
worst = max(same(one["top"], other["top"], one["image"]) for one, other in zip(here, there))
print(f"predict: the same top 5 of {len(here)} images, probabilities within {worst:.1e}")
worst = 0.0
for path in sorted(out.glob("*.npz")):
    one, other = np.load(path)["map"], np.load(work / "out" / path.name)["map"]
    worst = max(worst, float(np.abs(one - other).max() / max(1.0, np.abs(other).max())))
assert worst < 1e-3 and list(out.glob("*.npz")), worst
print(f"explain: the same maps of {len(list(out.glob('*.npz')))} images within {worst:.1e}")
end = time.monotonic() + 1800
while not (served := rows("served")):
    assert time.monotonic() < end, "tesela serve did not start"
    time.sleep(1)
path = sorted(images.iterdir())[0]
kind = {".png": "image/png", ".webp": "image/webp"}.get(path.suffix.lower(), "image/jpeg")
request = urllib.request.Request(
    served[0]["address"] + "/v1/classify?top=5", data=path.read_bytes(), headers={"Content-Type": kind}
)
with urllib.request.urlopen(request, timeout=400) as answer:
    found = json.load(answer)
name = path.name
wanted = next(one["top"] for one in here if pathlib.Path(one["image"]).name == name)
print(f"serve: the same top 5, probabilities within {same(wanted, found['top'], name):.1e}")
PYTHON
echo OK
