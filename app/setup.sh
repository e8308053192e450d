#!/bin/sh
# Makes .venv with pinned versions; a second run that finds nothing changed installs nothing.
# Called by `make setup` in the root of a checkout. TORCH_INDEX_URL adds an index to take torch from.
set -eu

python=$(command -v python3.11 || true)
if [ -z "$python" ] && python3 -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    python=$(command -v python3)
fi
if [ -z "$python" ]; then
    found=$(python3 --version 2>/dev/null || echo "no Python 3")
    echo "error: orbit4d needs Python 3.11 (Blender's wheel is tied to it), found $found; install python3.11" >&2
    exit 2
fi

library() {
    for folder in /lib /usr/lib /usr/local/lib /lib64 /usr/lib64 /lib/*-linux-gnu /usr/lib/*-linux-gnu; do
        [ -e "$folder/$1" ] && return 0
    done
    return 1
}
present() {
    case $1 in
        lib:*) library "${1#lib:}" ;;
        bin:*) command -v "${1#bin:}" >/dev/null ;;
        venv:*) "$python" -c "import ${1#venv:}, venv" 2>/dev/null ;;
    esac
}
missing=
while read -r package probe _; do
    case $package in ''|'#'*) continue ;; esac
    present "$probe" || missing="$missing $package"
done < app/system_packages.txt

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing system packages:$missing"
        # A stale list names packages that the mirror no longer has; refresh once before giving up.
        export DEBIAN_FRONTEND=noninteractive
        apt-get install -qq -y --no-install-recommends $missing >/dev/null 2>&1 || {
            apt-get update -qq
            apt-get install -qq -y --no-install-recommends $missing >/dev/null
        }
    else
        echo "setup: missing system packages; install them with: sudo apt-get install$missing" >&2
        case $missing in *python3.11-venv*) exit 2 ;; esac
    fi
fi

stamp=.venv/.orbit4d-setup
wanted=$(cat constraints.txt pyproject.toml app/setup.sh | cksum)" ${TORCH_INDEX_URL:-}"
[ -e "$stamp" ] && [ "$(cat "$stamp")" = "$wanted" ] && exit 0

if ! .venv/bin/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null; then
    "$python" -m venv --clear .venv
fi
echo "setup: installing pinned versions into .venv (once; a few minutes)"
.venv/bin/python -m pip install --quiet --disable-pip-version-check --use-pep517 --constraint constraints.txt \
    ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} --editable '.[dev]'
printf '%s' "$wanted" > "$stamp"
echo "setup: done; .venv/bin/orbit4d is ready"
