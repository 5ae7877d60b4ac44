//! What OpenVPN is told, at either end.

use control::report::Vpn;

/// The server's configuration, for the instance; its files stand beside it. A client's frames are
/// bridged into the network, so its address is one of the network's.
pub(super) fn server(vpn: &Vpn) -> String {
    let Vpn { network, private_port, gateway, netmask, first_client, last_client, .. } = vpn;
    format!(
        "# VPN into network {network}, on its instance: openvpn --cd THIS-FOLDER --config server.conf
port {private_port}
proto udp4
dev-type tap
dev tap0
mode server
tls-server
server-bridge {gateway} {netmask} {first_client} {last_client}
ca ca.crt
cert server.crt
key server.key
tls-crypt tls-crypt.key
crl-verify crl.pem
dh none
remote-cert-tls client
data-ciphers AES-256-GCM:CHACHA20-POLY1305
tls-version-min 1.2
client-to-client
keepalive 10 60
persist-key
persist-tun
script-security 2
up ./up.sh
verb 3
"
    )
}

/// Puts the tap into the bridge that the instance's own interface is in.
pub(super) const UP: &str = "#!/bin/sh
# Called by openvpn with the tap's name. br0 has the instance's address, and its interface is in it.
ip link set \"$1\" master br0 up
";

/// A user's configuration, all in one file.
pub(super) fn client(vpn: &Vpn, keys: [(&str, &str); 4]) -> String {
    let inline: String =
        keys.map(|(name, text)| format!("<{name}>\n{}\n</{name}>\n", text.trim_end())).concat();
    format!(
        "# VPN into network {network}: openvpn --config THIS-FILE
client
dev tap
proto udp4
remote {address} {port}
nobind
persist-key
persist-tun
remote-cert-tls server
verify-x509-name server name
data-ciphers AES-256-GCM:CHACHA20-POLY1305
tls-version-min 1.2
verb 3
{inline}",
        network = vpn.network,
        address = vpn.public_address,
        port = vpn.public_port,
    )
}

/// A key that server and users share before they know each other, in OpenVPN's own format.
pub(super) fn static_key(random: &[u8; 256]) -> String {
    let lines: String = random
        .chunks(16)
        .map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + "\n")
        .collect();
    format!("-----BEGIN OpenVPN Static key V1-----\n{lines}-----END OpenVPN Static key V1-----\n")
}
