#!/bin/sh
# Print the path of pgbouncer, which tests put between workers and the server. Where Debian's package is not installed it is
# downloaded and unpacked, not installed: no root needed, no service started.
set -eu
cd "$(dirname "$0")/.."

if command -v pgbouncer; then
    exit
fi
if [ -x /usr/sbin/pgbouncer ]; then # not on the path of a plain user
    echo /usr/sbin/pgbouncer
    exit
fi

# As root the pooler runs as another user, who may be unable to enter the checkout.
if [ "$(id -u)" = 0 ]; then
    home=/var/cache/piecework/pgbouncer
else
    home=$PWD/.cache/pgbouncer
fi
if [ -x "$home/bin/pgbouncer" ]; then
    echo "$home/bin/pgbouncer"
    exit
fi

fail() {
    echo "pgbouncer, which the tests need, is not here and $1." >&2
    echo "Install it, then run make again. On Debian, as root: apt-get install pgbouncer" >&2
    exit 1
}
command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "this is not a Debian to fetch it from"

echo "Downloading pgbouncer for the tests" >&2
umask 022
work=$home.new.$$
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/tree"
apt() {
    apt-get -q -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}
apt update >"$work/log" 2>&1 || { cat "$work/log" >&2; fail "the package lists cannot be fetched"; }
# It, and those of its libraries that this machine lacks.
names=$(apt install --simulate --no-install-recommends pgbouncer 2>>"$work/log" |
    sed -n 's/^Inst \([^ ]*\).*/\1/p' | grep -E '^(pgbouncer|lib.*)$' | grep -v -E '^lib(llvm|perl|.*-perl$)') ||
    fail "no package of that name is in the package lists"
# shellcheck disable=SC2086
(cd "$work/debs" && apt download $names) >>"$work/log" 2>&1 || { cat "$work/log" >&2; fail "its download failed"; }
for deb in "$work"/debs/*.deb; do
    dpkg-deb -x "$deb" "$work/tree"
done

# A script that lets it, and nothing else on this machine, find the libraries that came with it.
mkdir "$work/tree/bin"
cat >"$work/tree/bin/pgbouncer" <<END
#!/bin/sh
LD_LIBRARY_PATH=$(cd "$work/tree" && ls -d usr/lib/*-linux-gnu lib/*-linux-gnu 2>/dev/null | sed "s|^|$home/|" | paste -sd:)
export LD_LIBRARY_PATH
exec "$home/usr/sbin/pgbouncer" "\$@"
END
chmod 755 "$work/tree/bin/pgbouncer"
rm -rf "$home"
mv "$work/tree" "$home"
"$home/bin/pgbouncer" --version >&2 || fail "what was unpacked does not start"
echo "$home/bin/pgbouncer"
