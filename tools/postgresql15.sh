#!/bin/sh
# Print the folder with the programs of PostgreSQL 15, the oldest version that piecework supports. Where Debian's
# package is not installed it is downloaded and unpacked, not installed: no root needed, no service started.
set -eu
cd "$(dirname "$0")/.."

installed=/usr/lib/postgresql/15/bin
if [ -x $installed/postgres ]; then
    echo $installed
    exit
fi

# As root the server runs as another user, who may be unable to enter the checkout.
if [ "$(id -u)" = 0 ]; then
    home=/var/cache/piecework/postgresql-15
else
    home=$PWD/.cache/postgresql-15
fi
if [ -x "$home/bin/postgres" ] && { [ -x "$home/bin/psql" ] || command -v psql >/dev/null; }; then
    echo "$home/bin"
    exit
fi

fail() {
    echo "PostgreSQL 15, which the tests need beside the embedded 18, is not here and $1." >&2
    echo "Install it, then run make again. On Debian 12, as root: apt-get install postgresql-15" >&2
    exit 1
}
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "this is not a Debian to fetch it from"

echo "Downloading PostgreSQL 15 for the tests" >&2
umask 022
work=$home.new.$$
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/tree"
apt() {
    apt-get -q -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}
apt update >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "the package lists cannot be fetched"; }
# The server, psql and those of their libraries that this machine lacks; without LLVM (it compiles slow queries) and Perl.
names=$(apt install --simulate --no-install-recommends postgresql-15 2>>"$work/log" |
    sed -n 's/^Inst \([^ ]*\).*/\1/p' | grep -E '^(postgresql-(client-)?15|lib.*)$' | grep -v -E '^lib(llvm|perl|.*-perl$)') ||
    fail "no package of that name is in the package lists"
# shellcheck disable=SC2086
(cd "$work/debs" && apt download $names) >>"$work/log" 2>&1 || { cat "$work/log" >&2; fail "its download failed"; }
for deb in "$work"/debs/*.deb; do
    dpkg-deb -x "$deb" "$work/tree"
done

# Scripts that let the server, and nothing else on this machine, find the libraries that came with it.
mkdir "$work/tree/bin"
for program in "$work"/tree/usr/lib/postgresql/15/bin/*; do
    name=$(basename "$program")
    cat >"$work/tree/bin/$name" <<END
#!/bin/sh
LD_LIBRARY_PATH=$(cd "$work/tree" && ls -d usr/lib/*-linux-gnu lib/*-linux-gnu 2>/dev/null | sed "s|^|$home/|" | paste -sd:)
export LD_LIBRARY_PATH
exec "$home/usr/lib/postgresql/15/bin/$name" "\$@"
END
done
chmod 755 "$work"/tree/bin/*
rm -rf "$home"
mv "$work/tree" "$home"
"$home/bin/postgres" --version >&2 || fail "the server that was unpacked does not start"
echo "$home/bin"
