# shellcheck shell=bash
# The lab's cables: namespaces, two switches, veth pairs, addresses. No dataplane yet.
#
# To start a program takes longer than what it does here. So all is noted first, and `carry_out` does it: the cables at
# once, then in each namespace what there is to do. Every interface is born inside a namespace of the lab, so that no
# mistake here can reach one of the machine's.
cables=""
declare -A settings links # namespace -> commands, of any program and of ip

in_ns() { # namespace-without-tl- command…
    # Not `ip netns exec`: that mounts a sysfs of its own, which hides /sys/fs/bpf.
    nsenter --net="/run/netns/tl-$1" -- "${@:2}"
}

has_ns() { [[ -e /run/netns/tl-$1 ]]; }

set_in() { settings[$1]+="${*:2}"$'\n'; } # namespace command…
link_in() { links[$1]+="${*:2}"$'\n'; } # namespace command of ip…

carry_out() {
    local ns
    [[ -z $cables ]] || ip -n tl-switch -batch - <<<"$cables"
    for ns in "${!settings[@]}"; do in_ns "$ns" bash -ec "${settings[$ns]}"; done
    # After that, everywhere: when a veth goes up it looks what its other end is set to.
    for ns in "${!links[@]}"; do ip -n "tl-$ns" -batch - <<<"${links[$ns]}"; done
    cables="" settings=() links=()
}

cable() { # namespace interface namespace interface [MAC of the second], with cable_mtu
    local mtu=${cable_mtu:-1500}
    cables+="link add $2 netns tl-$1 mtu $mtu type veth peer name $4 netns tl-$3 mtu $mtu ${5:+address $5}"$'\n'
    # GRO puts the end into NAPI mode: without it a veth drops, silently, whatever XDP redirects into it.
    set_in "$1" ethtool -K "$2" gro on
    set_in "$3" ethtool -K "$4" gro on
    link_in "$1" link set "$2" up
    link_in "$3" link set "$4" up
}

# For the end of a cable that faces an XDP program: what it sends must be a finished frame, the checksum and the tag
# in the bytes, for an XDP program sees nothing else.
finish_frames() { # namespace interface
    set_in "$1" ethtool -K "$2" tx off txvlan off tx-vlan-stag-hw-insert off
}

make_namespaces() {
    local ns quiet
    printf 'netns add tl-%s\n' "${namespaces[@]}" | ip -batch -
    for ns in "${namespaces[@]}"; do
        # VMs speak IPv6 among themselves (link-local only, nobody advertises a prefix); the rest stays quiet.
        quiet="net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.default.disable_ipv6=1"
        if [[ $ns == vm* ]]; then
            quiet=$(echo net.ipv6.conf.{default,eth0}.{accept_ra,autoconf,router_solicitations,accept_dad}=0)
        fi
        set_in "$ns" sysctl -qw "$quiet"
        link_in "$ns" link set lo up
    done
}

make_switch() { # bridge…
    local bridge_name
    for bridge_name; do
        # Neither spanning tree nor snooping nor VLAN filtering: tagged frames go through as they come.
        link_in switch link add "$bridge_name" type bridge stp_state 0 forward_delay 0 mcast_snooping 0
        link_in switch link set "$bridge_name" up
    done
    # A switch has no firewall.
    bridge_netfilter switch 0
}

bridge_netfilter() { # namespace 0|1
    set_in "$1" "[[ ! -e /proc/sys/net/bridge ]] ||" sysctl -qw "net.bridge.bridge-nf-call-iptables=$2" \
        net.bridge.bridge-nf-call-ip6tables=0 net.bridge.bridge-nf-call-arptables=0
}

plug() { # node interface bridge: a cable from the node to a bridge of the switch
    cable switch "$1-$2" "$1" "$2"
    link_in switch link set "$1-$2" master "$3"
}

make_upstream() {
    plug inet eth0 public
    link_in inet addr add "$upstream/$public_prefix" brd + dev eth0
    link_in inet addr add "$far_away/32" dev lo
    link_in inet route add "$floating_net" dev eth0
    # It routes between floating addresses, and does not send nodes on short cuts around it.
    set_in inet sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0
}

make_public() {
    local node
    for node in "${nodes[@]}"; do
        plug "$node" eth1 public
        link_in "$node" addr add "${public_address[$node]}/$public_prefix" brd + dev eth1
        link_in "$node" route add default via "$upstream"
    done
}

make_vms() { # with the caller's mtu and bare
    local n
    for n in "${vms[@]}"; do
        cable_mtu=$mtu cable "${vm_node[$n]}" "vnet$n" "vm$n" eth0 "${vm_mac[$n]}"
        [[ $bare == no ]] || continue
        link_in "vm$n" addr add "${vm_address[$n]}/24" brd + dev eth0
        link_in "vm$n" route add default via "$(vm_gateway "$n")"
    done
}
