# shellcheck shell=bash
# A machine that is not ours: Debian's kernel and busybox in QEMU, on a tap. With 802.1Q and a tap of the switch it is
# a third party on the trunk, with a tap of the left node one more VM of trunkline.

readonly guest_cache=$top/target/guest
# In the order they are loaded: each after those it needs.
readonly guest_modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover
    virtio_net llc stp mrp garp 8021q bridge veth)
# What a whole lab of Linux nodes with real VLANs needs (tools/adopt-vlan), and trunkline on them; those they need
# themselves come along.
readonly lab_modules=(8021q bridge br_netfilter veth nf_conntrack_netlink iptable_filter iptable_nat iptable_mangle
    xt_nat xt_REDIRECT xt_CHECKSUM xt_conntrack xt_addrtype xt_multiport xt_tcpudp sch_ingress cls_bpf)

# Fetches and unpacks Debian's kernel, and packs the machine's files; again if what makes them has changed.
make_guest() {
    local package kernel made_by
    made_by=$(cat "$lab_d/guest.sh" "$lab_d/guest-init" | sha256sum)
    [[ ! -e $guest_cache/ready || $(<"$guest_cache/ready") != "$made_by" ]] || return 0
    rm -rf "$guest_cache"
    mkdir -p "$guest_cache/files/lib/modules" "$guest_cache/files/bin" "$guest_cache/files/sbin"
    package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    [[ -n $package ]] || die "apt knows no kernel: apt-get update"
    say "fetching $package"
    (cd "$guest_cache" && apt-get -qq -o APT::Sandbox::User=root download "$package" && dpkg-deb -x ./*.deb unpacked)
    kernel=("$guest_cache"/unpacked/boot/vmlinuz-*)
    cp "${kernel[0]}" "$guest_cache/vmlinuz"
    guest_files
    guest_lab_modules
    (cd "$guest_cache/files" && find . | cpio -o -H newc --quiet | gzip -1) >"$guest_cache/initrd"
    rm -rf "$guest_cache/unpacked" "$guest_cache/files" "$guest_cache/order" "$guest_cache"/*.deb
    echo "$made_by" >"$guest_cache/ready"
}

guest_files() {
    local module file
    for module in "${guest_modules[@]}"; do
        file=$(find "$guest_cache/unpacked" -name "$module.ko*")
        [[ -n $file ]] || continue # built in
        cp "$file" "$guest_cache/files/lib/modules/$module.ko"
        echo "$module" >>"$guest_cache/files/lib/modules/order"
    done
    cp "$lab_d/guest-init" "$guest_cache/files/init"
    cp "$(command -v busybox)" "$guest_cache/files/bin/busybox"
    ln -s busybox "$guest_cache/files/bin/sh"
    # busybox's own ip knows no namespaces, and it has no ethtool.
    guest_program ip
    guest_program ethtool
}

# Beside the machine's files, with the order in which they are loaded.
guest_lab_modules() {
    local unpacked=$guest_cache/unpacked version file into=$guest_cache/lab-modules
    version=$(basename "$unpacked"/lib/modules/*)
    depmod -b "$unpacked" "$version"
    mkdir -p "$into"
    modprobe -d "$unpacked" -S "$version" -a --show-depends --ignore-install "${lab_modules[@]}" >"$guest_cache/order"
    awk '/^insmod/ && !seen[$2]++ { print $2 }' "$guest_cache/order" | while read -r file; do
        cp "$file" "$into/"
        basename "$file" >>"$into/order"
    done
}

guest_program() { # name
    cp "$(readlink -f "$(command -v "$1")")" "$guest_cache/files/sbin/$1"
    take_libraries "$guest_cache/files" "$(command -v "$1")"
}

# Copies the libraries that a program needs, if it needs any, to where they are on this machine.
take_libraries() { # folder program
    local library
    { ldd "$2" 2>/dev/null || true; } | { grep -oE '/[^ ]+' || true; } | while read -r library; do
        mkdir -p "$1$(dirname "$library")"
        cp -L "$library" "$1$library"
    done
}

guest_up() { # nova|router|vm
    local role=${1:-} words tap
    [[ $role == nova || $role == router || $role == vm ]] || die "guest nova, guest router or guest vm"
    [[ -e $run/kind ]] || die "the guest joins a lab: tools/lab up"
    ! guest_pid >/dev/null || die "there is a guest already"
    make_guest
    if [[ $role == vm ]]; then
        guest_becomes_vm
        words="address=${vm_address[$guest_vm]}/24 gateway=$(vm_gateway "$guest_vm")"
        boot_guest left "$guest_vif" "${vm_mac[$guest_vm]}" "role=vm $words"
    else
        tap=guest-eth0
        guest_tap switch "$tap"
        ip -n tl-switch link set "$tap" master trunk
        boot_guest switch "$tap" fa:16:3e:00:00:99 "role=$role"
    fi
}

# Its interface and its entry in the left node's file, as nova would make them.
guest_becomes_vm() {
    local dataplane manager
    read -r dataplane manager <"$run/kind"
    [[ $dataplane == trunkline ]] || die "guest vm: trunkline's VM, and no trunkline runs here"
    lay_out "$manager"
    guest_tap left "$guest_vif"
    grep -q "\"$guest_vif\"" "$run/left.toml" || write_vif "$guest_vif" "$guest_vm" >>"$run/left.toml"
    "$trunkline" ctl --node left reload >/dev/null
}

guest_tap() { # namespace interface
    ip -n "tl-$1" link show "$2" >/dev/null 2>&1 || in_ns "$1" ip tuntap add "$2" mode tap
    ip -n "tl-$1" link set "$2" up
}

boot_guest() { # namespace tap MAC words-for-its-init
    local tries
    rm -f "$run/guest.in"
    mkfifo "$run/guest.in"
    : >"$run/guest.log" # it is looked into before there is a QEMU that writes it
    # Somebody has to hold the fifo open, or its first reader waits for a writer.
    setsid nsenter --net="/run/netns/tl-$1" -- qemu-system-x86_64 -accel tcg -m 192 -nographic -no-reboot \
        -monitor none -serial stdio -kernel "$guest_cache/vmlinuz" -initrd "$guest_cache/initrd" \
        -append "console=ttyS0 quiet panic=-1 $4" \
        -nic "tap,ifname=$2,script=no,downscript=no,model=virtio-net-pci,mac=$3" \
        <>"$run/guest.in" >"$run/guest.log" 2>&1 &
    echo $! >"$run/guest.pid"
    disown
    for ((tries = 0; tries < 600; tries++)); do
        ! grep -q 'guest ready' "$run/guest.log" || return 0
        # Just started it is this shell's child still, under this shell's name.
        kill -0 "$(<"$run/guest.pid")" 2>/dev/null || break
        sleep 0.1
    done
    tail -n 20 "$run/guest.log" >&2
    guest_down
    die "the guest did not come up within a minute"
}

guest_pid() { # prints its pid, fails if it does not run
    local pid
    [[ -r $run/guest.pid ]] && pid=$(<"$run/guest.pid") && [[ -n $pid ]] || return 1
    [[ $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") == *qemu*guest/initrd*role=* ]] || return 1
    echo "$pid"
}

# Runs a command in the guest: a line down its console, what it prints and its status up again.
guest_exec() { # command…
    local token=done-$$-$RANDOM from said status tries
    (($#)) || die "exec guest what?"
    guest_pid >/dev/null || die "no guest runs: tools/lab guest"
    exec {lock}>"$run/guest.lock"
    flock "$lock" # its shell does one thing at a time, and so its log says one thing at a time
    from=$(stat -c %s "$run/guest.log")
    printf '%s %s\n' "$token" "${*@Q}" >"$run/guest.in"
    for ((tries = 0; tries < 1200; tries++)); do
        said=$(tail -c "+$((from + 1))" "$run/guest.log")
        status=$(sed -n "s/^$token \([0-9]*\)$/\1/p" <<<"$said")
        if [[ -n $status ]]; then
            said=${said%"$token"*}
            said=${said%$'\n'} # ours, before the token
            printf '%s' "$said"
            return "$status"
        fi
        sleep 0.05
    done
    die "the guest did not answer within a minute"
}

guest_down() {
    local pid
    pid=$(guest_pid) || return 0
    kill -KILL "$pid" 2>/dev/null || true
}
