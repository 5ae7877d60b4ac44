# shellcheck shell=bash
# `--dataplane trunkline`: a daemon on each node, its configuration, its start and its end.

readonly bpffs=/sys/fs/bpf

write_config() { # node manager, with the caller's mtu and groups
    local node=$1 manager=$2 name n
    cat <<TOML
# Written by tools/lab.
node = "$node"
network_manager = "$manager"
public_interface = "eth1"
routing_source_ip = "${public_address[$node]}"
TOML
    if [[ $manager == vlan ]]; then
        echo 'vlan_interface = "eth0"'
    else
        echo 'flat_interface = "eth0"'
        echo "flat_network_bridge = \"${bridge[${segments[0]}]}\""
    fi
    for name in "${segments[@]}"; do
        printf '\n[[network]]\nname = "%s"\n' "$name"
        [[ -z ${vlan[$name]} ]] || echo "vlan = ${vlan[$name]}"
        echo "cidr = \"${cidr[$name]}\""
        echo "mtu = $mtu"
        # FlatManager configures no address anywhere.
        [[ $manager == flat ]] || echo "gateway = \"${gateway["$node $name"]}\""
    done
    for n in "${vms[@]}"; do
        [[ ${vm_node[$n]} == "$node" ]] || continue
        write_vif "vnet$n" "$n"
    done
    write_groups
    # FlatManager knows no floating addresses either.
    [[ $manager != flat ]] || return 0
    for n in "${vms[@]}"; do
        [[ ${vm_node[$n]} == "$node" && -n ${floating[$n]:-} ]] || continue
        printf '\n[[floating_ip]]\naddress = "%s"\nfixed = "%s"\n' "${floating[$n]}" "${vm_address[$n]}"
    done
}

# The groups of VMs, with the caller's groups: that of those who name none, or nova's of each tenant.
write_groups() {
    local name other
    if [[ $groups == nova ]]; then
        for name in "${segments[@]}"; do
            printf '\n[[security_group]]\nname = "%s"\nrules = [\n' "$name"
            echo '    { protocol = "icmp" },'
            echo '    { protocol = "tcp", ports = "22" },'
            for other in "${segments[@]}"; do
                [[ $other != "$name" ]] || continue
                echo "    { protocol = \"tcp\", ports = \"1-65535\", cidr = \"${cidr[$other]}\" },"
            done
            echo ']'
        done
        return
    fi
    printf '\n[[security_group]]\nname = "default"\n'
    if [[ $groups == open ]]; then echo 'rules = [{}]'; else many_rules "$groups"; fi
}

# Rules of random ports, prefixes and members; the last 129 let everything in, in parts, because one for all ports would
# leave nothing to the others.
many_rules() { # how many
    awk -v count="$1" 'BEGIN {
        srand(1)
        print "rules = ["
        for (n = 129; n < count; n++) {
            first = 1 + int(rand() * 65535); last = first + int(rand() * (65536 - first))
            from = sprintf("cidr = \"10.%d.%d.0/24\"", rand() * 256, rand() * 256)
            if (n % 10 == 0) from = "group = \"many\""
            printf "    { protocol = \"%s\", ports = \"%d-%d\", %s },\n", n % 3 ? "tcp" : "udp", first, last, from
        }
        for (n = 0; n < 65536; n += 1024)
            for (udp = 0; udp < 2; udp++)
                printf "    { protocol = \"%s\", ports = \"%d-%d\" },\n", udp ? "udp" : "tcp", n ? n : 1, n + 1023
        print "    { protocol = \"icmp\" },\n]\n\n[[security_group]]\nname = \"many\"\nmembers = ["
        for (n = 0; n < 4096; n++) printf "    \"172.16.%d.%d\",\n", int(n / 256), n % 256
        print "]"
    }'
}

write_vif() { # interface VM, with the caller's groups
    printf '\n[[vif]]\nname = "%s"\nnetwork = "%s"\nmac = "%s"\naddresses = ["%s"]\n' \
        "$1" "${vm_segment[$2]}" "${vm_mac[$2]}" "${vm_address[$2]}"
    if [[ ${groups:-open} == nova ]]; then echo "groups = [\"${vm_segment[$2]}\"]"; fi
}

need_bpffs() {
    mountpoint -q "$bpffs" && return
    say "mounting bpffs at $bpffs"
    mount -t bpf bpf "$bpffs"
}

start_daemon() { # node flag…
    local node=$1
    shift
    # A session of its own: ^C at the terminal where the lab was built is not meant for it.
    setsid nsenter --net="/run/netns/tl-$node" -- \
        "$trunkline" run --node "$node" --config "$run/$node.toml" "$@" >>"$run/$node.log" 2>&1 </dev/null &
    echo $! >"$run/$node.pid"
    disown # bash need not report how it ends
}

daemon_pid() { # node: prints its pid, fails if it does not run
    local pid words
    [[ -r $run/$1.pid ]] && pid=$(<"$run/$1.pid") && [[ -n $pid ]] || return 1
    # The number may belong to somebody else by now.
    mapfile -d '' -t words 2>/dev/null <"/proc/$pid/cmdline" || return 1
    [[ "${words[*]} " == *trunkline*"--node $1 "* ]] || return 1
    echo "$pid"
}

# Prints nothing and fails as long as the daemon does not say `"ready": true`. Another may say so, whose place it takes.
daemon_ready() { # node
    timeout 5 "$trunkline" ctl --node "$1" status --json 2>/dev/null |
        jq -e --argjson pid "$(<"$run/$1.pid")" '.ready and .pid == $pid' >/dev/null 2>&1
}

await_daemon() { # node
    local node=$1 deadline=$((SECONDS + 20))
    while true; do
        # Just started it may be this shell's child still, before setsid and nsenter made it the daemon.
        if ! daemon_pid "$node" >/dev/null && ! kill -0 "$(<"$run/$node.pid")" 2>/dev/null; then
            show_log "$node"
            die "trunkline on $node ended before it was ready"
        elif daemon_ready "$node"; then
            return
        elif ((SECONDS >= deadline)); then
            show_log "$node"
            die "trunkline on $node was not ready within 20 s"
        fi
        sleep 0.03
    done
}

show_log() { # node
    echo "--- log of trunkline on $1 ---" >&2
    tail -n 60 "$run/$1.log" >&2 || true
    echo "------------------------------" >&2
}

stop_daemon() { # node
    local pid signal tries
    for signal in TERM KILL; do
        pid=$(daemon_pid "$1") || return 0
        [[ $signal == TERM ]] || say "trunkline on $1 (pid $pid) ignores SIGTERM, killing it"
        kill -s "$signal" "$pid" 2>/dev/null || return 0
        for ((tries = 0; tries < 250; tries++)); do
            daemon_pid "$1" >/dev/null || return 0
            sleep 0.02
        done
    done
}

# Takes back what a daemon leaves on purpose: programs, pins, the punt link, NIC settings.
detach_node() { # node
    if has_ns "$1" && [[ -x $trunkline && ( -e $run/$1.log || -e $bpffs/trunkline/$1 ) ]]; then
        in_ns "$1" timeout 10 "$trunkline" detach --node "$1" >/dev/null ||
            say "trunkline detach --node $1 failed; its namespace and pins go all the same"
    fi
    rm -rf "$bpffs/trunkline/$1"
    rm -rf "/run/trunkline/$1"
    rm -f "/run/trunkline/$1.sock" "/run/trunkline/$1.json" "/run/trunkline/$1.adopted.json"
}
