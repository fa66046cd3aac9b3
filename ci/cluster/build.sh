# shellcheck shell=bash
# Sourced by `cluster`: kind, and a node image made of Debian packages and Go modules, for machines that reach no registry of images.
#
#   binaries ─┬─► images ─┐
#   root ─────┴───────────┴─► nodebase (slow) ─► node (our entrypoint, units and manifests on top)

LEAST_GO=1.24
VERSION_PACKAGE=k8s.io/component-base/version
modules=ci/cluster/src

build_tools() {
  local wanted
  wanted=$(digest $modules/kind)
  if ! built kind "$wanted"; then
    timed "building kind" compile kind kind sigs.k8s.io/kind
    mark_built kind "$wanted"
  fi
}

compile() { # MODULE BINARY PACKAGE [LDFLAGS]: a static binary
  find_go
  (cd "$root/$modules/$1" && CGO_ENABLED=0 GOFLAGS=-buildvcs=false "$go" build -ldflags "-s -w ${4:-}" -o "$bin/$2" "$3") ||
    fail "$2 could not be built (Go's message is above)" "Behind a proxy set HTTPS_PROXY; with a module proxy of your own set GOPROXY. Then run the same command again."
}

find_go() {
  [ -z "${go:-}" ] || return 0
  local candidate found
  for candidate in go /usr/local/go/bin/go /usr/lib/go-*/bin/go; do
    found=$("$candidate" env GOVERSION 2>/dev/null) || continue
    found=${found#go}
    if [ "$(printf '%s\n' "$LEAST_GO" "$found" | sort -V | head -n1)" = "$LEAST_GO" ]; then
      go=$(command -v "$candidate")
      return 0
    fi
  done
  fail "no Go $LEAST_GO or later was found" "Install it (go.dev/doc/install; Debian's backports: golang-go) so that \`go version\` answers, then run the same command again."
}

build_binaries() {
  local wanted flags
  wanted=$(digest $modules "=$KUBERNETES")
  built binaries "$wanted" && return 0
  flags="-X $VERSION_PACKAGE.gitVersion=$KUBERNETES -X $VERSION_PACKAGE.gitMajor=1 -X $VERSION_PACKAGE.gitMinor=34 -X $VERSION_PACKAGE.gitTreeState=clean"
  # Kubernetes' commands are the tools of its go.mod: `tool` means all of them.
  timed "building Kubernetes (some ten minutes the first time)" compile k8s "" tool "$flags -X $VERSION_PACKAGE.buildDate=2026-01-01T00:00:00Z"
  timed "building etcd" compile etcd etcd go.etcd.io/etcd/server/v3
  timed "building CoreDNS" compile coredns coredns .
  compile pause pause .
  compile cniagent cniagent .
  mark_built binaries "$wanted"
}

ROOT_PACKAGES=systemd,containerd,runc,iptables,nftables,iproute2,containernetworking-plugins,mount,util-linux,procps,kmod,iputils-ping

mirror() { # the one that this machine's apt uses
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Release: bookworm' 2>/dev/null | grep . | head -n1 ||
    apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages' | awk '$1 !~ /-/ {print $2; exit}'
}

# A small Debian that a node, and the images that need a libc, are made of.
make_root() { # SUITE PACKAGES FOLDER
  rm -rf "$3" "$3.new"
  mkdir -p "${3%/*}"
  debootstrap --variant=minbase --include="$2" "$1" "$3.new" "$(mirror)" >"$cache/debootstrap.log" 2>&1 ||
    { tail -n 5 "$cache/debootstrap.log" >&2; fail "debootstrap could not make a Debian $1" "The whole of what it said is in $cache/debootstrap.log."; }
  rm -rf "$3.new"/var/cache/apt/* "$3.new"/var/lib/apt/lists/* "$3.new"/usr/share/{doc,man,locale,info} "$3.new"/var/log/* "$3.new"/var/cache/debconf/*
  mv "$3.new" "$3"
}

build_root() {
  local wanted
  wanted=$(digest "=$ROOT_PACKAGES")
  built root "$wanted" && return 0
  timed "making a Debian root" make_root bookworm $ROOT_PACKAGES "$cache/root"
  mark_built root "$wanted"
}

# Shell, ip and iptables with what it loads, out of the Debian root, for what configures a node's network.
make_netbase() { # FOLDER
  local from=$cache/root name
  mkdir -p "$1"/{bin,usr/sbin,etc,run,tmp,proc,sys,usr/lib/x86_64-linux-gnu,usr/lib64}
  ln -s usr/lib "$1/lib"
  ln -s usr/lib64 "$1/lib64"
  cp "$(command -v busybox)" "$1/bin/busybox"
  for name in sh ls cat sleep wget hostname nslookup env ip; do ln -s busybox "$1/bin/$name"; done
  cp -a "$from/usr/lib/x86_64-linux-gnu/xtables" "$1/usr/lib/x86_64-linux-gnu/"
  cp "$from/usr/sbin/xtables-nft-multi" "$1/usr/sbin/"
  for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do ln -s xtables-nft-multi "$1/usr/sbin/$name"; done
  cp "$from"/etc/{protocols,services} "$1/etc/"
  echo 'root:x:0:0:root:/:/bin/sh' >"$1/etc/passwd"
  { chroot "$from" ldd /usr/sbin/xtables-nft-multi; chroot "$from" sh -c 'ldd /usr/lib/x86_64-linux-gnu/xtables/*.so'; } |
    grep -oE '/[^ :]+\.so[^ :]*' | grep -v /xtables/ | sort -u | while read -r name; do
    mkdir -p "$1/usr/${name%/*}"
    [ -e "$1/$name" ] || cp -L "$from$name" "$1/$name"
  done
}

image() { # NAME BASE BINARY [ENTRYPOINT]: adds NAME to the array `images`
  local folder
  folder=$(mktemp -d -p "$work")
  install -D "$bin/$3" "$folder/root/usr/local/bin/$3"
  {
    printf 'FROM %s\nCOPY root/ /\nENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n' "$2"
    [ -z "${4:-}" ] || printf 'ENTRYPOINT ["/usr/local/bin/%s"]\n' "$4"
  } >"$folder/Containerfile"
  podman build -q --pull=never --timestamp 0 -t "$1" "$folder" >/dev/null
  images+=("$1")
}

# Kubernetes' own components under the names that kubeadm asks for.
pack_images() {
  local work registry=registry.k8s.io component
  local -a images=()
  work=$(mktemp -d -p "$TMPDIR")
  make_netbase "$work/netbase/root"
  printf 'FROM scratch\nCOPY root/ /\n' >"$work/netbase/Containerfile"
  podman build -q --timestamp 0 -t localhost/$NAME/netbase:1 "$work/netbase" >/dev/null
  for component in kube-apiserver kube-controller-manager kube-scheduler; do image $registry/$component:$KUBERNETES scratch $component; done
  image $registry/kube-proxy:$KUBERNETES localhost/$NAME/netbase:1 kube-proxy
  image $registry/etcd:3.6.5-0 scratch etcd
  image $registry/coredns/coredns:v1.12.1 scratch coredns coredns
  image $registry/pause:3.10.1 scratch pause pause
  image localhost/$NAME/cniagent:1 localhost/$NAME/netbase:1 cniagent cniagent
  rm -f "$cache/images.tar"
  podman save -q -m --format docker-archive -o "$cache/images.tar" "${images[@]}"
  podman rmi "${images[@]}" localhost/$NAME/netbase:1 >/dev/null
  rm -rf "$work"
}

build_images() {
  local wanted
  build_binaries
  build_root
  wanted=$(digest $modules ci/cluster/build.sh "=$KUBERNETES $ROOT_PACKAGES")
  if ! built images "$wanted" || [ ! -f "$cache/images.tar" ]; then
    timed "packing the container images" pack_images
    mark_built images "$wanted"
  fi
}

# systemd starts the journal and nothing else of Debian's.
quiet_systemd() { # ROOT
  rm -f "$1"/etc/systemd/system/*.wants/* "$1"/lib/systemd/system/{multi-user,local-fs,basic,sockets,sysinit,timers}.target.wants/*
  ln -sf ../systemd-journald.socket ../systemd-journald-dev-log.socket "$1/lib/systemd/system/sockets.target.wants/"
  mkdir -p "$1/etc/systemd/journald.conf.d"
  printf '[Journal]\nStorage=volatile\nReadKMsg=no\n' >"$1/etc/systemd/journald.conf.d/node.conf"
  chroot "$1" systemctl set-default -q multi-user.target
  chroot "$1" systemctl mask -q systemd-logind.service getty.target systemd-tmpfiles-clean.timer systemd-firstboot.service
}

# The images are imported by the node's own containerd, on a plain disk and uncompressed, so that no node has to do it when it starts.
import_images() { # ROOT
  install -D -m 644 "$here/node/containerd/config.toml" "$1/etc/containerd/config.toml"
  cp "$cache/images.tar" "$1/images.tar"
  cp "$here/node/import-images" "$1/import-images"
  unshare --mount --pid --fork --kill-child chroot "$1" /bin/sh /import-images ||
    fail "the node's containerd could not import the images (its message is above)" "It needs an overlay file system: $cache must be on a plain disk, not in another container's overlay."
  rm -f "$1/import-images" "$1/images.tar"
}

pack_node_base() {
  local node=$cache/noderoot base=localhost/$NAME/nodebase:$KUBERNETES
  rm -rf "$node"
  cp -a "$cache/root" "$node"
  install -m 755 -t "$node/usr/bin" "$bin/kubeadm" "$bin/kubelet" "$bin/kubectl"
  ln -sf /lib/systemd/systemd "$node/sbin/init"
  mkdir -p "$node"/{opt/cni,kind/manifests,etc/kubernetes/manifests,etc/cni/net.d,lib/modules}
  ln -sfn /usr/lib/cni "$node/opt/cni/bin"
  printf '%s\n' $KUBERNETES >"$node/kind/version" # kind asks for it
  : >"$node/etc/machine-id"
  rm -f "$node/var/lib/dbus/machine-id" "$node/etc/hostname"
  quiet_systemd "$node"
  import_images "$node"
  tar -C "$node" --numeric-owner -c . | podman import -q - $base >/dev/null
  rm -rf "$node"
}

pack_node() {
  local folder unit
  folder=$(mktemp -d -p "$TMPDIR")
  install -D -m 755 "$here/node/entrypoint" "$folder/root/usr/local/bin/entrypoint"
  install -D -m 755 "$here/node/kubelet-cgroups" "$folder/root/usr/local/lib/node/kubelet-cgroups"
  install -D -m 644 "$here/node/containerd/config.toml" "$folder/root/etc/containerd/config.toml"
  install -D -m 644 -t "$folder/root/etc/node/kubelet.conf.d" "$here"/node/kubelet/*.conf
  install -D -m 644 -t "$folder/root/kind/manifests" "$here"/node/manifests/*.yaml
  install -D -m 644 -t "$folder/root/etc/systemd/system" "$here"/node/units/*.service
  mkdir -p "$folder/root/etc/systemd/system/multi-user.target.wants"
  for unit in containerd kubelet; do ln -s ../$unit.service "$folder/root/etc/systemd/system/multi-user.target.wants/"; done
  cat >"$folder/Containerfile" <<CONTAINERFILE
FROM localhost/$NAME/nodebase:$KUBERNETES
COPY root/ /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
STOPSIGNAL SIGRTMIN+3
ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]
CONTAINERFILE
  podman build -q --format docker --pull=never -t $NODE_IMAGE "$folder" >/dev/null
  rm -rf "$folder"
}

build_node_image() {
  local base node
  build_images
  base=$(digest $modules ci/cluster/build.sh ci/cluster/node/containerd ci/cluster/node/import-images "=$KUBERNETES $ROOT_PACKAGES")
  if ! built nodebase "$base" || ! podman image exists localhost/$NAME/nodebase:$KUBERNETES; then
    timed "making the node image" pack_node_base
    podman image prune -f >/dev/null # the last one; never by force, which would remove the containers that use it
    mark_built nodebase "$base"
  fi
  node=$(digest ci/cluster/node "=$base")
  if ! built node "$node" || ! podman image exists $NODE_IMAGE; then
    pack_node
    mark_built node "$node"
  fi
}
