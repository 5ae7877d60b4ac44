# shellcheck shell=bash
# A third party on the trunk that is not ours: Debian's kernel with 8021q, in QEMU, on a tap of the switch.

readonly guest_cache=$top/target/guest
readonly guest_tap=guest-eth0
# In the order they are loaded: each after those it needs.
readonly guest_modules=(virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci failover net_failover
    virtio_net llc stp mrp garp 8021q bridge veth)

# Fetches and unpacks Debian's kernel, and packs the machine's files; once.
make_guest() {
    local package kernel
    [[ ! -e $guest_cache/ready ]] || return 0
    rm -rf "$guest_cache"
    mkdir -p "$guest_cache/files/lib/modules" "$guest_cache/files/bin" "$guest_cache/files/sbin"
    package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ { print $2; exit }')
    [[ -n $package ]] || die "apt knows no kernel: apt-get update"
    say "fetching $package"
    (cd "$guest_cache" && apt-get -qq -o APT::Sandbox::User=root download "$package" && dpkg-deb -x ./*.deb unpacked)
    kernel=("$guest_cache"/unpacked/boot/vmlinuz-*)
    cp "${kernel[0]}" "$guest_cache/vmlinuz"
    guest_files
    (cd "$guest_cache/files" && find . | cpio -o -H newc --quiet | gzip -1) >"$guest_cache/initrd"
    rm -rf "$guest_cache/unpacked" "$guest_cache/files" "$guest_cache"/*.deb
    touch "$guest_cache/ready"
}

guest_files() {
    local module file library
    for module in "${guest_modules[@]}"; do
        file=$(find "$guest_cache/unpacked" -name "$module.ko*")
        [[ -n $file ]] || continue # built in
        cp "$file" "$guest_cache/files/lib/modules/$module.ko"
        echo "$module" >>"$guest_cache/files/lib/modules/order"
    done
    cp "$lab_d/guest-init" "$guest_cache/files/init"
    cp "$(command -v busybox)" "$guest_cache/files/bin/busybox"
    ln -s busybox "$guest_cache/files/bin/sh"
    # busybox's own ip knows no namespaces.
    cp "$(readlink -f "$(command -v ip)")" "$guest_cache/files/sbin/ip"
    ldd "$(command -v ip)" | grep -oE '/[^ ]+' | while read -r library; do
        mkdir -p "$guest_cache/files$(dirname "$library")"
        cp -L "$library" "$guest_cache/files$library"
    done
}

guest_up() { # nova|router
    local tries
    [[ ${1:-} == nova || ${1:-} == router ]] || die "guest nova or guest router"
    has_ns switch || die "the guest joins a lab: tools/lab up"
    ! guest_pid >/dev/null || die "there is a guest already"
    make_guest
    in_ns switch ip tuntap add "$guest_tap" mode tap
    ip -n tl-switch link set "$guest_tap" master trunk up
    mkfifo "$run/guest.in"
    # Somebody has to hold the fifo open, or its first reader waits for a writer.
    setsid nsenter --net=/run/netns/tl-switch -- qemu-system-x86_64 -accel tcg -m 192 -nographic -no-reboot \
        -monitor none -serial stdio -kernel "$guest_cache/vmlinuz" -initrd "$guest_cache/initrd" \
        -append "console=ttyS0 quiet panic=-1 role=$1" \
        -nic "tap,ifname=$guest_tap,script=no,downscript=no,model=virtio-net-pci,mac=fa:16:3e:00:00:99" \
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
    [[ $(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") == *"$guest_tap"* ]] || return 1
    echo "$pid"
}

guest_down() {
    local pid
    pid=$(guest_pid) || return 0
    kill -KILL "$pid" 2>/dev/null || true
}
