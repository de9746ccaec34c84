#!/usr/bin/env bash
# Everything that must hold before a change is merged, for a person and for CI alike:
#
#   packages     system packages that the build and the tests need (Debian; only what is missing)
#   toolchain    the Rust version that rust-toolchain.toml names
#   format       cargo fmt
#   deny         cargo deny: bans, licences, sources
#   vectors      envelope vectors against Python's COSE libraries, and new vectors made by them
#   clippy       all targets, warnings are errors
#   docs         cargo doc, warnings are errors
#   tests        unit, integration and doc tests
#   postgres     the storage tests once more with the registry on a server that is started for them, and those that need one
#   portable     crypto and vitals alone and without aws-lc, as a small device would build them
#   fuzz         each fuzz target for some seconds, where a nightly toolchain is installed
#
# Builds go to CARGO_TARGET_DIR, by default in the user's cache, so that a second run is quick. Nothing is written into
# the checkout. Ends with one line that says how many checks passed.
set -Eeuo pipefail
cd "$(dirname "$0")"

cache="${XDG_CACHE_HOME:-$HOME/.cache}/vitalseal"
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$cache/target}"
tools="$cache/tools"
venv="$cache/interop"
node="$cache/interop-node"
cargo_deny_version=0.20.2
cargo_fuzz_version=0.13.2

# ------------------------------------------------------------------------------------------------ saying what happens

check=start
passed=0
left_out=

# run NAME COMMAND...: one check. Called on its own line and never in a condition: bash would ignore failures inside it.
run() {
    local started=$SECONDS
    check="$1"
    shift
    printf '\n== %s\n' "$check"
    "$@"
    [[ "$left_out " != *" $check "* ]] || return 0
    passed=$((passed + 1))
    printf '   %s: ok (%d s)\n' "$check" $((SECONDS - started))
}

# leave_out WHY: the running check cannot be made here. It is not counted, and the last line names it.
leave_out() {
    echo "   left out: $1"
    left_out+=" $check"
}

die() {
    trap - ERR
    printf '\ntest.sh: %s failed: %s\n' "$check" "$1" >&2
    exit 1
}

trap 'printf "\ntest.sh: %s failed (see above)\n" "$check" >&2' ERR

# --------------------------------------------------------------------------------------------------- the single checks

# Where initdb and pg_ctl are; Debian keeps them out of PATH.
postgres_programs() {
    local initdb
    initdb="$({ command -v initdb; ls -d /usr/lib/postgresql/*/bin/initdb 2>/dev/null; } | sort -V | tail -n 1)" || true
    [ -z "$initdb" ] || dirname "$(readlink -f "$initdb")"
}

# Installs the Debian packages whose commands are missing.
install_packages() {
    local missing=()
    command -v cc >/dev/null && command -v c++ >/dev/null ||
        missing+=(build-essential)                                                  # aws-lc, SQLite, zstd; libFuzzer
    command -v openssl >/dev/null || missing+=(openssl)                             # tests make keys and CSRs with it
    command -v psql >/dev/null || missing+=(postgresql-client)                      # tests query through it
    [ -n "$(postgres_programs)" ] || missing+=(postgresql)                          # the registry's other database
    command -v python3 >/dev/null || missing+=(python3)                             # the device that is not our code
    [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)                              # the broker of the cluster tests
    command -v softhsm2-util >/dev/null || missing+=(softhsm2)                      # the token of the PKCS#11 tests
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
    command -v mosquitto_pub >/dev/null && command -v mosquitto_sub >/dev/null ||
        missing+=(mosquitto-clients)                                                # clients that are not our code
    [ -e /usr/include/MQTTClient.h ] || [ -e /usr/local/include/MQTTClient.h ] ||
        missing+=(libpaho-mqtt-dev)                                                 # another one, in C
    command -v node >/dev/null || missing+=(nodejs)                                 # runs MQTT.js
    command -v npm >/dev/null || missing+=(npm)                                     # installs it
    command -v chromium >/dev/null || missing+=(chromium)                           # a page in a real browser
    if [ ${#missing[@]} -eq 0 ]; then
        echo "   nothing to install"
        return
    fi
    echo "   missing: ${missing[*]}"
    command -v apt-get >/dev/null || die "install ${missing[*]} with your system's package manager, then run again"
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "not root and no sudo: as root, run: apt-get install ${missing[*]}"
        as_root=(sudo)
        [ -t 0 ] || as_root=(sudo -n)
    fi
    "${as_root[@]}" apt-get update -qq || die "apt-get update"
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" || die "apt-get install ${missing[*]}"
}

# Makes sure that `cargo` is the pinned version, with rustfmt and clippy.
select_toolchain() {
    local wanted
    wanted="$(sed -n 's/^channel *= *"\(.*\)"/\1/p' rust-toolchain.toml)"
    command -v cargo >/dev/null || die "no cargo: install Rust $wanted with rustup"
    if command -v rustup >/dev/null && [ -z "${RUSTUP_TOOLCHAIN:-}" ]; then
        if rustup toolchain list | grep -q "^$wanted-"; then
            :
        elif RUSTUP_AUTO_INSTALL=0 rustup run stable rustc --version 2>/dev/null | grep -q "^rustc $wanted "; then
            export RUSTUP_TOOLCHAIN=stable
        elif [ "${RUSTUP_AUTO_INSTALL:-1}" = 0 ]; then
            die "Rust $wanted is not installed; run: rustup toolchain install $wanted -c rustfmt -c clippy"
        else
            rustup toolchain install "$wanted" --profile minimal -c rustfmt -c clippy || die "installing Rust $wanted"
        fi
    fi
    cargo --version >/dev/null || die "cargo does not start"
    rustc --version | grep -q "^rustc $wanted " || die "Rust $wanted is wanted, this is $(rustc --version)"
    cargo fmt --version >/dev/null 2>&1 || die "rustfmt is missing; run: rustup component add rustfmt"
    cargo clippy --version >/dev/null 2>&1 || die "clippy is missing; run: rustup component add clippy"
    echo "   $(rustc --version)${RUSTUP_TOOLCHAIN:+ (toolchain $RUSTUP_TOOLCHAIN)}, target directory $CARGO_TARGET_DIR"
}

# cargo-deny of one version, built once into the cache; speed of the tool matters less than speed of its build.
check_dependencies() {
    if ! "$tools/bin/cargo-deny" --version 2>/dev/null | grep -q " $cargo_deny_version\$"; then
        echo "   building cargo-deny $cargo_deny_version, once"
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
            CARGO_PROFILE_RELEASE_DEBUG=0 CARGO_TARGET_DIR="$tools/build" \
            cargo install --quiet --locked --force --root "$tools" --version "$cargo_deny_version" cargo-deny
        rm -rf "$tools/build"
    fi
    "$tools/bin/cargo-deny" --locked -L warn check --hide-inclusion-graph -A duplicate bans licenses sources
}

# A Python environment outside the checkout, made again when requirements.txt or Python changes.
make_python_environment() {
    local stamp
    stamp="$({ python3 --version; cat tests/interop/requirements.txt; } | sha256sum)"
    if [ "$(cat "$venv/stamp" 2>/dev/null)" != "$stamp" ]; then
        echo "   making a Python environment in $venv"
        rm -rf "$venv"
        python3 -m venv "$venv"
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check \
            --require-virtualenv --no-deps --requirement tests/interop/requirements.txt
        echo "$stamp" >"$venv/stamp"
    fi
    export VITALSEAL_INTEROP_PYTHON="$venv/bin/python"
}

# MQTT.js outside the checkout, installed again when package.json or Node changes. No lock file: it would name a registry.
make_node_environment() {
    local stamp
    stamp="$({ node --version; cat tests/interop/package.json; } | sha256sum)"
    if [ "$(cat "$node/stamp" 2>/dev/null)" != "$stamp" ]; then
        echo "   making a Node environment in $node"
        rm -rf "$node"
        mkdir -p "$node"
        cp tests/interop/package.json "$node/"
        npm install --prefix "$node" --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error
        echo "$stamp" >"$node/stamp"
    fi
    export VITALSEAL_INTEROP_NODE="$node"
}

# Python checks our vectors. The Rust tests below check Python's, through VITALSEAL_VECTORS, and have Python read what
# Rust sealed and stored, through VITALSEAL_INTEROP_PYTHON.
check_vectors() {
    make_python_environment
    make_node_environment
    export PYTHONDONTWRITEBYTECODE=1
    "$VITALSEAL_INTEROP_PYTHON" tests/interop/check_vectors.py crypto/tests/vectors/envelope.json
    "$VITALSEAL_INTEROP_PYTHON" tests/interop/make_vectors.py "$venv/vectors.json"
    "$VITALSEAL_INTEROP_PYTHON" tests/interop/check_vectors.py "$venv/vectors.json"
    export VITALSEAL_VECTORS="$venv/vectors.json"
}

# A server of its own in a temporary directory, stopped when this ends: on a Unix socket, and over TCP with TLS alone, for
# `localhost` under an authority whose certificate is ca.pem there. Its language sorts otherwise than bytes do, as that of
# most servers does.
with_postgres() (
    server="$(mktemp -d)"
    programs="$(postgres_programs)"
    owner="$(id -un)"
    as_owner=()
    if [ "$owner" = root ]; then # PostgreSQL refuses root
        owner=postgres
        as_owner=(runuser -u postgres --)
    fi
    trap '"${as_owner[@]}" "$programs/pg_ctl" -D "$server/data" -s -m immediate stop || true; rm -rf "$server"' EXIT
    cd "$server"
    {
        certify && chown -R "$owner" . &&
            "${as_owner[@]}" "$programs/initdb" -D "$server/data" -U postgres -A trust -E UTF8 --no-sync \
                --locale=C.UTF-8 --locale-provider=icu --icu-locale=en-US
    } >"$cache/postgres.log" 2>&1 || { cat "$cache/postgres.log" >&2; exit 1; }
    "${as_owner[@]}" sed -i 's/^host /hostssl /' "$server/data/pg_hba.conf"
    port="$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
    "${as_owner[@]}" "$programs/pg_ctl" -D "$server/data" -l "$server/log" -s -w -o "-k $server -p $port \
        -c listen_addresses=127.0.0.1 -c ssl=on -c ssl_cert_file=$server/server.pem -c ssl_key_file=$server/server.key \
        -c fsync=off -c max_connections=200" start
    cd - >/dev/null
    export VITALSEAL_TEST_POSTGRES="postgres://postgres@${server//\//%2F}:$port/postgres"
    "$@"
)

# An authority and a certificate for `localhost` in the current directory.
certify() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=test authority" \
        -keyout ca.key -out ca.pem &&
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=localhost" \
            -keyout server.key -out server.csr &&
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out server.pem \
            -extfile <(echo "subjectAltName=DNS:localhost")
}

# Names of test targets and the programs that hold them, as the check before has built them: for one package alone, cargo
# would build everything once more, with other features.
test_programs() {
    cargo test --locked --workspace --no-run --message-format=json 2>/dev/null | python3 -c '
import json, sys
for message in map(json.loads, sys.stdin):
    if message.get("executable") and message["profile"]["test"]:
        print(message["target"]["name"], message["executable"])'
}

# Storage's tests, with those that are ignored without a server; of the system, the latter alone.
test_on_postgres() {
    local programs target
    programs="$(test_programs)"
    program() { sed -n "s/^$1 //p" <<<"$programs"; }
    run_some "$(program system)" --ignored registry::
    cd storage
    run_some "$(program vitalseal_storage)" --include-ignored --skip corpus
    for target in faults objects migrations pkcs11; do
        run_some "$(program "$target")"
    done
}

# run_some PROGRAM ARGUMENT...: tests of a program. That there are none is a failure.
run_some() {
    local said
    said="$("$@")" || { printf '%s\n' "$said"; return 1; }
    printf '%s\n' "$said"
    [[ "$said" != *"ok. 0 passed"* ]] || die "$* ran no test"
}

check_postgres() {
    with_postgres test_on_postgres
}

# In a target directory of its own: beside the workspace's it would not show what a feature of another package hides.
check_portable() {
    CARGO_TARGET_DIR="$cache/portable" \
        cargo test --locked -p vitalseal-crypto -p vitalseal-vitals --no-default-features
}

# Lets each fuzz target run on from its seeds. The seeds themselves are replayed by the tests, on any toolchain.
smoke_fuzz() {
    if ! RUSTUP_AUTO_INSTALL=0 cargo +nightly --version >/dev/null 2>&1; then
        leave_out "no nightly toolchain; to run it: rustup toolchain install nightly --profile minimal"
        return
    fi
    if ! "$tools/bin/cargo-fuzz" --version 2>/dev/null | grep -q " $cargo_fuzz_version\$"; then
        echo "   building cargo-fuzz $cargo_fuzz_version, once"
        CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_TARGET_DIR="$tools/build" \
            cargo install --quiet --locked --force --root "$tools" --version "$cargo_fuzz_version" cargo-fuzz
        rm -rf "$tools/build"
    fi
    cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null ||
        die "fuzz/Cargo.lock is out of date; run: cargo metadata --manifest-path fuzz/Cargo.toml"
    local built="$cache/fuzz-target" host found target
    host="$(rustc -vV | sed -n 's/^host: //p')"
    if ! PATH="$tools/bin:$PATH" CARGO_TARGET_DIR="$built" cargo +nightly fuzz build >"$cache/fuzz.log" 2>&1; then
        grep -q '^error.*could not compile `vitalseal' "$cache/fuzz.log" && die "see $cache/fuzz.log"
        leave_out "this nightly does not build it, see $cache/fuzz.log"
        return
    fi
    for target in fuzz/fuzz_targets/*.rs; do
        target="$(basename "$target" .rs)"
        # New inputs go to a folder of their own, so that a run begins with the seeds and leaves the checkout alone.
        found="$cache/fuzz/$target"
        rm -rf "$found"
        mkdir -p "$found"
        "$built/$host/release/$target" -max_total_time=8 -seed=1 -verbosity=0 -artifact_prefix="$cache/fuzz/$target-" \
            "$found" "fuzz/corpus/$target" 2>"$cache/fuzz.log" ||
            { tail -n 40 "$cache/fuzz.log" >&2; die "$target: fuzz/README.md says what to do with the input above"; }
        echo "   $target: nothing found"
    done
}

# ------------------------------------------------------------------------------------------------------- in this order

run packages install_packages
run toolchain select_toolchain
run format cargo fmt --all --check
run deny check_dependencies
run vectors check_vectors
run clippy cargo clippy --locked --workspace --all-targets -- -D warnings
run docs env RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps
run tests cargo test --locked --workspace
run postgres check_postgres
run portable check_portable
run fuzz smoke_fuzz

printf '\ntest.sh: all %d checks passed in %d s%s\n' "$passed" "$SECONDS" "${left_out:+, left out:$left_out}"
