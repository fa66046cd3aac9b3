# shellcheck shell=bash
# Sourced by `cluster`: the cluster comes and goes.

# The nodes' containers that exist, running or not.
nodes() { "$bin/runtime" ps -a --filter "label=io.x-k8s.kind.cluster=$NAME" --format '{{.Names}}' 2>/dev/null || true; }

build() {
  prepare_machine
  build_tools
  [ "$way" = pull ] || build_node_image
  [ "$way" = pull ] || build_kwok
}

# Plays kubelets in tests/api, beside the API server that was built; no part of a node.
build_kwok() {
  local wanted
  wanted=$(digest ci/cluster/kwok)
  built kwok "$wanted" && return 0
  timed "building kwok" compile ../kwok kwok sigs.k8s.io/kwok/cmd/kwok
  mark_built kwok "$wanted"
}

# A cluster that runs is left alone, also when its nodes would be built differently by now.
up() {
  local began=$SECONDS image=$PUBLISHED_IMAGE
  prepare_machine
  if complete; then
    say "the cluster runs already: KUBECONFIG=$KUBECONFIG"
    return
  fi
  build
  [ -z "$(nodes)" ] || timed "removing a cluster that does not answer" delete
  if [ "$way" = build ]; then
    image=$NODE_IMAGE
    make_network
  fi
  timed "creating the cluster" create "$image"
  [ "$way" = pull ] || favour_nodes
  timed "settling names" settle_names
  say "the cluster is up after $((SECONDS - began)) s: eval \"\$(ci/cluster/cluster env)\""
}

complete() {
  [ "$(nodes | wc -l)" = "$(grep -c -e '- role:' "$root/ci/kind.yaml")" ] && kubectl --request-timeout 5s wait --for=condition=Ready nodes --all --timeout=30s >/dev/null 2>&1
}

create() { # IMAGE
  kind create cluster --config "$root/ci/kind.yaml" --image "$1" --wait 180s >"$cache/create.log" 2>&1 ||
    { tail -n 15 "$cache/create.log" >&2; fail "kind could not create the cluster" "The whole of what it said is in $cache/create.log."; }
  [ -x "$bin/kubectl" ] || fetch_kubectl
  kubectl wait --for=condition=Ready nodes --all --timeout=120s >/dev/null
}

# As cgroups are weighed, all nodes together would get as much of a busy machine's CPUs as a single process, and nothing in the cluster would answer.
# Each node counts as one: enough to be scheduled within milliseconds, and what else the machine does goes on.
favour_nodes() {
  local group count
  count=$(nodes | wc -l)
  group=$(sed -nE 's#^([0-9]+:[^:]*\bcpu\b[^:]*|0:):(/.*)?/libpod-.*#\2#p' "/proc/$(podman inspect -f '{{.State.Pid}}' $CONTROL_PLANE)/cgroup" | head -n1)
  weigh $((1024 * count)) "/sys/fs/cgroup/cpu$group/cpu.shares" # v1: 1024 is one process's
  weigh $((100 * count)) "/sys/fs/cgroup$group/cpu.weight"      # v2: 100 is
}

# What a group weighed before is noted: `down` puts it back, as the group belongs to every container of the machine.
weigh() { # NUMBER FILE
  local before
  [ -f "$2" ] || return 0
  before=$(cat "$2")
  [ "$before" -lt "$1" ] || return 0
  if echo "$1" 2>/dev/null >"$2"; then
    printf '%s %s %s\n' "$2" "$before" "$1" >"$cache/weight"
  else
    say "$2 cannot be raised: on a busy machine the cluster will be slow"
  fi
}

# Whoever has changed it since keeps what they set.
put_back_weight() {
  local file before ours
  [ -f "$cache/weight" ] || return 0
  read -r file before ours <"$cache/weight"
  [ "$(cat "$file" 2>/dev/null)" != "$ours" ] || echo "$before" >"$file"
  rm -f "$cache/weight"
}

delete() { kind delete cluster --name $NAME >"$cache/delete.log" 2>&1 || { cat "$cache/delete.log" >&2; fail "kind could not delete the cluster"; }; }

# A published node has the kubectl that fits it.
fetch_kubectl() { "$bin/runtime" cp "$CONTROL_PLANE:/usr/bin/kubectl" "$bin/kubectl" >/dev/null; }

# Names are resolved on the node that no experiment takes away. A name that is not the cluster's does not exist, and nobody outside is asked:
# kubeadm's configuration would ask the machine's own name server, so what pods do would depend on where the cluster runs.
settle_names() {
  kubectl -n kube-system get configmap coredns -o jsonpath='{.data.Corefile}' |
    awk '/^\.:53 /{print "cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {"; next}
         /^ *forward /{skip=1} /^ *loop$/{next} !skip{print} skip && /}/{skip=0}
         END{print ".:53 {\n    template ANY ANY {\n       rcode NXDOMAIN\n    }\n}"}' >"$TMPDIR/Corefile"
  kubectl -n kube-system create configmap coredns --from-file=Corefile="$TMPDIR/Corefile" --dry-run=client -o yaml | kubectl replace -f - >/dev/null
  kubectl -n kube-system patch deployment coredns --type merge -p '{"spec": {"replicas": 1, "strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}},
    "template": {"metadata": {"annotations": {"frangible.io/corefile": "cluster-only"}}, "spec": {"nodeSelector": {"node-role.kubernetes.io/control-plane": ""}}}}}' >/dev/null
  kubectl -n kube-system rollout status deployment coredns --timeout=120s >/dev/null
}

down() {
  [ -e "$cache/way" ] || { say "there is no cluster in $cache"; return; }
  choose_way
  use_runtime
  [ -x "$bin/runtime" ] || return 0
  if [ -n "$(nodes)" ]; then
    timed "removing the cluster" delete
  fi
  rm -f "$cache/kubeconfig" "$cache/inventory.yaml"
  put_back_weight
  [ "$way" = pull ] || leave_nothing
}

# What podman keeps when its last container is gone: the network with its name server, volumes, and the mount of its store.
leave_nothing() {
  podman network rm -f "$network" >/dev/null 2>&1 || true
  podman volume prune -f >/dev/null 2>&1 || true
  mounts | xargs -r umount 2>/dev/null || true
  local left
  left=$(mounts; processes)
  [ -z "$left" ] || fail "something of the cluster is left" "$left"
}

mounts() { awk -v below="$cache/podman/" 'index($5, below) == 1 {print $5}' /proc/self/mountinfo | sort -r; }

# Monitors of containers and the name server of their network name the folder of their state.
processes() { grep -lszF "$cache/podman/" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 | grep -vx $$ | xargs -r ps -o pid=,args= -p 2>/dev/null || true; }

status() {
  print_environment >/dev/null
  "$bin/runtime" ps -a --filter "label=io.x-k8s.kind.cluster=$NAME" --format '{{.Names}}  {{.Status}}'
  [ ! -e "$KUBECONFIG" ] || kubectl --request-timeout 5s get nodes,pods -A -o wide
}
