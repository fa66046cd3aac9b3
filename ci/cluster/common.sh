# shellcheck shell=bash
# Sourced by `cluster`: names, places, and how a part knows that it is built already.

NAME=frangible
CONTROL_PLANE=$NAME-control-plane
KUBERNETES=v1.34.4
NODE_IMAGE=localhost/$NAME/node:$KUBERNETES
# kind's own default for its release; a tag alone could change below us
PUBLISHED_IMAGE=kindest/node:v1.37.0@sha256:a1ed56cfb0e7b93589bdf97c8cd566405a265939e3620fc4f5de89adff580ae5
ESTATE_IMAGE=localhost/$NAME/estate:1
PROMETHEUS_PORT=30090 # of the control plane: deploy/prometheus and ci/kind.yaml

root=$(cd "$here/../.." && pwd -P)
cache=${FRANGIBLE_CLUSTER_CACHE:-$root/.cache/cluster}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd -P)
bin=$cache/bin
stamps=$cache/stamps

say() { printf 'cluster: %s\n' "$*" >&2; }

fail() { # MESSAGE ADVICE...
  printf 'cluster: FAILED: %s\n' "$1" >&2
  shift
  [ $# -eq 0 ] || printf '         %s\n' "$@" >&2
  exit "$failure"
}
failure=1
UNAVAILABLE=69 # sysexits(3): not this machine

# A part is built once for what its files hold and its parts are, wherever the repository lies.
digest() { # FILE OR FOLDER, or =TEXT...
  local each
  for each in "$@"; do
    case $each in
    =*) printf '%s\n' "$each" ;;
    *) (cd "$root" && find "$each" -type f -not -name '*.pyc' | LC_ALL=C sort | xargs -r sha256sum) ;;
    esac
  done | sha256sum | cut -d' ' -f1
}

built() { # PART DIGEST
  [ "$(cat "$stamps/$1" 2>/dev/null)" = "$2" ]
}

mark_built() { # PART DIGEST
  mkdir -p "$stamps"
  printf '%s\n' "$2" >"$stamps/$1"
}

timed() { # WHAT COMMAND...
  local what=$1 began=$SECONDS
  shift
  say "$what"
  "$@"
  say "$what: $((SECONDS - began)) s"
}

# One command at a time in a cache: two would build, and create, the same things.
alone() { # COMMAND...
  exec 8>"$cache/lock"
  if ! flock --nonblock 8; then
    say "another command works in $cache; waiting for it"
    flock 8
  fi
  "$@" 8>&- # what stays behind, such as a container's monitor, must not hold the lock
}
