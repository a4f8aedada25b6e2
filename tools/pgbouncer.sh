#!/bin/sh
# Print the path of pgbouncer, which tests put between workers and the server. Where Debian's package is not installed it is
# downloaded and unpacked, not installed: no root needed, no service started.
set -eu
cd "$(dirname "$0")/.."
. tools/debian.sh

if command -v pgbouncer; then
    exit
fi
if [ -x /usr/sbin/pgbouncer ]; then # not on the path of a plain user
    echo /usr/sbin/pgbouncer
    exit
fi
home=$(kept_in pgbouncer)
if [ ! -x "$home/bin/pgbouncer" ]; then
    needed="pgbouncer, which the tests need, is"
    advice="Install it, then run make again. On Debian, as root: apt-get install pgbouncer"
    unpack "$home" pgbouncer pgbouncer 'pgbouncer|lib.*' 'lib(llvm|perl).*|lib.*-perl'
    wrap pgbouncer "\"$home/usr/sbin/pgbouncer\""
    keep pgbouncer
fi
echo "$home/bin/pgbouncer"
