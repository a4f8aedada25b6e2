#!/bin/sh
# The trial of the promise "from a fresh clone, on a fresh machine": a minimal Debian that has python3, git and make, and
# in it `make demo` and `make test`, as root and as a plain user, each with an empty home and an empty environment.
# Needs root and debootstrap (installed when missing). KEEP=1 leaves the folder for a look.
set -eu
cd "$(dirname "$0")/.."

if [ "$(id -u)" != 0 ]; then
    echo "tools/fresh-machine.sh makes a root file system: run it as root" >&2
    exit 1
fi
if [ -z "${FRESH_MACHINE:-}" ]; then
    # Mounts and processes of the trial end with it: namespaces of its own.
    FRESH_MACHINE=$(mktemp -d "${TMPDIR:-/tmp}/fresh-machine.XXXXXX")
    export FRESH_MACHINE
    status=0
    unshare --mount --propagation private --pid --fork "$0" || status=$?
    if [ -n "${KEEP:-}" ]; then
        echo "Kept: $FRESH_MACHINE"
    else
        rm -rf --one-file-system "$FRESH_MACHINE"
    fi
    exit $status
fi

root=$FRESH_MACHINE/debian
if ! command -v debootstrap >/dev/null; then
    apt-get update -q >/dev/null
    apt-get install -q -y --no-install-recommends debootstrap >/dev/null
fi
echo "Making a minimal Debian in $root"
debootstrap --variant=minbase --include=python3,git,make bookworm "$root" "${MIRROR:-http://deb.debian.org/debian}" \
    >"$FRESH_MACHINE/debootstrap.log" || { tail -n 20 "$FRESH_MACHINE/debootstrap.log"; exit 1; }

# How this machine reaches the package registries is its own affair: what it has is lent to the trial.
cp -L /etc/resolv.conf "$root/etc/resolv.conf"
for setting in /etc/pip.conf /etc/ssl/certs/ca-certificates.crt /etc/apt/apt.conf.d/*proxy*; do
    [ ! -f "$setting" ] || install -D -m 644 "$setting" "$root$setting"
done
if [ -f /etc/ssl/certs/ca-certificates.crt ]; then # the package ca-certificates, once installed, makes the file above anew
    install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$root/usr/local/share/ca-certificates/this-machine.crt"
fi
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
chroot "$root" useradd --create-home --shell /bin/sh ada
git bundle create -q "$root/srv/piecework.bundle" HEAD "$(git rev-parse --abbrev-ref HEAD)"
chmod 644 "$root/srv/piecework.bundle"

failed=0
report() {
    echo "$1" | tee -a "$FRESH_MACHINE/report"
}
# in_clone USER HOME COMMAND: run it in the user's clone, which the first call makes; the output goes to a file
in_clone() {
    log=$FRESH_MACHINE/$1-$(echo "$3" | tr ' ' '-').log
    chroot --userspec="$1:$1" "$root" /usr/bin/env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        sh -c "cd $2 && { [ -d piecework ] || git clone -q /srv/piecework.bundle piecework; } && cd piecework && $3" \
        >"$log" 2>&1 </dev/null
}
# trial USER HOME COMMAND [PATTERN]: it must succeed, and print a line that matches
trial() {
    start=$(date +%s)
    echo "$1: $3 ..."
    if in_clone "$1" "$2" "$3" && grep -q -E "${4:-.}" "$log" && ! grep -q -E '[0-9]+ skipped' "$log"; then
        verdict=ok
    else
        verdict=FAILED
        failed=1
        tail -n 60 "$log"
    fi
    report "$verdict  $1: $3  $(($(date +%s) - start)) s  $(grep -E '[0-9]+ passed' "$log" | tail -n 1)"
}

# Nobody but root can install what is missing; it has to be named.
if ! in_clone ada /home/ada "make demo" && grep -q "apt-get install -y python3-venv" "$log"; then
    report "ok  ada: make demo, without python3-venv, names it"
else
    report "FAILED  ada: make demo, without python3-venv, does not name it"
    failed=1
    cat "$log"
fi
trial root /root "make demo"
trial root /root "make test" '[0-9]+ passed'
trial ada /home/ada "make demo"
trial ada /home/ada "make test" '[0-9]+ passed'

echo
cat "$FRESH_MACHINE/report"
exit $failed
