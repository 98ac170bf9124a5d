"""What gets installed: the wheel and the source distribution, not the checkout."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent

PLUGIN = "twisted/plugins/reverseproxy_plugin.py"
ENDPOINTS = "twisted/plugins/reverseproxy_endpoints.py"

# where an interpreter finds the plugin, asked from a directory that is not the checkout
WHERE = """
import json, reverseproxy
from twisted.application.service import IServiceMaker
from twisted.plugin import getPlugins
import twisted.plugins.reverseproxy_plugin as plugin
makers = [maker.module for maker in getPlugins(IServiceMaker) if maker.tapname == "reverseproxy"]
print(json.dumps([plugin.__file__, reverseproxy.__file__, makers]))
"""


def run(*args: str | Path, cwd: Path) -> str:
    """Run a command outside the checkout's environment; its output."""
    environ = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [str(arg) for arg in args],
        cwd=cwd,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise AssertionError(f"{args} ended with status {done.returncode}:\n{done.stdout}")
    return done.stdout


def sources() -> list[Path]:
    """The files of the project, relative to its root, without what tools left there."""
    if (ROOT / ".git").exists():
        listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
        return [Path(name) for name in listed.split("\0") if name and (ROOT / name).is_file()]
    return [
        path.relative_to(ROOT)
        for path in ROOT.rglob("*")
        if path.is_file() and not {"__pycache__", "_trial_temp", ".venv"} & set(path.relative_to(ROOT).parts)
    ]


class DistributionTests(SynchronousTestCase):
    """One long test, because each step needs what the last one made."""

    def test_build_install_and_use(self) -> None:
        top = Path(self.mktemp()).resolve()
        source, dist = top / "source", top / "dist"
        for name in sources():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name)

        # the wheel is built from the source distribution, so this tries both
        run(sys.executable, "-m", "build", "--outdir", dist, source, cwd=top)
        (sdist,) = dist.glob("*.tar.gz")
        (wheel,) = dist.glob("*.whl")
        self.check_wheel(wheel, source)
        self.check_sdist(sdist)

        environment = top / "environment"
        run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=top)
        python = environment / "bin" / "python"
        pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
        # No compiler is needed: all has wheels, but for one that is a single file of Python.
        run(*pip, "install", "--quiet", "--only-binary=:all:", "--no-binary=sdnotify", wheel, cwd=top)
        run(*pip, "check", cwd=top)
        self.check_installed(top, environment)

    def check_wheel(self, wheel: Path, source: Path) -> None:
        """Everything of the package, the plugin, and nothing that would hide Twisted."""
        with zipfile.ZipFile(wheel) as archive:
            names = {name for name in archive.namelist() if ".dist-info/" not in name}
        package = {
            str(path.relative_to(source))
            for path in (source / "reverseproxy").rglob("*")
            if path.suffix in (".py", ".json", ".typed", ".html", ".css", ".js") and path.is_file()
        }
        self.assertEqual(names, package | {PLUGIN, ENDPOINTS})

    def check_sdist(self, sdist: Path) -> None:
        """What a packager needs beside the package."""
        with tarfile.open(sdist) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        for name in (
            PLUGIN,
            ENDPOINTS,
            "setup.cfg",
            "pyproject.toml",
            "README.md",
            "CHANGELOG.md",
            "LICENSE",
            ".ci/run",
            ".importlinter",
            "docs/index.rst",
            "docs/conf.py",
            "examples/plain/server.json",
            "examples/make_certs.py",
            "tests/test_packaging.py",
        ):
            self.assertIn(name, names)
        self.assertEqual([name for name in names if name.endswith((".pyc", ".pem", ".key"))], [])

    def check_installed(self, top: Path, environment: Path) -> None:
        """The plugin is found where pip put it, and works."""
        python, twistd = environment / "bin" / "python", environment / "bin" / "twistd"
        plugin, package, makers = json.loads(run(python, "-c", WHERE, cwd=top))
        (site,) = environment.glob("lib/python*/site-packages")
        self.assertEqual(Path(plugin), site / PLUGIN)
        self.assertEqual(Path(package), site / "reverseproxy" / "__init__.py")
        self.assertEqual(makers, ["reverseproxy.tap"])
        self.assertRegex(run(twistd, "--help", cwd=top), r"(?m)^ +reverseproxy +\S")
        self.assertIn("--config", run(twistd, "reverseproxy", "--help", cwd=top))
        example = ROOT / "examples" / "plain" / "server.json"
        run(twistd, "reverseproxy", "--check", "--config", example, cwd=top)
        command = environment / "bin" / "reverseproxy"
        self.assertIn("reverseproxy", run(command, "--version", cwd=top))
        self.assertIn("Try it out", run(python, "-m", "reverseproxy", "--help", cwd=top))
        self.assertIn("clientCluster", run(command, "check", "--strict", example, cwd=top))
        code = (
            "from twisted.internet import endpoints, reactor;"
            "print(endpoints.serverFromString(reactor, 'tunnel:127.0.0.1:1:cluster=c').address)"
        )
        self.assertIn("cluster c at 127.0.0.1:1", run(python, "-c", code, cwd=top))
        run(python, "-c", "from reverseproxy import Proxy", cwd=top)
        run(python, "-c", "import treq, service_identity, OpenSSL, zope.interface", cwd=top)


class MetadataTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.setup = configparser.ConfigParser()
        self.setup.read(ROOT / "setup.cfg")
        self.readme = (ROOT / "README.md").read_text()

    def test_readme_has_one_test_command(self) -> None:
        """C{.ci/run} takes the command from there."""
        commands = [line for line in self.readme.splitlines() if "pip install '.[test]'" in line]
        self.assertEqual(len(commands), 1)
        self.assertEqual(commands[0], commands[0].strip())

    def test_no_package_of_ours_hides_twisted(self) -> None:
        self.assertEqual(sorted(map(str, (ROOT / "twisted").rglob("__init__.py"))), [])

    def test_changelog_knows_this_version(self) -> None:
        version = re.search(
            r'^__version__ = "(.+)"$', (ROOT / "reverseproxy" / "__init__.py").read_text(), re.MULTILINE
        )
        assert version is not None
        self.assertIn(f"## {version.group(1)}", (ROOT / "CHANGELOG.md").read_text())

    def test_imported_packages_are_required(self) -> None:
        """Each distribution that the package imports is named, not only come with another one."""
        # What an extra brings is imported by what takes that extra alone.
        extras = self.setup["options.extras_require"]
        optional = "\n".join(value for name, value in extras.items() if name != "test")
        required = {
            re.split(r"[\[<>=]", line)[0].lower()
            for line in f"{self.setup['options']['install_requires']}\n{optional}".splitlines()
        }
        imported = set()
        for path in (ROOT / "reverseproxy").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    imported.add(node.module.partition(".")[0])
        self.assertIn("twisted", imported)
        names = {
            "OpenSSL": "pyopenssl",
            "automat": "automat",
            "click": "click",
            "constantly": "constantly",
            "cryptography": "cryptography",
            "hpack": "hpack",
            "httptools": "httptools",
            "idna": "idna",
            "opentelemetry": "opentelemetry-sdk",
            "prometheus_client": "prometheus-client",
            "pydantic": "pydantic",
            "re2": "google-re2",
            "sdnotify": "sdnotify",
            "service_identity": "service-identity",
            "sortedcontainers": "sortedcontainers",
            "treq": "treq",
            "twisted": "twisted",
            "yaml": "pyyaml",
            "zope": "zope.interface",
        }
        foreign = imported - set(sys.stdlib_module_names) - {"reverseproxy"}
        self.assertEqual({module for module in foreign if names.get(module) not in required}, set())

    def constraints(self, *extras: str, setup: str | None = None) -> list[str]:
        script = ROOT / ".ci" / "lowest.py"
        if setup is not None:
            copy = Path(self.mktemp()).resolve() / ".ci" / "lowest.py"
            copy.parent.mkdir(parents=True)
            shutil.copy(script, copy)
            script = copy
            (copy.parent.parent / "setup.cfg").write_text(setup)
        return run(sys.executable, script, *extras, cwd=ROOT).splitlines()

    def test_everything_has_a_lowest_version(self) -> None:
        extras = sorted(self.setup["options.extras_require"])
        lines = self.constraints(*extras)
        texts = [self.setup["options"]["install_requires"], *self.setup["options.extras_require"].values()]
        wanted = [line for line in "\n".join(texts).splitlines() if line and not line.startswith("#")]
        self.assertEqual(len(lines), len(wanted))
        self.assertIn("pyOpenSSL==25.2", lines)
        for line in lines:
            self.assertRegex(line, r"^[\w.-]+==\d[\d.]*$")
        # The same in each place.
        self.assertEqual(len(set(lines)), len({line.partition("==")[0].lower() for line in lines}))

    def test_what_has_no_lowest_version(self) -> None:
        text = "[options]\ninstall_requires =\n    good>=1\n    bad\n    worse<3\n    exact==2\n"
        error = self.assertRaises(AssertionError, self.constraints, setup=text)
        for name in ("bad", "worse", "exact"):
            self.assertIn(f"as in {name}>=1.2", str(error))
        self.assertNotIn("good", str(error))

    def test_nothing_names_an_index_or_a_machine(self) -> None:
        """The project can be built anywhere."""
        hosts = re.compile(r"https?://[^\s/]*(?:pypi|pythonhosted|index-url)|--index-url|/root/|/home/[a-z]")
        for name in sources():
            if name.suffix in (".py", ".cfg", ".toml", ".md", ".rst", ".in", ".json", ".yaml", ".sh", ""):
                text = (ROOT / name).read_text(errors="replace")
                if name != Path("tests/test_packaging.py"):
                    self.assertIsNone(hosts.search(text), name)
