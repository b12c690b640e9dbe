"""``tesela doctor``: installed packages, the machine, and which extras add which feature.

Rates are measured, not looked up. Torch is imported only where it is installed, for its version's build and
its rates.
"""

from __future__ import annotations

from typing import Any

from tesela.core.format import byte_size

#: Extra -> what it is for, in the order in which people need them.
PURPOSES = {
    "": "predict from exported models",
    "train": "train, evaluate, explain, predict with torch",
    "demo": "the demonstration on handwritten digits",
    "serve": "HTTP API and page",
    "export": "write ONNX",
    "fast": "decode JPEGs faster",
    "track": "TensorBoard logs",
    "heic": "open HEIC photographs of phones",
    "hub": "models and data sets from a hub",
}
#: Below these something may not fit; bytes.
LOW_DISK, LOW_MEMORY = 5 * 10**9, 2 * 10**9


def doctor(*, json: bool = False) -> None:
    """What is installed, what this machine can do, what to install for what.

    Args:
        json: Print one JSON object.
    """
    from tesela.cli import output

    output.use_json(json)
    facts = examine()
    for part in tables(facts):
        output.say(part)
    for advice in facts["advice"]:
        output.say(f"- {advice}")
    output.result(facts, json)


def examine() -> dict[str, Any]:
    """All facts as plain values."""
    import os
    import platform
    from pathlib import Path

    from tesela.core.files import free_bytes, home
    from tesela.core.version import __version__
    from tesela.hardware import machine

    facts: dict[str, Any] = {
        "tesela": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": machine.processor(),
        "memory": machine.memory(),
        "disk": {"here": free_bytes(Path.cwd()), "caches": free_bytes(home()), "caches_at": str(home())},
        "gpus": machine.accelerators(),
        "compiler": machine.compiler(),
        "threads": {
            name: os.environ[name] for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if name in os.environ
        },
        "extras": extras(),
    }
    facts["torch"] = torch_facts()
    facts["rates"] = rates(with_torch=facts["torch"] is not None)
    facts["advice"] = advice(facts)
    return facts


def extras() -> dict[str, dict[str, Any]]:
    """Purpose, package versions (None if missing) and completeness of each extra."""
    from tesela.hardware import machine

    found: dict[str, dict[str, Any]] = {}
    for extra, packages in machine.requirements().items():
        if extra in PURPOSES:
            versions = {package: machine.version(package) for package in packages}
            found[extra or "base"] = {
                "purpose": PURPOSES[extra],
                "packages": versions,
                "complete": None not in versions.values(),
            }
    return found


def torch_facts() -> dict[str, Any] | None:
    """What torch says of itself; None where it is not installed."""
    from tesela.core.packages import installed

    if not installed("torch"):
        return None
    import torch

    cuda = torch.cuda.is_available()
    return {
        "version": torch.__version__,
        "threads": torch.get_num_threads(),
        "cuda": torch.version.cuda if cuda else None,
        "gpus": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
        if cuda
        else [],
        "mps": torch.backends.mps.is_available(),
    }


def rates(*, with_torch: bool) -> dict[str, float]:
    """Measured rates of a large matrix product, operations per second."""
    from tesela.hardware.speed import matrix_rate

    if not with_torch:
        return {"fp32": matrix_rate(engine="numpy")}
    return {precision: matrix_rate(precision) for precision in ("fp32", "bf16")}


def advice(facts: dict[str, Any]) -> list[str]:
    """What this person may want to do."""
    found = []
    if not facts["extras"]:
        found.append("tesela is not installed as a package, so its extras are unknown: pip install -e .")
    for name, extra in facts["extras"].items():
        if not extra["complete"]:
            missing = ", ".join(package for package, version in extra["packages"].items() if version is None)
            command = "tesela" if name == "base" else f"tesela[{name}]"
            found.append(f'to {extra["purpose"]}: pip install "{command}"  (missing: {missing})')
    if facts["torch"] and facts["gpus"] and not facts["torch"]["cuda"]:
        found.append(
            "there is a GPU and this torch cannot use it: install torch for CUDA, see https://pytorch.org/get-started/locally/"
        )
    slow = facts["rates"].get("bf16", 0.0) > 1.5 * facts["rates"]["fp32"]
    if slow:
        found.append(
            f"bf16 is {facts['rates']['bf16'] / facts['rates']['fp32']:.1f} times as fast as fp32 here: "
            "--precision auto will use it"
        )
    if 0 <= facts["disk"]["here"] < LOW_DISK:
        found.append("there is little space on the disk: runs of large models need several GB")
    if (facts["memory"]["available"] or LOW_MEMORY) < LOW_MEMORY:
        found.append("there is little memory available: choose a small model or batch")
    if facts["compiler"] is None:
        found.append("there is no C++ compiler; only compiled models will need one")
    return found


def tables(facts: dict[str, Any]) -> list[Any]:
    """The machine and the packages as tables."""
    from rich.table import Table

    machine = Table("machine", "", show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in machine_rows(facts):
        machine.add_row(name, value)
    packages = Table("extra", "for", "packages", box=None, padding=(0, 2, 0, 0))
    for name, extra in facts["extras"].items():
        versions = ", ".join(
            f"{package} {version or 'missing'}" for package, version in extra["packages"].items()
        )
        packages.add_row(name, extra["purpose"], versions, style=None if extra["complete"] else "yellow")
    return [machine, "", packages, ""]


def machine_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and text of each fact about the machine."""
    processor, torch, memory, disk = facts["processor"], facts["torch"], facts["memory"], facts["disk"]
    torch_text = f"{torch['version']}, {torch['threads']} threads" if torch else "not installed"
    gpus = [f"{gpu['name']} ({byte_size(gpu['memory'])}, driver {gpu['driver']})" for gpu in facts["gpus"]]
    return [
        ("tesela", f"{facts['tesela']} on Python {facts['python']}, {facts['system']}"),
        ("processor", f"{processor['name']}, {processor['cores']} cores"),
        ("features", ", ".join(processor["features"]) or "unknown"),
        (
            "matrix product",
            ", ".join(f"{name} {rate / 1e12:.2f} TFLOP/s" for name, rate in facts["rates"].items()),
        ),
        ("memory", f"{byte_size(memory['available'])} available of {byte_size(memory['total'])}"),
        (
            "disk",
            f"{byte_size(disk['here'])} free here, {byte_size(disk['caches'])} free for caches in "
            f"{disk['caches_at']}",
        ),
        ("GPU", "; ".join(gpus) or "none"),
        ("torch", torch_text),
        ("compiler", facts["compiler"] or "none"),
        ("threads set", ", ".join(f"{name}={value}" for name, value in facts["threads"].items()) or "no"),
    ]
