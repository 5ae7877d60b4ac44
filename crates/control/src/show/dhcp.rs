//! `trunkline ctl dhcp`.

use super::{align_right, duration, or_dash, render, table};
use crate::report::{Lease, Said};

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
        // Of what another server said nothing is known.
        let often = |of: fn(&Said) -> u64| {
            or_dash(lease.said.as_ref().map(of).map(|it| it.to_string()).as_deref())
        };
        let last = lease.last.as_ref().zip(lease.last_s);
        table.add_row([
            lease.vif.clone(),
            lease.network.clone(),
            lease.server.clone(),
            lease.mac.clone(),
            or_dash(Some(lease.addresses.join(" ")).filter(|it| !it.is_empty()).as_deref()),
            or_dash(lease.hostname.as_deref()),
            or_dash(lease.router.as_deref()),
            often(|said| said.offers),
            often(|said| said.acks),
            often(|said| said.naks),
            or_dash(last.map(|(what, ago)| format!("{what}, {}", when(ago))).as_deref()),
        ]);
    }
    render(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

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
            said: Some(Said { offers: 1, acks: 2, ..Said::default() }),
            last: Some("confirmed 10.0.0.3".into()),
            last_s: Some(5),
        };
        let other = Lease {
            vif: "vnet2".into(),
            server: "dnsmasq".into(),
            router: Some("10.0.0.5".into()),
            ..Lease::default()
        };
        let text = leases(&[lease, other]);
        let rows: Vec<&str> = text.lines().collect();
        assert!(
            rows[1]
                .trim_start()
                .starts_with("vnet1  tenant1  builtin  fa:16:3e:00:00:01  10.0.0.3"),
            "{text}"
        );
        assert!(rows[1].trim_end().ends_with("confirmed 10.0.0.3, 5 s ago"), "{text}");
        let last_of =
            |row: &str| row.split_whitespace().skip(2).map(str::to_owned).collect::<String>();
        assert!(last_of(rows[1]).contains("10.0.0.1120confirmed"), "{text}");
        assert!(last_of(rows[2]).ends_with("10.0.0.5----"), "{text}");
        assert_eq!(rows.len(), 3, "{text}");
    }
}
