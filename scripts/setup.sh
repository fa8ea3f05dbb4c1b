#!/usr/bin/env bash
#
# Installs the missing dependencies of the build, the tests and the demo on Debian or Ubuntu, and
# checks for Rust. Changes nothing when all is there. Needs root only to install.
set -euo pipefail

# command:package. nginx is used as a program only: no service of it is started.
readonly TOOLS=(
    gcc:gcc make:make git:git ip:iproute2 tc:iproute2 nft:nftables sysctl:procps ping:iputils-ping
    ethtool:ethtool nginx:nginx-light curl:curl jq:jq tshark:tshark iperf3:iperf3 python3:python3
    shellcheck:shellcheck setpriv:util-linux prlimit:util-linux chrt:util-linux
    valgrind:valgrind bird:bird2
)

# The tools of an administrator live where a user's PATH may not look.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"

missing_packages() {
    local entry
    {
        for entry in "${TOOLS[@]}"; do
            command -v "${entry%%:*}" >/dev/null || echo "${entry#*:}"
        done
        # scripts/lab/check.sh makes an environment of its own for the linters of Python.
        python3 -c 'import ensurepip, venv' 2>/dev/null || echo python3-venv
    } | sort -u
}

# install_packages PACKAGE...: with a policy that lets no package start its service, put in place
# for the installation only, and only where there is none already.
install_packages() {
    local policy=/usr/sbin/policy-rc.d
    local as_root=()
    ((EUID == 0)) || as_root=(sudo)
    command -v apt-get >/dev/null || {
        echo "setup: missing: $*; install them by the package manager of this system" >&2
        exit 1
    }
    # shellcheck disable=SC2016 # for the inner shell
    "${as_root[@]}" env POLICY="$policy" DEBIAN_FRONTEND=noninteractive bash -euo pipefail -c '
        if [[ ! -e $POLICY ]]; then
            trap "rm -f -- $POLICY" EXIT
            printf "#!/bin/sh\nexit 101\n" >"$POLICY"
            chmod 755 "$POLICY"
        fi
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "$@" >/dev/null
    ' setup "$@"
}

mapfile -t packages < <(missing_packages)
if ((${#packages[@]} > 0)); then
    echo "setup: installing ${packages[*]}"
    install_packages "${packages[@]}"
fi

if ! command -v cargo >/dev/null; then
    echo "setup: Rust is missing: install it as https://rustup.rs describes, then try again" >&2
    exit 1
fi
if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    command -v rustup >/dev/null && rustup component add rustfmt clippy
fi
if [[ ! -c /dev/net/tun ]]; then
    echo "setup: note: there is no /dev/net/tun; 'modprobe tun' usually makes one" >&2
fi
echo "setup: complete"
