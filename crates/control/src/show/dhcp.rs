//! `trunkline ctl dhcp`.

use super::{align_right, duration, or_dash, render, table};
use crate::report::Lease;

/// What every VM is told, and what was said to it.
#[must_use]
pub fn leases(leases: &[Lease]) -> String {
    let mut table = table(&[
        "VIF",
        "NETWORK",
        "SERVER",
        "MAC",
        "ADDRESSES",
        "HOST NAME",
        "ROUTER",
        "OFFERS",
        "ACKS",
        "NAKS",
        "LAST",
    ]);
    align_right(&mut table, &[7, 8, 9]);
    for lease in leases {
        let when = |seconds: u64| format!("{} ago", duration(seconds));
        let last = lease.last.as_ref().zip(lease.last_s);
        table.add_row([
            lease.vif.clone(),
            lease.network.clone(),
            lease.server.clone(),
            lease.mac.clone(),
            or_dash(Some(lease.addresses.join(" ")).filter(|it| !it.is_empty()).as_deref()),
            or_dash(lease.hostname.as_deref()),
            or_dash(lease.router.as_deref()),
            lease.said.offers.to_string(),
            lease.said.acks.to_string(),
            lease.said.naks.to_string(),
            or_dash(last.map(|(what, ago)| format!("{what}, {}", when(ago))).as_deref()),
        ]);
    }
    render(&table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Said;

    #[test]
    fn a_lease_is_a_row_with_what_was_said_last() {
        let lease = Lease {
            vif: "vnet1".into(),
            network: "tenant1".into(),
            server: "builtin".into(),
            mac: "fa:16:3e:00:00:01".into(),
            addresses: vec!["10.0.0.3".into()],
            hostname: Some("host-10-0-0-3".into()),
            router: Some("10.0.0.1".into()),
            said: Said { offers: 1, acks: 2, ..Said::default() },
            last: Some("confirmed 10.0.0.3".into()),
            last_s: Some(5),
        };
        let text = leases(&[lease, Lease { vif: "vnet2".into(), ..Lease::default() }]);
        let rows: Vec<&str> = text.lines().collect();
        assert!(
            rows[1]
                .trim_start()
                .starts_with("vnet1  tenant1  builtin  fa:16:3e:00:00:01  10.0.0.3"),
            "{text}"
        );
        assert!(rows[1].trim_end().ends_with("confirmed 10.0.0.3, 5 s ago"), "{text}");
        assert_eq!(rows.len(), 3, "{text}");
    }
}
