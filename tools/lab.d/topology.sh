# shellcheck shell=bash
# The lab's cables: namespaces, two switches, veth pairs, addresses. No dataplane yet.
#
# Every interface is born inside a namespace of the lab, so that no mistake here can reach one of the machine's.

in_ns() { # namespace-without-tl- command…
    # Not `ip netns exec`: that mounts a sysfs of its own, which hides /sys/fs/bpf.
    nsenter --net="/run/netns/tl-$1" -- "${@:2}"
}

has_ns() { [[ -e /run/netns/tl-$1 ]]; }

cable() { # namespace interface namespace interface [MAC of the second], with cable_mtu
    local mtu=${cable_mtu:-1500}
    ip -n "tl-$1" link add "$2" mtu "$mtu" type veth peer name "$4" mtu "$mtu" netns "tl-$3" ${5:+address "$5"}
    # GRO puts the end into NAPI mode: without it a veth drops, silently, whatever XDP redirects into it.
    in_ns "$1" ethtool -K "$2" gro on
    in_ns "$3" ethtool -K "$4" gro on
    ip -n "tl-$1" link set "$2" up
    ip -n "tl-$3" link set "$4" up
}

# For the end of a cable that faces an XDP program: what it sends must be a finished frame, the checksum and the tag
# in the bytes, for an XDP program sees nothing else.
finish_frames() { # namespace interface
    in_ns "$1" ethtool -K "$2" tx off txvlan off tx-vlan-stag-hw-insert off >/dev/null
}

make_namespaces() {
    local ns
    for ns in "${namespaces[@]}"; do
        ip netns add "tl-$ns"
        ip -n "tl-$ns" link set lo up
        # VMs speak IPv6 among themselves (link-local only, nobody advertises a prefix); the rest stays quiet.
        if [[ $ns == vm* ]]; then
            in_ns "$ns" sysctl -qw net.ipv6.conf.default.accept_ra=0 net.ipv6.conf.default.autoconf=0 \
                net.ipv6.conf.default.router_solicitations=0 net.ipv6.conf.default.accept_dad=0
        else
            in_ns "$ns" sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1
        fi
    done
}

make_switch() { # bridge…
    local bridge_name
    for bridge_name; do
        # Neither spanning tree nor snooping nor VLAN filtering: tagged frames go through as they come.
        ip -n tl-switch link add "$bridge_name" type bridge stp_state 0 forward_delay 0 mcast_snooping 0
        ip -n tl-switch link set "$bridge_name" up
    done
    # A switch has no firewall.
    bridge_netfilter switch 0
}

bridge_netfilter() { # namespace 0|1
    if in_ns "$1" test -e /proc/sys/net/bridge; then
        in_ns "$1" sysctl -qw "net.bridge.bridge-nf-call-iptables=$2" "net.bridge.bridge-nf-call-ip6tables=0" \
            "net.bridge.bridge-nf-call-arptables=0"
    fi
}

plug() { # node interface bridge: a cable from the node to a bridge of the switch
    cable switch "$1-$2" "$1" "$2"
    ip -n tl-switch link set "$1-$2" master "$3"
}

make_upstream() {
    plug inet eth0 public
    ip -n tl-inet addr add "$upstream/$public_prefix" brd + dev eth0
    ip -n tl-inet addr add "$far_away/32" dev lo
    ip -n tl-inet route add "$floating_net" dev eth0
    # It routes between floating addresses, and does not send nodes on short cuts around it.
    in_ns inet sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0
}

make_public() {
    local node
    for node in "${nodes[@]}"; do
        plug "$node" eth1 public
        ip -n "tl-$node" addr add "${public_address[$node]}/$public_prefix" brd + dev eth1
        ip -n "tl-$node" route add default via "$upstream"
    done
}

make_vms() { # with the caller's mtu and bare
    local n node
    for n in "${vms[@]}"; do
        node=$(vm_node "$n")
        cable_mtu=$mtu cable "$node" "vnet$n" "vm$n" eth0 "$(vm_mac "$n")"
        [[ $bare == no ]] || continue
        ip -n "tl-vm$n" addr add "${vm_address[$n]}/24" brd + dev eth0
        ip -n "tl-vm$n" route add default via "$(vm_gateway "$n")"
    done
}
