#!/bin/sh
# Print the folder with the programs etcd, patroni and patronictl, which `make failover` needs. Where Debian's packages are
# not installed they are downloaded and unpacked, not installed: no root needed, no service started.
set -eu
cd "$(dirname "$0")/.."

if command -v etcd >/dev/null && command -v patroni >/dev/null && command -v patronictl >/dev/null; then
    dirname "$(command -v patroni)"
    exit
fi

# As root the servers run as another user, who may be unable to enter the checkout.
if [ "$(id -u)" = 0 ]; then
    home=/var/cache/piecework/patroni
else
    home=$PWD/.cache/patroni
fi
if [ -x "$home/bin/patroni" ]; then
    echo "$home/bin"
    exit
fi

packages="patroni python3-etcd python3-dnspython etcd-server"
fail() {
    echo "Patroni and etcd, which make failover needs, are not here and $1." >&2
    echo "Install them, then run make again. On Debian 12, as root: apt-get install --no-install-recommends $packages" >&2
    echo "(and have their services stopped: systemctl disable --now patroni etcd)" >&2
    exit 1
}
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "this is not a Debian to fetch them from"
[ -x /usr/bin/python3 ] || fail "Debian's python3, which runs Patroni, is missing"

echo "Downloading Patroni and etcd for the tests" >&2
umask 022
work=$home.new.$$
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/tree"
apt() {
    apt-get -q -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}
apt update >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "the package lists cannot be fetched"; }
# They, and those of their modules and libraries that this machine lacks.
# shellcheck disable=SC2086
names=$(apt install --simulate --no-install-recommends $packages 2>>"$work/log" |
    sed -n 's/^Inst \([^ ]*\).*/\1/p' | grep -E '^(patroni|etcd-server|python3-.*|lib.*)$' | grep -v -E '^libpython') ||
    { cat "$work/log" >&2; fail "no packages of those names are in the package lists"; }
# shellcheck disable=SC2086
(cd "$work/debs" && apt download $names) >>"$work/log" 2>&1 || { cat "$work/log" >&2; fail "their download failed"; }
for deb in "$work"/debs/*.deb; do
    dpkg-deb -x "$deb" "$work/tree"
done

# Scripts that let them, and nothing else on this machine, find the modules and libraries that came with them.
mkdir "$work/tree/bin"
libraries=$(cd "$work/tree" && ls -d usr/lib/*-linux-gnu lib/*-linux-gnu 2>/dev/null | sed "s|^|$home/|" | paste -sd:)
for program in etcd patroni patronictl; do
    run="\"$home/usr/bin/$program\""
    [ "$program" = etcd ] || run="/usr/bin/python3 $run"
    cat >"$work/tree/bin/$program" <<END
#!/bin/sh
LD_LIBRARY_PATH=$libraries
PYTHONPATH=$home/usr/lib/python3/dist-packages
export LD_LIBRARY_PATH PYTHONPATH
exec $run "\$@"
END
done
chmod 755 "$work"/tree/bin/*
rm -rf "$home"
mv "$work/tree" "$home"
for program in etcd patroni; do
    "$home/bin/$program" --version >&2 || fail "$program, as it was unpacked, does not start"
done
echo "$home/bin"
