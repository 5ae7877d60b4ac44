# shellcheck shell=bash
# shellcheck disable=SC2034  # the files that source this one use these names
# The lab on paper: who is called what, who owns which address, where everybody is plugged in.

readonly nodes=(left right)
readonly vms=(1 2 3 4 5 6)
# The VM in QEMU, which joins the left node later, on a tap.
readonly guest_vm=7 guest_vif=tap7
readonly namespaces=(switch inet left right vm1 vm2 vm3 vm4 vm5 vm6) # each with tl- in front

readonly -A public_address=([left]=91.207.15.105 [right]=91.207.15.106)
readonly public_prefix=24 upstream=91.207.15.1
readonly floating_net=91.208.23.0/24 far_away=8.8.8.8
# By VM.
readonly -A floating=([1]=91.208.23.11 [6]=91.208.23.16)
readonly vm_node=(- left left left right right right left)
readonly vm_mac=(- fa:16:3e:00:00:0{1..7})

# Filled by `lay_out`. `segments` is in order; the others are keyed by segment, "node segment" or VM.
segments=()
declare -A vlan cidr bridge gateway vm_segment vm_address

vm_gateway() { echo "${gateway["${vm_node[$1]} ${vm_segment[$1]}"]}"; }

segment() { # name vlan cidr bridge left-gateway right-gateway
    segments+=("$1")
    vlan[$1]=$2 cidr[$1]=$3 bridge[$1]=$4 gateway["left $1"]=$5 gateway["right $1"]=$6
}

# Every node is the same gateway, as with share_dhcp_address.
share_gateways() {
    local name
    for name in "${segments[@]}"; do gateway["right $name"]=${gateway["left $name"]}; done
}

vm() { # number segment address
    vm_segment[$1]=$2 vm_address[$1]=$3
}

lay_out() { # vlan | flat | flatdhcp
    segments=()
    case $1 in
    vlan)
        segment tenant1 100 10.0.0.0/24 br100 10.0.0.1 10.0.0.5
        segment tenant2 102 10.1.0.0/24 br102 10.1.0.1 10.1.0.5
        vm 1 tenant1 10.0.0.3
        vm 2 tenant1 10.0.0.4
        vm 3 tenant2 10.1.0.3
        vm 4 tenant1 10.0.0.6
        vm 5 tenant1 10.0.0.7
        vm 6 tenant2 10.1.0.4
        vm $guest_vm tenant1 10.0.0.8
        ;;
    flat | flatdhcp)
        segment shared '' 10.0.0.0/24 br100 10.0.0.1 10.0.0.5
        vm 1 shared 10.0.0.3
        vm 2 shared 10.0.0.4
        vm 3 shared 10.0.0.8
        vm 4 shared 10.0.0.6
        vm 5 shared 10.0.0.7
        vm 6 shared 10.0.0.9
        vm $guest_vm shared 10.0.0.10
        ;;
    *) die "network manager '$1': the lab knows vlan, flat and flatdhcp" ;;
    esac
}
