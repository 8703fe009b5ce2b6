"""The machine that figures are of, with its load and the versions of what ran."""

import os
import platform
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from optsde.study.provenance import present, version

PACKAGES = ("jax", "jaxlib", "torch", "hessian-eigenthings", "curvlinops-for-pytorch")
SAME = ("processor", "cores", "devices")  # of machines whose times can be compared


def stamp() -> dict[str, Any]:
    """Returns the machine, its load, the versions, the revision and the date of now."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "devices": [device.device_kind for device in jax.devices()],
        "memory": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9),
        "load": round(os.getloadavg()[0], 1),
        "versions": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "revision": present()["revision"],
        "date": time.strftime("%Y-%m-%d"),
    }


def words(stamp: Mapping[str, Any], load: bool = True) -> str:
    """Returns a stamp in a line, with or without the machine's load."""
    versions = ", ".join(
        f"{name} {x}" for name, x in stamp["versions"].items() if x != "not installed"
    )
    kinds = dict.fromkeys(kind for kind in stamp["devices"] if kind != "cpu")
    cards = [f"{stamp['devices'].count(kind)} × {kind}" for kind in kinds]
    cores = f"{stamp['cores']} core{'s' if stamp['cores'] > 1 else ''}"
    machine = [f"{cores} of {stamp['processor']}", f"{stamp['memory']} GB", *cards]
    if load:
        machine.append(f"load {stamp['load']}")
    return (
        f"{', '.join(machine)}; Python {stamp['python']}, {versions}; "
        f"{stamp['revision']}, {stamp['date']}"
    )


def _processor() -> str:
    """Returns the processor's name, as Linux has it."""
    file = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", file.read_text() if file.exists() else "")
    return found[1].strip() if found else platform.processor() or platform.machine()
