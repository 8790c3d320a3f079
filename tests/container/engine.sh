#!/usr/bin/env bash
# Start a Docker engine of its own in FOLDER, on a Debian machine where none runs, and import a stand-in for the base image under the
# name BASE. usage: engine.sh FOLDER BASE. Needs root, apt and pip; no image registry. The engine has no network of its own.
# Prints `export` lines for its clients. Its process id is in FOLDER/docker.pid.
set -euo pipefail
work=$(realpath "$1") base=$2; cd "$work"
export DEBIAN_FRONTEND=noninteractive DOCKER_HOST=unix://$work/docker.sock DOCKER_CONFIG=$work/config
apt-get -qq update > apt.log 2>&1
apt-get -qq install -y --no-install-recommends docker.io mmdebstrap >> apt.log 2>&1
mkdir -p apt/lists/partial apt/cache/archives/partial config/cli-plugins
if ! docker compose version > /dev/null 2>&1; then
    # Compose v2 is in trixie alone; its binary runs on bookworm's libc.
    awk 'BEGIN {RS = ""} NR == 1' /etc/apt/sources.list.d/debian.sources | sed 's/^Suites:.*/Suites: trixie/' > apt/trixie.sources
    trixie=(-o "Dir::Etc::sourcelist=$work/apt/trixie.sources" -o Dir::Etc::sourceparts=/dev/null -o "Dir::State::lists=$work/apt/lists"
            -o "Dir::Cache=$work/apt/cache" -o APT::Sandbox::User=root)
    apt-get -qq "${trixie[@]}" update >> apt.log 2>&1
    (cd apt && apt-get -qq "${trixie[@]}" download docker-compose docker-buildx >> ../apt.log 2>&1; for deb in *.deb; do dpkg -x "$deb" tree; done)
    cp apt/tree/usr/libexec/docker/cli-plugins/* config/cli-plugins/
fi
setsid dockerd --data-root "$work/docker" --exec-root "$work/exec" --pidfile "$work/docker.pid" --host "$DOCKER_HOST" \
    --storage-driver overlay2 --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false \
    > dockerd.log 2>&1 < /dev/null &
for _ in $(seq 120); do docker info > /dev/null 2>&1 && break; sleep 0.5; done
if ! docker image inspect "$base" > /dev/null 2>&1; then
    # What the official slim image holds: Debian's minbase, and a CPython of that minor version under /usr/local.
    minor=$(sed 's/^python:\(3\.[0-9]*\).*/\1/' <<< "$base")
    python=$(ls -d "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$minor".*/ | tail -1); python=${python%/}
    libraries=ca-certificates,netbase,tzdata,libbz2-1.0,libexpat1,libffi8,liblzma5,libncursesw6,libnsl2,libreadline8,libsqlite3-0,libssl3,libuuid1,zlib1g
    mmdebstrap --quiet --variant=minbase --include=$libraries --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        bookworm root /etc/apt/sources.list.d/debian.sources 2>> apt.log
    rm -rf root/var/lib/apt/lists/* root/etc/apt/sources.list*
    tar -C "$python" --exclude=__pycache__ --exclude='lib/python3*/test' --exclude='*.a' -cf - bin lib | tar -C root/usr/local --no-same-owner -xf -
    # pip inside trusts what this machine trusts.
    cp /etc/ssl/certs/ca-certificates.crt root/etc/ssl/certs/
    printf '[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n' > root/etc/pip.conf
    chroot root ldconfig
    tar -C root --numeric-owner -c . | docker import --change 'ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8' - "$base" > /dev/null
    rm -rf root
fi
echo "export DOCKER_HOST=$DOCKER_HOST DOCKER_CONFIG=$DOCKER_CONFIG"
