#!/bin/sh
# Print the folder with the programs etcd, patroni and patronictl, which `make failover` needs. Where Debian's packages are
# not installed they are downloaded and unpacked, not installed: no root needed, no service started.
set -eu
cd "$(dirname "$0")/.."
. tools/debian.sh

if command -v etcd >/dev/null && command -v patroni >/dev/null && command -v patronictl >/dev/null; then
    dirname "$(command -v patroni)"
    exit
fi
home=$(kept_in patroni)
if [ ! -x "$home/bin/patroni" ]; then
    packages="patroni python3-etcd python3-dnspython etcd-server"
    needed="Patroni and etcd, which make failover needs, are"
    advice="Install them, then run make again. On Debian 12, as root: apt-get install --no-install-recommends $packages
(and have their services stopped: systemctl disable --now patroni etcd)"
    [ -x /usr/bin/python3 ] || fail "Debian's python3, which runs Patroni, is missing"
    unpack "$home" "Patroni and etcd" "$packages" 'patroni|etcd-server|python3-.*|lib.*' 'libpython.*'
    wrap etcd "\"$home/usr/bin/etcd\""
    for program in patroni patronictl; do
        wrap $program "/usr/bin/python3 \"$home/usr/bin/$program\""
    done
    keep etcd patroni
fi
echo "$home/bin"
