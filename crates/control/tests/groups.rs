//! Security groups in the file: what they mean, and what is said when they are wrong.
#![allow(clippy::unwrap_used)] // also in the functions that tests share

mod file;

use control::flags::{FirewallDriver, Flags};
use control::model::Model;
use file::*;
use tables::{Origin, Rule};

fn flags() -> Flags {
    Flags { node: Some("left".into()), ..Flags::default() }
}

fn model(text: &str) -> Model {
    Model::from_text(&flags(), "left.toml", text).unwrap()
}

/// What is said of a group with this rule, in line 34 of the file.
fn rule(words: &str) -> String {
    add(&format!("[[security_group]]\nname = \"web\"\nrules = [{words}]\n"))
}

#[test]
fn a_group_means_what_it_says() {
    let text = format!(
        "{}\n[[security_group]]\nname = \"web\"\nmembers = [\"10.1.0.9\"]\nrules = [\n\
         {{ protocol = \"tcp\", ports = \"80\" }},\n{{ protocol = \"UDP\", ports = \"1-65535\", cidr = \
         \"10.1.0.0/24\" }},\n{{ protocol = \"icmp\", type = 8, code = 0 }},\n{{ group = \"web\" }},\n\
         {{}},\n]\n",
        LEFT.replace(
            "addresses = [\"10.0.0.3\"]",
            "addresses = [\"10.0.0.3\"]\ngroups = [\"web\"]"
        )
    );
    let security = model(&text).security;
    let [web, default] = &security.groups[..] else { panic!("{security:?}") };
    let from = |net: &str| Origin::Prefix(net.parse().unwrap());
    let expected = [
        (Some(6), 80, 80, Origin::ANYBODY),
        (Some(17), 1, 65535, from("10.1.0.0/24")),
        (Some(1), 8 << 8, 8 << 8, Origin::ANYBODY),
        (None, 0, 65535, Origin::Members(0)),
        (None, 0, 65535, Origin::ANYBODY),
    ];
    let expected =
        expected.map(|(protocol, first, last, from)| Rule { protocol, first, last, from });
    assert_eq!(web.rules, expected);
    let member = |address: &str| ("default".to_owned(), address.parse().unwrap());
    let members = ["10.0.0.3", "10.1.0.9", "fe80::f816:3eff:fe00:1"].map(member);
    assert_eq!(web.members, members);
    assert_eq!((default.name.as_str(), default.rules.len()), ("default", 0));
    assert!(security.stands && security.same_net && security.revoke);
    let servers = |address: [u8; 4]| vec![std::net::Ipv4Addr::from(address)];
    assert_eq!(security.dhcp_servers, [servers([10, 0, 0, 1]), servers([10, 1, 0, 1])]);
    let vifs: Vec<_> = model(&text).vifs.into_iter().map(|vif| vif.groups).collect();
    assert_eq!(vifs, [[0], [1]]);
}

#[test]
fn a_group_has_ipv6_rules_and_its_vms_are_members_by_the_ipv6_addresses_they_have() {
    let text = LEFT
        .replace(
            "addresses = [\"10.0.0.3\"]",
            "addresses = [\"10.0.0.3\"]\ngroups = [\"web\"]\nallowed = [\"2001:db8::7\", \"fd00::/64\"]",
        )
        .replacen("cidr = \"10.0.0.0/24\"", "cidr = \"10.0.0.0/24\"\ncidr_v6 = \"2001:db8:1::/64\"", 1);
    let text = format!(
        "{text}\n[[security_group]]\nname = \"web\"\nmembers = [\"fd01::9\"]\nrules = [\n\
         {{ protocol = \"tcp\", ports = \"80\", cidr = \"::/0\" }},\n\
         {{ protocol = \"icmp\", type = 128, cidr = \"2001:db8::/32\" }},\n\
         {{ protocol = \"IPv6-ICMP\", group = \"web\" }},\n]\n"
    );
    let model = model(&text);
    let web = &model.security.groups[0];
    let from = |net: &str| Origin::Prefix(net.parse().unwrap());
    let expected = [
        (Some(6), 80, 80, from("::/0")),
        (Some(58), 128 << 8, 128 << 8 | 255, from("2001:db8::/32")),
        (Some(58), 0, 65535, Origin::Members(0)),
    ];
    let expected =
        expected.map(|(protocol, first, last, from)| Rule { protocol, first, last, from });
    assert_eq!(web.rules, expected);
    let members: Vec<String> = web.members.iter().map(|(_, it)| it.to_string()).collect();
    let made = "2001:db8:1:0:f816:3eff:fe00:1";
    assert_eq!(members, ["10.0.0.3", "2001:db8::7", made, "fd01::9", "fe80::f816:3eff:fe00:1"]);
    assert_eq!(model.networks[0].cidr_v6, Some("2001:db8:1::/64".parse().unwrap()));
    let wrong = LEFT.replacen(
        "cidr = \"10.0.0.0/24\"",
        "cidr = \"10.0.0.0/24\"\ncidr_v6 = \"2001:db8:1::1/64\"",
        1,
    );
    let said = Model::from_text(&flags(), "left.toml", &wrong).unwrap_err().to_string();
    assert!(said.contains("2001:db8:1::1/64 is an address in a subnet"), "{said}");
}

#[test]
fn settings_are_novas_and_one_more() {
    let text = format!(
        "firewall_driver = \"nova.virt.firewall.NoopFirewallDriver\"\nallow_same_net_traffic = false\n\
         {LEFT}"
    );
    let security = model(&text).security;
    assert!(!security.stands && !security.same_net && security.revoke);
    let flags =
        Flags { firewall_driver: Some(FirewallDriver::Trunkline), revoke: Some(false), ..flags() };
    let security = Model::from_text(&flags, "left.toml", &text).unwrap().security;
    assert!(security.stands && !security.revoke);
    assert_eq!(
        refused("firewall_driver = \"nop\"\n"),
        "left.toml:1: firewall_driver: 'nop' is none of trunkline, noop (did you mean 'noop'?)"
    );
    assert_eq!(
        "nova.virt.libvirt.firewall.IptablesFirewallDriver".parse(),
        Ok(FirewallDriver::Trunkline)
    );
}

#[test]
fn a_file_without_groups_is_warned_of() {
    let warns = |text: &str| model(text).warnings.iter().any(|it| it.contains("security_group"));
    assert!(warns(LEFT));
    assert!(!warns(&format!("firewall_driver = \"noop\"\n{LEFT}")));
    assert!(!warns(&format!("{LEFT}[[security_group]]\nname = \"default\"\nrules = [{{}}]\n")));
}

#[test]
fn a_rule_that_cannot_be_is_told_with_its_line() {
    for (words, said) in [
        (
            "{ protocol = \"tpc\" }",
            "'tpc' is no protocol: write \"tcp\", \"udp\", \"icmp\", \"icmpv6\" or a number, \
          or leave it out for all of them",
        ),
        (
            "{ protocol = \"tcp\", ports = \"http\" }",
            "'http' are no ports: write one, like \"80\", or a \
          range, like \"8000-8999\"",
        ),
        (
            "{ protocol = \"tcp\", ports = \"90-80\" }",
            "the ports of '90-80' stand the wrong way round: \
          80-90",
        ),
        ("{ ports = \"80\" }", "ports are of protocol \"tcp\" or \"udp\": say which"),
        (
            "{ protocol = \"tcp\", type = 8 }",
            "type and code are of protocol \"icmp\" or \"icmpv6\": say which",
        ),
        (
            "{ protocol = \"icmpv6\", cidr = \"10.0.0.0/24\" }",
            "icmpv6 does not come from 10.0.0.0/24: say \"icmp\", or an IPv6 cidr",
        ),
        ("{ cidr = \"fd00::1/64\" }", "fd00::1/64 is no prefix: write fd00::/64"),
        (
            "{ protocol = \"icmp\", type = 256 }",
            "type 256 of ICMP is none: use 0 to 255, or -1 for all",
        ),
        ("{ protocol = \"icmp\", code = 1 }", "a code is of a type of ICMP: say which"),
        ("{ cidr = \"10.0.0.3/24\" }", "10.0.0.3/24 is no prefix: write 10.0.0.0/24"),
        (
            "{ cidr = \"10.0.0.0/24\", group = \"web\" }",
            "a rule has a cidr or a group: make two of this \
          one",
        ),
        ("{ group = \"wbe\" }", "there is no security group 'wbe' (did you mean 'web'?)"),
    ] {
        assert_eq!(rule(words), format!("left.toml:34: {said}"));
    }
    let third =
        add("[[security_group]]\nname = \"web\"\nrules = [\n  {},\n  { ports = \"1\" },\n]\n");
    assert!(third.starts_with("left.toml:36: ports are of"), "{third}");
    let unknown = rule("{ port = \"80\" }");
    assert!(
        unknown.starts_with("left.toml:34: rules: unknown field `port`, expected"),
        "{unknown}"
    );
}

#[test]
fn groups_that_are_twice_or_nowhere_are_refused() {
    let group = "[[security_group]]\nname = \"web\"\n";
    assert_eq!(
        add(&format!("{group}{group}")),
        "left.toml:35: security group 'web' is there already (line 32)"
    );
    assert_eq!(
        add("[[security_group]]\nname = \"web\"\nzone = \"defualt\"\n"),
        "left.toml:34: there is no zone 'defualt' (did you mean 'default'?)"
    );
    let vif = |groups: &str| {
        let address = "addresses = [\"10.0.0.3\"]";
        let text = LEFT.replace(address, &format!("{address}\ngroups = {groups}"));
        refused(&format!("{text}{group}"))
    };
    assert_eq!(
        vif("[\"wep\"]"),
        "left.toml:22: there is no security group 'wep' (did you mean 'web'?)"
    );
    assert_eq!(vif("[\"web\", \"web\"]"), "left.toml:22: security group 'web' is there twice");
}
