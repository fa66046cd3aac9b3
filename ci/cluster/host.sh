# shellcheck shell=bash
# Sourced by `cluster`: what this machine must have, and the container runtime that runs the nodes.

# Which way nodes are had is decided once; a machine does not change it.
choose_way() {
  way=${FRANGIBLE_CLUSTER_NODES:-$(cat "$cache/way" 2>/dev/null || true)}
  if [ -z "$way" ]; then
    say "asking whether the published node image can be pulled"
    if find_puller; then way=pull; else way=build; fi
  fi
  case $way in
  pull | build) ;;
  *) fail "FRANGIBLE_CLUSTER_NODES is $way" "Expected pull or build, or nothing: then the published image is used where it can be pulled." ;;
  esac
  printf '%s\n' "$way" >"$cache/way"
}

# The first runtime that works and gets an answer from the registry.
find_puller() {
  for puller in docker podman; do
    command -v $puller >/dev/null && timeout 20 $puller info >/dev/null 2>&1 && timeout 900 $puller pull -q "$PUBLISHED_IMAGE" >/dev/null 2>&1 && return 0
  done
  return 1
}

# Sets the environment in which kind, kubectl and the runtime are called.
use_runtime() {
  export PATH=$bin:$PATH KUBECONFIG=$cache/kubeconfig TMPDIR=$cache/tmp
  mkdir -p "$bin" "$TMPDIR"
  if [ "$way" = build ]; then
    runtime=podman
    export CONTAINERS_CONF=$cache/podman/containers.conf CONTAINERS_STORAGE_CONF=$cache/podman/storage.conf
    export KIND_EXPERIMENTAL_PODMAN_NETWORK=$network
  else
    runtime=$(cat "$cache/puller" 2>/dev/null || true)
    if [ -z "$runtime" ]; then
      find_puller || fail "neither docker nor podman can pull $PUBLISHED_IMAGE" "Start one of them, or build the nodes: FRANGIBLE_CLUSTER_NODES=build make cluster (needs root on Debian)."
      runtime=$puller
      printf '%s\n' "$runtime" >"$cache/puller"
    fi
  fi
  export KIND_EXPERIMENTAL_PROVIDER=$runtime
  write_runtime
}

# The runtime as one program: power drivers and people need no environment to call it.
write_runtime() {
  local program
  program=$(PATH=${PATH#"$bin:"} command -v "$runtime" || true)
  [ -n "$program" ] || return 0 # not installed yet
  {
    printf '#!/bin/sh\n# The container runtime that runs the nodes of the cluster in this folder.\n'
    [ "$way" = pull ] || printf 'export CONTAINERS_CONF=%q CONTAINERS_STORAGE_CONF=%q TMPDIR=%q\n' "$CONTAINERS_CONF" "$CONTAINERS_STORAGE_CONF" "$TMPDIR"
    printf 'exec %q "$@"\n' "$program"
  } >"$bin/runtime.new"
  chmod +x "$bin/runtime.new"
  mv "$bin/runtime.new" "$bin/runtime"
}

print_environment() {
  [ -e "$cache/way" ] || fail "there is no cluster in $cache" "Make it first: make cluster"
  choose_way
  use_runtime
  printf 'export PATH=%q:"$PATH" KUBECONFIG=%q KIND_EXPERIMENTAL_PROVIDER=%q\n' "$bin" "$KUBECONFIG" "$runtime"
  [ "$way" = pull ] ||
    printf 'export CONTAINERS_CONF=%q CONTAINERS_STORAGE_CONF=%q KIND_EXPERIMENTAL_PODMAN_NETWORK=%q\n' "$CONTAINERS_CONF" "$CONTAINERS_STORAGE_CONF" "$network"
}

# What building nodes needs and cannot get by itself; each is one clear message instead of a failure in the middle.
check_machine() {
  local failure=$UNAVAILABLE
  [ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || fail "the node image is built for Linux on x86_64, and this is $(uname -s) on $(uname -m)" \
    "Where images can be pulled, the published one serves: FRANGIBLE_CLUSTER_NODES=pull make cluster"
  [ "$(id -u)" = 0 ] || fail "building and running nodes needs root" \
    "Run as root, or use the published node image with a docker or podman of your own: FRANGIBLE_CLUSTER_NODES=pull make cluster"
  command -v apt-get >/dev/null || fail "the node image is built from Debian packages, and this machine has no apt-get" "Use Debian 12, or FRANGIBLE_CLUSTER_NODES=pull make cluster"
  check_cgroups
}

check_cgroups() {
  local controllers=/sys/fs/cgroup probe
  for probe in cpu memory pids; do
    if [ -d "$controllers/$probe" ]; then
      mkdir "$controllers/$probe/$NAME-probe" 2>/dev/null || fail "no cgroup can be made in $controllers/$probe" "Nodes are containers, which need writable cgroups: run on a machine, or in a container, that has them."
      rmdir "$controllers/$probe/$NAME-probe"
    elif ! grep -qw "$probe" $controllers/cgroup.controllers 2>/dev/null; then
      fail "this machine offers no cgroup controller '$probe' in $controllers" "Nodes are containers, which need cpu, memory and pids: run on a machine, or in a container, that has them."
    fi
  done
}

PACKAGES="podman runc conmon netavark aardvark-dns iptables iproute2 debootstrap busybox-static"

install_packages() {
  local missing
  # shellcheck disable=SC2086 # a list of names; dpkg-query fails where it has never heard of one
  missing=$({ dpkg-query -W -f '${Package} ${db:Status-Status}\n' $PACKAGES 2>/dev/null || true; } | awk '$2 == "installed" {print $1}' | sort | comm -13 - <(printf '%s\n' $PACKAGES | sort))
  [ -n "$missing" ] || return 0
  say "installing $(echo $missing)"
  apt-get update -qq || true # one unreachable source of many is no reason to stop
  # shellcheck disable=SC2086
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >"$cache/apt.log" 2>&1 ||
    { tail -n 5 "$cache/apt.log" >&2; fail "apt-get could not install $(echo $missing)" "The whole of what it said is in $cache/apt.log."; }
}

# podman with all of its state in the cache: nothing of the system's containers is touched, and removing the folder removes everything.
configure_podman() {
  local folder=$cache/podman processes pids boot
  mkdir -p "$folder" /lib/modules # kind mounts the latter into each node
  boot=$(cat /proc/sys/kernel/random/boot_id)
  if [ "$(cat "$folder/boot" 2>/dev/null)" != "$boot" ]; then
    rm -rf "$folder/run" "$folder/tmp" # podman takes them for present
    printf '%s\n' "$boot" >"$folder/boot"
  fi
  # Where CAP_SYS_RESOURCE is missing no limit can be raised, so containers get the present ones. podman has lowered its own nproc to pid_max by then.
  processes=$(ulimit -Hu) pids=$(cat /proc/sys/kernel/pid_max)
  [ "$processes" != unlimited ] && [ "$processes" -lt "$pids" ] || processes=$pids
  cat >"$folder/storage.conf" <<CONF
[storage]
driver = "overlay"
graphroot = "$folder/storage"
runroot = "$folder/run"
CONF
  # runc: Debian's crun refuses a machine with cgroup v1 and v2 at once.
  # lock_type: locks in shared memory belong to every podman of the machine at once, and the first command of a new one frees them all.
  cat >"$folder/containers.conf" <<CONF
[containers]
log_driver = "k8s-file"
pids_limit = 0
default_ulimits = ["nofile=$(ulimit -Hn):$(ulimit -Hn)", "nproc=$processes:$processes"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
lock_type = "file"
static_dir = "$folder/libpod"
tmp_dir = "$folder/tmp"
volume_path = "$folder/volumes"
[network]
network_backend = "netavark"
network_config_dir = "$folder/networks"
CONF
}

# Every podman of the machine shares one name server, which knows networks by their names: a cluster of another cache needs another one.
network=$NAME-$(printf %s "$cache" | sha256sum | cut -c1-8)

make_network() {
  podman network exists "$network" || podman network create "$network" >/dev/null || fail "the network of the nodes could not be made (podman's message is above)"
}

# Every node watches files with some fifteen instances of inotify, and the kernel's usual limit of 128 is for all of them together.
INOTIFY=/proc/sys/fs/inotify/max_user_instances

raise_limits() {
  [ "$(cat $INOTIFY)" -lt 1024 ] || return 0
  echo 1024 2>/dev/null >$INOTIFY || say "$INOTIFY is $(cat $INOTIFY) and cannot be raised: beside another cluster, kubelet may not start"
}

prepare_machine() {
  choose_way
  if [ "$way" = build ]; then
    check_machine
    install_packages
    raise_limits
    configure_podman
  fi
  use_runtime
}
