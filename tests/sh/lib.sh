# Functions shared by the test scripts.  Source it after setting `root`:
#
#     root=$(cd "$(dirname "$0")/../.." && pwd)
#     . "$root/tests/sh/lib.sh"
#
# Knobs, all optional:
#     CRATE_DIR       the package under test           ($root)
#     CRATE_NAME      its library name                 (subquad)
#     EXTRA_FEATURES  added to every cross build, comma separated
#     NO_INSTALL=1    never call apt-get

: "${CRATE_DIR:=$root}"
: "${CRATE_NAME:=subquad}"
: "${EXTRA_FEATURES:=}"
: "${NO_INSTALL:=}"

CRATE_DIR=$(cd "$CRATE_DIR" && pwd)
cross_target_dir=$CRATE_DIR/target/cross

say() {
    printf '%s: %s\n' "${0##*/}" "$*"
}

die() {
    printf '%s: FAILED: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# --- Debian packages ---------------------------------------------------------
# need_* only collect; need_install acts once on the whole list.

missing_packages=

need_missing() {
    case " $missing_packages " in
    *" $1 "*) ;;
    *) missing_packages="$missing_packages $1" ;;
    esac
}

# need_cmd COMMAND PACKAGE: a command, given by name or by path.
need_cmd() {
    command -v "$1" >/dev/null 2>&1 || need_missing "$2"
}

# need_pkg PACKAGE...: packages known by no command of their own.
need_pkg() {
    for pkg in "$@"; do
        case $(dpkg-query -W -f '${Status}' "$pkg" 2>/dev/null || :) in
        "install ok installed") ;;
        *) need_missing "$pkg" ;;
        esac
    done
}

need_install() {
    [ -n "$missing_packages" ] || return 0
    if [ "$(id -u)" -ne 0 ] || [ -n "$NO_INSTALL" ] || ! command -v apt-get >/dev/null 2>&1; then
        die "missing packages:$missing_packages (Debian names)"
    fi
    say "installing$missing_packages"
    apt-get update -qq >/dev/null || say "apt-get update failed, going on with the old lists"
    # shellcheck disable=SC2086 # a list on purpose
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
        $missing_packages >/dev/null || die "could not install$missing_packages"
    missing_packages=
}

# What cross_cargo and build_lib need.
need_cross_rust() {
    need_cmd /usr/bin/cargo cargo-web
    need_cmd /usr/bin/rustc rustc-web
    need_pkg rust-web-src
}

# --- Building the crate ------------------------------------------------------

# Debian's Rust carries the source of core, so -Zbuild-std reaches every target
# without a download.  The full paths matter: another toolchain may come first
# in PATH.  The caller's own flags stay out: they are meant for the host.
cross_cargo() {
    (
        unset CARGO_ENCODED_RUSTFLAGS CARGO_BUILD_TARGET CARGO_BUILD_RUSTFLAGS \
            RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER CARGO_TARGET_DIR
        export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc RUSTDOC=/usr/bin/rustdoc
        export RUSTFLAGS="${cross_rustflags:-}"
        cd "$CRATE_DIR" || exit 1
        exec nice /usr/bin/cargo "$@"
    )
}

# opt_level LEVEL: the cargo arguments for a release build at that level.
# Every distinct (target, RUSTFLAGS, opt-level) compiles core once more, about
# 25 s of CPU, and is cached afterwards: keep the pairs few.
opt_level() {
    case $1 in
    3) ;; # what the profile says: no override, one build of core less
    [0-2]) printf '%s\n' "--config=profile.release.opt-level=$1" ;;
    *) printf '%s\n' "--config=profile.release.opt-level=\"$1\"" ;;
    esac
}

# build_lib TYPE TARGET OUTDIR [CARGO-ARGUMENT...]
# Leaves lib$CRATE_NAME.a (staticlib) or $CRATE_NAME.wasm (cdylib) in OUTDIR.
build_lib() {
    lib_type=$1 lib_target=$2 lib_out=$3
    shift 3
    lib_features=capi,panic-handler
    cross_rustflags=
    case $lib_target in
    aarch64-*) lib_features=$lib_features,simd ;;
    wasm32-*)
        lib_features=$lib_features,simd
        cross_rustflags=-Ctarget-feature=+simd128
        ;;
    esac
    case $lib_target in
    wasm32-*) lib_file=$CRATE_NAME.wasm ;;
    *) lib_file=lib$CRATE_NAME.a ;;
    esac
    if [ -n "$EXTRA_FEATURES" ]; then
        lib_features=$lib_features,$EXTRA_FEATURES
    fi
    mkdir -p "$lib_out"
    lib_out=$(cd "$lib_out" && pwd) # cargo runs in another directory
    rm -f "$lib_out/$lib_file"
    cross_cargo rustc --quiet --release --lib --crate-type "$lib_type" \
        --no-default-features --features "$lib_features" -Zbuild-std=core \
        --target "$lib_target" --target-dir "$cross_target_dir" "$@" ||
        die "cargo could not build the $lib_type for $lib_target"
    # A copy, because the next opt-level writes to the same place.
    cp "$cross_target_dir/$lib_target/release/$lib_file" "$lib_out/" ||
        die "cargo left no $lib_file for $lib_target"
}

# archive TARGET OUTDIR [CARGO-ARGUMENT...]
archive() {
    build_lib staticlib "$@"
}
