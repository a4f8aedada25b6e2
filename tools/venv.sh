#!/bin/sh
# Make .venv, or bring it up to date, with piecework installed editable and what TARGET needs.
#   tools/venv.sh quickstart    the package with its quickstart extra: enough for the demo
#   tools/venv.sh dev           and the dependency group "dev": tests and checks
set -eu
cd "$(dirname "$0")/.."

if ! python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "piecework needs Python 3.11 or newer as python3; found: $(python3 --version 2>&1)" >&2
    exit 1
fi

if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    # Debian ships these two modules apart from python3.
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing python3-venv, which python3 lacks here"
        apt-get update -q >/dev/null
        DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends python3-venv >/dev/null
    else
        echo "python3 cannot make virtual environments here: its modules venv and ensurepip are missing." >&2
        echo "Install them, then run make again. On Debian and Ubuntu, as root:" >&2
        echo "    apt-get update && apt-get install -y python3-venv" >&2
        exit 1
    fi
fi

# The .venv of a checkout that was moved or copied, or whose Python was removed, does not run: make it anew.
if ! .venv/bin/python -c 'import pip' 2>/dev/null || ! head -n 1 .venv/bin/pip | grep -q -F "#!$PWD/.venv/"; then
    rm -rf .venv
    python3 -m venv .venv
fi

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1 PIP_ROOT_USER_ACTION=ignore
if ! .venv/bin/python -c 'import pip, sys; sys.exit(int(pip.__version__.split(".")[0]) < 25)'; then
    .venv/bin/python -m pip install -q --upgrade 'pip>=25.1'   # the first that knows dependency groups
fi
case "${1:-}" in
quickstart) .venv/bin/python -m pip install -q --editable '.[quickstart]' ;;
dev) .venv/bin/python -m pip install -q --editable '.[quickstart]' --group dev ;;
*) echo "usage: tools/venv.sh quickstart|dev" >&2; exit 2 ;;
esac
touch ".venv/$1.stamp"
[ "$1" != dev ] || touch .venv/quickstart.stamp
