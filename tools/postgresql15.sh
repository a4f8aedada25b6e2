#!/bin/sh
# Print the folder with the programs of PostgreSQL 15, the oldest version that piecework supports. Where Debian's
# package is not installed it is downloaded and unpacked, not installed: no root needed, no service started.
set -eu
cd "$(dirname "$0")/.."
. tools/debian.sh

installed=/usr/lib/postgresql/15/bin
if [ -x $installed/postgres ]; then
    echo $installed
    exit
fi
home=$(kept_in postgresql-15)
if [ ! -x "$home/bin/postgres" ] || { [ ! -x "$home/bin/psql" ] && ! command -v psql >/dev/null; }; then
    needed="PostgreSQL 15, which the tests need beside the embedded 18, is"
    advice="Install it, then run make again. On Debian 12, as root: apt-get install postgresql-15"
    # Without LLVM, which compiles slow queries, and Perl.
    unpack "$home" "PostgreSQL 15" postgresql-15 'postgresql-(client-)?15|lib.*' 'lib(llvm|perl).*|lib.*-perl'
    for program in "$work"/tree/usr/lib/postgresql/15/bin/*; do
        name=$(basename "$program")
        wrap "$name" "\"$home/usr/lib/postgresql/15/bin/$name\""
    done
    keep postgres
fi
echo "$home/bin"
