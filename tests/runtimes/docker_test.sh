#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Docker (by the wrapper in deploy/docker) and containerd's ctr hand their containers to `shunt agent`: docker_test.sh SHUNT.
# The containers have no network of their own, so what they reach they reach by shunt.
set -euo pipefail

shunt=$1
here=$(dirname "$(readlink -f "$0")")
if [[ ${2:-} != --inside ]]; then
  for program in dockerd docker containerd ctr runc curl; do
    command -v "$program" >/dev/null || { echo "skipped: $program is not installed"; exit 77; }
  done
  exec "$here/../support/arena" -- "$0" "$shunt" --inside
fi

fail() { echo "FAILED: $1"; tail -n 20 ./*.log; exit 1; }
# Waits for a command to succeed, at most 20 s.
await() {
  for ((i = 0; i < 200; ++i)); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  fail "this did not come about: $*"
}

# All of them leave things in /run, and the wrapper knows only root's default socket there: this one goes with the arena.
mount -t tmpfs -o mode=755 run /run
# What these daemons name their control groups after, and leave behind.
trap 'rmdir /sys/fs/cgroup/*/{docker,default} 2>/dev/null || true' EXIT
cd "$TMPDIR"
mkdir -p rootfs/{bin,etc,proc,sys,dev,tmp,www} www
cp /usr/bin/busybox rootfs/bin
for applet in sh wget httpd mkdir ls chmod; do ln -s busybox "rootfs/bin/$applet"; done
echo root:x:0:0:root:/root:/bin/sh >rootfs/etc/passwd
echo inside >rootfs/www/index.html
echo host >www/index.html
busybox httpd -f -p "$ARENA_HOST:8000" -h www &
await curl -s "http://$ARENA_HOST:8000/"

cat >agent.yaml <<END
containers:
  - name: all
    handlers:
      mkdir-template: "-made"
END
"$shunt" agent --config agent.yaml 2>agent.log & agent=$!
await test -S /run/shunt/agent.sock
"$shunt" profile --base /usr/share/containers/seccomp.json --listener /run/shunt/agent.sock >shunt.json

policy=(--base /usr/share/containers/seccomp.json --listener /run/shunt/agent.sock --handler mkdir --fail chmod=EBADMSG)
"$shunt" profile "${policy[@]}" >policy.json
"$shunt" profile "${policy[@]}" --metadata MKDIR_TMPL=-metadata >metadata.json
handled=(sh -c "exec 2>&1; mkdir /abc; ls -1d /abc*; chmod 777 /")

docker() { timeout -s KILL 60 docker "$@"; }
ctr() { timeout -s KILL 60 ctr "$@"; }
export DOCKER_HOST=unix://$PWD/docker.sock CONTAINERD_ADDRESS=$PWD/containerd.sock
echo "{\"runtimes\": {\"shunt\": {\"path\": \"$here/../../deploy/docker/shunt-runc\"}}}" >daemon.json
dockerd --config-file daemon.json --data-root "$PWD/docker" --exec-root "$PWD/docker-exec" -p "$PWD/docker.pid" \
  -H "$DOCKER_HOST" --storage-driver vfs >dockerd.log 2>&1 & dockerd=$!
await docker version
tar -C rootfs -c . | docker import - busybox:latest >/dev/null
fetch=(wget -qO- "http://$ARENA_HOST:8000/")
options=(--network none --security-opt "seccomp=$PWD/shunt.json")

if docker run --rm "${options[@]}" busybox "${fetch[@]}" >/dev/null 2>&1; then
  fail "Docker keeps the listener by now: the wrapper and what the README says of it can go"
fi
[[ $(docker run --rm --runtime shunt "${options[@]}" busybox "${fetch[@]}") == host ]] || fail "docker run"
docker run -d --name web --runtime shunt "${options[@]}" busybox httpd -f -p 80 -h /www >/dev/null
[[ $(docker exec web "${fetch[@]}") == host ]] || fail "docker exec"
docker rm -f web >/dev/null
# A port that Docker publishes is none of ours: it works by Docker's means.
docker run -d --name ours --runtime shunt --security-opt "seccomp=$PWD/shunt.json" -p 8081:80 busybox httpd -f -p 80 -h /www \
  >/dev/null
await curl -s "http://$ARENA_HOST:8081/"
[[ $(curl -s "http://$ARENA_HOST:8081/") == inside ]] || fail "a port that Docker publishes"
docker rm -f ours >/dev/null
docker run --rm --network none --runtime shunt busybox sh -c true || fail "a container that is none of ours"
# Docker drops the metadata with the listener: what is to be done stands in the configuration.
said=$(docker run --rm --network none --runtime shunt --security-opt "seccomp=$PWD/policy.json" busybox "${handled[@]}") || true
[[ $said == $'/abc-made\nchmod: /: Bad message' ]] || fail "calls of a container of Docker: $said"
docker save busybox:latest -o image.tar
kill "$dockerd"
wait "$dockerd" || true

cat >containerd.toml <<END
version = 2
root = "$PWD/containerd"
state = "$PWD/containerd-state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "$CONTAINERD_ADDRESS"
END
containerd -c containerd.toml >containerd.log 2>&1 &
await ctr version
ctr image import --snapshotter native image.tar >/dev/null
options=(--snapshotter native --seccomp --seccomp-profile "$PWD/shunt.json")
image=docker.io/library/busybox:latest
[[ $(ctr run --rm "${options[@]}" "$image" "fetch-$$" "${fetch[@]}") == host ]] || fail "ctr run"
ctr run -d "${options[@]}" --annotation shunt/publish=8080:80 "$image" "web-$$" httpd -f -p 80 -h /www
await curl -s "http://$ARENA_HOST:8080/"
[[ $(curl -s "http://$ARENA_HOST:8080/") == inside ]] || fail "a published port"
options=(--snapshotter native --seccomp --seccomp-profile "$PWD/metadata.json")
# What the configuration says comes on top of the metadata.
sed -i s/mkdir-template.*/exec-pattern:\ none/ agent.yaml
kill -HUP "$agent"
await grep -q "read the configuration" agent.log
said=$(ctr run --rm "${options[@]}" "$image" "policy-$$" "${handled[@]}") || true
[[ $said == $'/abc-metadata\nchmod: /: Bad message' ]] || fail "calls of a container of containerd: $said"
ctr task delete --force "web-$$" >/dev/null
if grep -q " error: " agent.log; then fail "there are errors in the log"; fi
echo passed
