#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
# Rootless podman hands its containers to `shunt agent`: podman_test.sh AGENT, where AGENT has the subcommand `agent`.
# With crun and with runc; an exec too; and what is left of them in the agent when they have ended: nothing.
set -euo pipefail

agent=$1
if [[ ${2:-} != --inside ]]; then
  for program in podman slirp4netns crun runc; do
    command -v "$program" >/dev/null || { echo "skipped: $program is not installed"; exit 77; }
  done
  exec "$(dirname "$0")/../support/arena" --user -- "$0" "$agent" --inside
fi

cd "$TMPDIR"
mkdir -p rootfs/{bin,etc,proc,sys,dev,tmp,run}
cp /usr/bin/busybox rootfs/bin
for applet in sh mkdir echo sleep ls chmod; do ln -s busybox "rootfs/bin/$applet"; done
echo root:x:0:0:root:/root:/bin/sh >rootfs/etc/passwd
cat >profile.json <<END
{"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64"],
 "listenerPath": "$XDG_RUNTIME_DIR/shunt/agent.sock", "listenerMetadata": "shunt.publish=8080:80",
 "syscalls": [{"names": ["connect", "bind", "mkdir"], "action": "SCMP_ACT_NOTIFY"}]}
END

mkfifo ready
"$agent" agent --ready-fd 3 3>ready 2>log & agent_pid=$!
[[ $(wc -c <ready) -eq 1 ]]
descriptors() { find "/proc/$agent_pid/fd" -mindepth 1 | wc -l; }
before=$(descriptors)

fail() { echo "FAILED: $1"; cat log; exit 1; }
container() { timeout -s KILL 60 podman --runtime "$1" --cgroup-manager cgroupfs "${@:2}"; }
run=(--security-opt "seccomp=$PWD/profile.json" --rootfs "$PWD/rootfs")

for runtime in crun runc; do
  output=$(container $runtime run --rm --network slirp4netns "${run[@]}" sh -c "mkdir /tmp/$runtime && echo made")
  [[ $output == made ]] || fail "a container of $runtime says: $output"
done
"$agent" profile --base /usr/share/containers/seccomp.json --listener "$XDG_RUNTIME_DIR/shunt/agent.sock" \
  --handler mkdir --fail chmod=EBADMSG --metadata MKDIR_TMPL=-made >policy.json
policy=(--rm --network none --security-opt "seccomp=$PWD/policy.json" --rootfs "$PWD/rootfs")
for runtime in crun runc; do
  said=$(container $runtime run "${policy[@]}" sh -c "exec 2>&1; mkdir /$runtime; ls -1d /$runtime*; chmod 777 /") || true
  [[ $said == "/$runtime-made"$'\n''chmod: /: Bad message' ]] || fail "calls of a container of $runtime: $said"
done
id=$(container crun run -d --network none --annotation shunt/ignore=10.0.0.0/8 "${run[@]}" \
  sh -c "mkdir /tmp/stays && sleep 1000")
for ((i = 0; i < 2000; ++i)); do [[ -d rootfs/tmp/stays ]] && break; sleep 0.01; done
[[ $(container crun exec "$id" sh -c "mkdir /tmp/exec && echo made") == made ]] || fail "an exec"
container crun rm -f -t 0 "$id" >/dev/null

# The agent sees the end of a container by itself, at its own time.
for ((i = 0; i < 2000; ++i)); do [[ $(descriptors) -eq $before ]] && break; sleep 0.01; done
[[ $(descriptors) -eq $before ]] || fail "descriptors: $before before, $(descriptors) now"
[[ $(grep -c "serving it (pid [1-9][0-9]*, .* ports: 8080:80)" log) -eq 3 ]] || fail "three containers"
[[ $(grep -c "container $id: serving a process started in it" log) -eq 1 ]] || fail "one exec"
grep -q "ended (0 listeners left, of 0 containers)" log || fail "the end"
if grep -q " error: " log; then fail "there are errors in the log"; fi
kill "$agent_pid"
wait "$agent_pid" || fail "the agent's exit status"
[[ ! -e $XDG_RUNTIME_DIR/shunt/agent.sock ]] || fail "the socket is still there"
echo passed
