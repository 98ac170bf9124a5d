#!/bin/sh
# Makes a Debian package of this clone, for this architecture and this version of Python:
#
#     sh examples/debian/build.sh
#
# It has a command "reverseproxy" and its dependencies in /opt/reverseproxy, apart from all other
# Python packages, the units of examples/systemd, and nothing that runs by itself. It takes
# python3-pip and dpkg-deb, and an index of packages, once.
set -eu
clone=$(CDPATH= cd -- "$(dirname -- "$0")/../.." && pwd)
python=${PYTHON:-python3}
version=$("$python" -c 'import re, sys; print(re.search(r"__version__ = \"(.+)\"", open(sys.argv[1]).read())[1])' \
    "$clone/reverseproxy/__init__.py")
minor=$("$python" -c 'import sys; print(sys.version_info.minor)')
architecture=$(dpkg --print-architecture)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT

mkdir -p "$stage/DEBIAN" "$stage/opt" "$stage/usr/bin" "$stage/usr/lib/systemd/system" \
    "$stage/usr/share/doc/reverseproxy"
# A copy, as a build leaves files in what it builds.
cp -r "$clone" "$stage.source"
trap 'rm -rf "$stage" "$stage.source"' EXIT
"$python" -m pip install --quiet --disable-pip-version-check --no-compile \
    --target "$stage/opt/reverseproxy" "$stage.source"
rm -rf "$stage/opt/reverseproxy/bin"

# Where the units look for them, too.
mkdir "$stage/opt/reverseproxy/bin"
launcher() {
    cat >"$stage/opt/reverseproxy/bin/$1" <<COMMAND
#!/bin/sh
PYTHONPATH=/opt/reverseproxy exec python3 $2 "\$@"
COMMAND
    chmod 755 "$stage/opt/reverseproxy/bin/$1"
}
launcher reverseproxy '-m reverseproxy'
launcher twistd "-c 'from twisted.scripts.twistd import run; run()'"
ln -s /opt/reverseproxy/bin/reverseproxy "$stage/usr/bin/reverseproxy"
cp "$clone/LICENSE" "$stage/usr/share/doc/reverseproxy/copyright"
cp "$clone"/examples/systemd/*.service "$clone"/examples/systemd/*.socket "$stage/usr/lib/systemd/system/"
mkdir -p "$stage/usr/lib/sysusers.d"
cp "$clone/examples/systemd/sysusers.conf" "$stage/usr/lib/sysusers.d/reverseproxy.conf"

cat >"$stage/DEBIAN/control" <<CONTROL
Package: reverseproxy
Version: $version
Architecture: $architecture
Maintainer: the reverseproxy contributors <root@localhost>
Depends: python3 (>= 3.$minor), python3 (<< 3.$((minor + 1)))
Section: net
Priority: optional
Description: MOSN-compatible reverse tunnels, HTTP and TCP proxying on Twisted
 An agent beside a service dials out to a tunnel server, which sends clients' requests
 back through the connection.
CONTROL
chmod -R go-w "$stage"
chmod 755 "$stage"
dpkg-deb --root-owner-group --build "$stage" "reverseproxy_${version}_$architecture.deb"
