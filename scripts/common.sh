# Sourced by the other scripts: how they talk, become root and install what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '==> %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        command -v sudo >/dev/null || die "need root or sudo for: $*"
        sudo "$@"
    fi
}

# Whatever apt prints goes to stderr: the stdout of these scripts is their answer.
apt_update() {
    say "apt-get update"
    as_root apt-get -qq update >&2
}

install_packages() {
    [ $# -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "please install what Debian calls: $*"
    apt_update
    say "installing $*"
    as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -qq -y --no-install-recommends install "$@" >&2
}

# Unpacks Debian packages into a directory, which is cleared: an installed server would start.
# Libraries that they need are installed where they are missing; named to apt, those that are there
# would be upgraded.
unpack_packages() {
    local debs=$1.debs deb library missing=()
    apt-get -qq --print-uris download "${@:2}" >/dev/null 2>&1 || apt_update
    fresh_dir "$1"
    fresh_dir "$debs"
    say "unpacking Debian's ${*:2} into $1"
    (cd "$debs" && apt-get -qq -o APT::Sandbox::User=root download "${@:2}" >&2)
    for deb in "$debs"/*.deb; do dpkg -x "$deb" "$1"; done
    # Compilers and what they need are of no use here.
    for library in $(for deb in "$debs"/*.deb; do dpkg-deb -f "$deb" Depends; done |
        tr ',' '\n' | sed -nE '/llvm|clang|-dev/d; s/^ *(lib[^ ]+).*/\1/p' | sort -u); do
        dpkg-query -W "$library" >/dev/null 2>&1 || missing+=("$library")
    done
    install_packages "${missing[@]}"
    rm -rf "$debs"
}

# Clears one directory below target/, and nothing else.
fresh_dir() {
    case $1 in
    "$PWD"/target/?* | target/?*) ;;
    *) die "refusing to clear $1" ;;
    esac
    rm -rf "$1"
    mkdir -p "$1"
}

# The cargo feature for the Postgres of a pg_config, and the environment to build with it.
#
# Headers come from PGRX_PG_CONFIG_PATH. Without the workaround switched off, cargo-pgrx changes
# RUSTFLAGS, and each switch between it and plain cargo would compile everything anew. The
# empty config.toml stands for `cargo pgrx init`: without the file cargo sees a change each time.
build_for() {
    feature=pg$("$1" --version | sed -E 's/^PostgreSQL ([0-9]+).*/\1/')
    export PGRX_PG_CONFIG_PATH=$1 CARGO_PGRX_DISABLE_GC_SECTIONS_WORKAROUND=1
    export PGRX_HOME=$PWD/target/pgrx PATH=$PWD/target/tools/bin:$PATH
    mkdir -p "$PGRX_HOME"
    [ -f "$PGRX_HOME/config.toml" ] || echo '[configs]' >"$PGRX_HOME/config.toml"
}
