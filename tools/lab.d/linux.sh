# shellcheck shell=bash
# `--dataplane linux`: the two nodes as nova-network built them, from bridges and iptables.
#
# There need not be an 8021q module, so a VLAN is a cable of its own here: eth0.100 of a node ends in bridge
# trunk.100 of the switch. Everything above the tag is as nova had it. With --tagged all of it is: vlan100 on eth0.

linux_trunks() { # with the caller's mtu and tagged
    local name node uplink
    if [[ $tagged == yes ]]; then
        for node in "${nodes[@]}"; do cable_mtu=$mtu plug "$node" eth0 trunk; done
        return
    fi
    for name in "${segments[@]}"; do
        uplink=$(linux_uplink "$name")
        [[ $uplink == eth0 ]] || make_switch "trunk.${vlan[$name]}"
        for node in "${nodes[@]}"; do
            cable_mtu=$mtu plug "$node" "$uplink" "trunk${uplink#eth0}"
        done
    done
}

linux_uplink() { # segment, with the caller's tagged
    if [[ $tagged == yes && -n ${vlan[$1]} ]]; then
        echo "vlan${vlan[$1]}"
    else
        echo "eth0${vlan[$1]:+.${vlan[$1]}}"
    fi
}

linux_node() { # node manager, with the caller's tagged; its cables are there
    local node=$1 manager=$2 name uplink mac n
    for name in "${segments[@]}"; do
        uplink=$(linux_uplink "$name")
        if [[ $uplink == vlan* ]]; then
            link_in "$node" link add link eth0 name "$uplink" type vlan id "${vlan[$name]}"
            link_in "$node" link set "$uplink" up
        fi
        mac=$(ip -n "tl-$node" -j link show "${uplink/#vlan*/eth0}" | jq -r '.[0].address')
        # The bridge wears its uplink's MAC, as nova's did since Liberty; else it would change with every VM.
        link_in "$node" link add "${bridge[$name]}" address "$mac" type bridge stp_state 0 forward_delay 0
        link_in "$node" link set "$uplink" master "${bridge[$name]}"
        link_in "$node" link set "${bridge[$name]}" up
        # FlatManager configures no address anywhere.
        if [[ $manager != flat ]]; then
            link_in "$node" addr add "${gateway["$node $name"]}/24" brd + dev "${bridge[$name]}"
        fi
    done
    for n in "${vms[@]}"; do
        [[ ${vm_node[$n]} == "$node" ]] || continue
        link_in "$node" link set "vnet$n" master "${bridge[${vm_segment[$n]}]}"
        # nova switched hairpin on for every VM, so that one reaches itself by its floating address.
        link_in "$node" link set "vnet$n" type bridge_slave hairpin on
        if [[ $manager != flat && -n ${floating[$n]:-} ]]; then
            link_in "$node" addr add "${floating[$n]}/32" dev eth1
        fi
    done
    [[ $manager == flat ]] || set_in "$node" sysctl -qw net.ipv4.ip_forward=1
    bridge_netfilter "$node" 1
}

linux_firewall() { # node manager, with the caller's walls
    local node=$1 manager=$2
    # nova wrote for the iptables of its time, which is called legacy today.
    "$lab_d/linux-rules" "$node" "$manager" | in_ns "$node" iptables-legacy-restore
    # Its ebtables are called nft.
    [[ $walls == no ]] || "$lab_d/linux-walls" "$node" "$manager" | in_ns "$node" ebtables-nft-restore
}

# Security groups between VMs of one network need bridged packets to pass iptables.
need_br_netfilter() {
    if [[ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]]; then return; fi
    say "loading br_netfilter, and keeping it away from the machine's own bridges"
    modprobe br_netfilter || die "this kernel has no br_netfilter"
    sysctl -qw net.bridge.bridge-nf-call-iptables=0 net.bridge.bridge-nf-call-ip6tables=0 \
        net.bridge.bridge-nf-call-arptables=0
}
