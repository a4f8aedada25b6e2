# For the scripts beside it, which source it: fetches Debian packages without installing them, so that no root is needed
# and no service starts. They set `needed`, the beginning of what is said when that fails, and `advice`, its end.

# Say where an unpacked program is kept. As root the servers run as another user, who may be unable to enter the checkout.
kept_in() {
    if [ "$(id -u)" = 0 ]; then
        echo "/var/cache/piecework/$1"
    else
        echo "$PWD/.cache/$1"
    fi
}

fail() {
    echo "$needed not here and $1." >&2
    echo "$advice" >&2
    exit 1
}

# unpack HOME TITLE PACKAGES TAKEN [LEFT OUT]
# Download packages, and those of what they depend on that this machine lacks, and unpack them into $work/tree. The last two
# are patterns for grep -E: the names that are taken, and which of them are not.
unpack() {
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || fail "this is not a Debian to fetch from"
    echo "Downloading $2 for the tests" >&2
    umask 022
    home=$1
    work=$1.new.$$
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs" "$work/tree/bin"
    apt update >"$work/log" 2>&1 || failed "the package lists cannot be fetched"
    # shellcheck disable=SC2086
    names=$(apt install --simulate --no-install-recommends $3 2>>"$work/log" | sed -n 's/^Inst \([^ ]*\).*/\1/p' |
        grep -E "^($4)$" | grep -v -E "^(${5:-})$") || failed "no packages of those names are in the package lists"
    # shellcheck disable=SC2086
    (cd "$work/debs" && apt download $names) >>"$work/log" 2>&1 || failed "the download failed"
    for deb in "$work"/debs/*.deb; do
        dpkg-deb -x "$deb" "$work/tree"
    done
    libraries=$(cd "$work/tree" && ls -d usr/lib/*-linux-gnu lib/*-linux-gnu 2>/dev/null | sed "s|^|$home/|" | paste -sd:)
}

apt() {
    apt-get -q -o Dir::State::lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User="$(id -un)" "$@"
}

failed() {
    cat "$work/log" >&2
    fail "$1"
}

# wrap NAME COMMAND
# Make a script that runs it so that it, and nothing else on this machine, finds what came with it.
wrap() {
    cat >"$work/tree/bin/$1" <<END
#!/bin/sh
LD_LIBRARY_PATH=$libraries
PYTHONPATH=$home/usr/lib/python3/dist-packages
export LD_LIBRARY_PATH PYTHONPATH
exec $2 "\$@"
END
    chmod 755 "$work/tree/bin/$1"
}

# Put what was unpacked where it is kept.
keep() {
    rm -rf "$home"
    mv "$work/tree" "$home"
    for program; do
        "$home/bin/$program" --version >&2 || {
            rm -rf "$home"
            fail "$program, as it was unpacked, does not start"
        }
    done
}
