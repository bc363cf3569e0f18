"""Two hosts, as two network namespaces of this machine joined by a virtual cable; needs root on Linux."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from distributed_world import run_world

ADDRESSES = ("10.203.0.1", "10.203.0.2")


def run(command: str) -> None:
    subprocess.run(command.split(), check=True, capture_output=True, text=True)


@pytest.fixture
def hosts() -> Iterator[list[str]]:
    """The names of two namespaces that reach each other."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("needs root and the command ip")
    names = [f"siamese-{os.getpid()}-{side}" for side in "ab"]
    try:
        try:
            for name in names:
                run(f"ip netns add {name}")
            run(f"ip -n {names[0]} link add cable type veth peer name cable netns {names[1]}")
            for name, address in zip(names, ADDRESSES, strict=True):
                run(f"ip -n {name} addr add {address}/24 dev cable")
                run(f"ip -n {name} link set cable up")
                run(f"ip -n {name} link set lo up")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True)


@pytest.mark.slow
@pytest.mark.parametrize("module", ["losses", "pair_losses", "support", "training"])
def test_two_hosts(module: str, hosts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "cable")
    launchers = [["ip", "netns", "exec", name] for name in hosts]
    found = run_world(module, 2, tmp_path, store=f"tcp://{ADDRESSES[0]}:29577", launchers=launchers)
    assert found and not any(found.values()), "\n".join(f"{k}: {v}" for k, v in found.items() if v)
