//! The text of `iptables-save` and `ebtables-save`, as rules.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

/// A rule of iptables or ebtables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// `nat`, `filter`, `mangle`, …
    pub table: String,
    /// The chain it is in.
    pub chain: String,
    /// Source prefix; none if any.
    pub source: Option<Ipv4Net>,
    /// Destination prefix; none if any.
    pub destination: Option<Ipv4Net>,
    /// Interface it comes by.
    pub from: Option<String>,
    /// Interface it leaves by.
    pub out: Option<String>,
    /// `tcp`, `udp`, …
    pub protocol: Option<String>,
    /// Destination port or ports.
    pub port: Option<String>,
    /// State of its connection; `!DNAT` for any but that.
    pub state: Option<String>,
    /// `ACCEPT`, `SNAT`, a chain; none if it only counts.
    pub target: Option<String>,
    /// New source, destination or port.
    pub to: Option<String>,
    /// Words with no place above: such a rule says more than is understood here.
    pub others: Vec<String>,
    /// The rule as it was printed, without counters.
    pub text: String,
}

/// What one of the tools printed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// All rules, in order.
    pub rules: Vec<Rule>,
    /// Chains as (table, name), those without rules among them.
    pub chains: Vec<(String, String)>,
    /// Lines that are none of what the tools print.
    pub strange: Vec<String>,
}

impl Saved {
    /// What is in the text.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let mut saved = Self::default();
        let mut table = String::new();
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') || line == "COMMIT" {
                continue;
            }
            if let Some(name) = line.strip_prefix('*') {
                table = name.to_owned();
            } else if let Some(chain) = line.strip_prefix(':') {
                let name = chain.split(' ').next().unwrap_or_default();
                saved.chains.push((table.clone(), name.to_owned()));
            } else if let Some(rule) = Rule::parse(&table, line) {
                saved.rules.push(rule);
            } else {
                saved.strange.push(line.to_owned());
            }
        }
        saved
    }
}

impl Rule {
    /// The rule of a line such as `[0:0] -A INPUT -i br100 -j ACCEPT`.
    fn parse(table: &str, line: &str) -> Option<Self> {
        // With -c there are counters in front.
        let text = match line.strip_prefix('[') {
            Some(rest) => rest.split_once("] ")?.1,
            None => line,
        };
        let words = words(text);
        let [append, chain, rest @ ..] = words.as_slice() else { return None };
        if append != "-A" {
            return None;
        }
        let mut rule = Self {
            table: table.into(),
            chain: chain.clone(),
            text: text.into(),
            ..Self::default()
        };
        let mut rest = rest.iter().map(String::as_str).peekable();
        while let Some(word) = rest.next() {
            let (not, word) = match word {
                "!" => (true, rest.next()?),
                word => (false, word),
            };
            let mut values = Vec::new();
            while let Some(value) = rest.next_if(|word| !word.starts_with('-') && *word != "!") {
                values.push(value);
            }
            if !rule.take(not, word, &values) {
                let not = not.then_some("!");
                rule.others.extend(not.into_iter().chain([word]).chain(values).map(str::to_owned));
            }
        }
        Some(rule)
    }

    /// Puts an option where it belongs; false if it has no place.
    fn take(&mut self, not: bool, option: &str, values: &[&str]) -> bool {
        match (option, values) {
            // Loads a match, whose options follow; it says nothing by itself.
            ("-m" | "--match", [_]) if !not => true,
            ("--comment", _) => true,
            ("--ctstate" | "--state", [state]) => {
                put(&mut self.state, format!("{}{state}", if not { "!" } else { "" }))
            }
            (option, [value]) if !not => self.take_value(option, value),
            _ => false,
        }
    }

    fn take_value(&mut self, option: &str, value: &str) -> bool {
        match option {
            "-s" | "--source" | "--src" => put_prefix(&mut self.source, value),
            "-d" | "--destination" | "--dst" => put_prefix(&mut self.destination, value),
            "-i" | "--in-interface" => put(&mut self.from, value.into()),
            "-o" | "--out-interface" => put(&mut self.out, value.into()),
            "-p" | "--protocol" => put(&mut self.protocol, value.into()),
            "--dport" | "--dports" => put(&mut self.port, value.into()),
            "-j" | "--jump" => put(&mut self.target, value.into()),
            "--to" | "--to-source" | "--to-destination" | "--to-ports" => {
                put(&mut self.to, value.into())
            }
            _ => false,
        }
    }
}

/// Fills an empty place; false if it is taken.
fn put<T>(place: &mut Option<T>, value: T) -> bool {
    let empty = place.is_none();
    if empty {
        *place = Some(value);
    }
    empty
}

fn put_prefix(place: &mut Option<Ipv4Net>, text: &str) -> bool {
    match prefix(text) {
        // All addresses are no condition.
        Some(prefix) if prefix.prefix_len() == 0 => true,
        Some(prefix) => put(place, prefix),
        None => false,
    }
}

/// `10.0.0.0/24`, `10.0.0.0/255.255.255.0`, or an address, which is a prefix of 32 bits.
pub(super) fn prefix(text: &str) -> Option<Ipv4Net> {
    let Some((address, length)) = text.split_once('/') else {
        return Some(Ipv4Net::from(text.parse::<Ipv4Addr>().ok()?));
    };
    let address = address.parse().ok()?;
    let prefix = match length.parse::<Ipv4Addr>() {
        Ok(mask) => Ipv4Net::with_netmask(address, mask),
        Err(_) => Ipv4Net::new(address, length.parse().ok()?),
    };
    Some(prefix.ok()?.trunc())
}

/// The words of a line; one in double quotes is one word, and a backslash takes the next as it is.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            '\\' => word.get_or_insert_default().extend(letters.next()),
            letter if letter.is_whitespace() && !quoted => words.extend(word.take()),
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(line: &str) -> Rule {
        Rule::parse("nat", line).unwrap()
    }

    #[test]
    fn a_rule_is_read_as_the_tools_of_all_years_print_it() {
        let new = rule("-A network-snat -s 10.0.0.0/24 -o eth1 -j SNAT --to-source 192.0.2.5");
        let old = rule(
            "[7:420] -A network-snat --source 10.0.0.0/255.255.255.0 -d 0.0.0.0/0 --jump SNAT --to \
             192.0.2.5 --out-interface eth1",
        );
        assert_eq!((new.source, new.destination), (prefix("10.0.0.0/24"), None));
        assert_eq!((new.out.as_deref(), new.target.as_deref()), (Some("eth1"), Some("SNAT")));
        assert_eq!(new.to.as_deref(), Some("192.0.2.5"));
        assert!(new.others.is_empty());
        assert_eq!(Rule { text: new.text.clone(), ..old }, new);
    }

    #[test]
    fn what_has_no_place_is_kept_as_words() {
        let state = rule("-A a -s 10.0.0.0/24 -m conntrack ! --ctstate DNAT -j ACCEPT");
        assert_eq!((state.state.as_deref(), state.others.len()), (Some("!DNAT"), 0));
        let not = rule("-A a ! -s 10.0.0.3/32 -i br100 -m mac --mac-source 2:0:0:0:0:1 -j DROP");
        assert_eq!(not.source, None);
        assert_eq!(not.others, ["!", "-s", "10.0.0.3/32", "--mac-source", "2:0:0:0:0:1"]);
        let twice = rule("-A a -m multiport --dports 1:9,80 -d 10.0.0.1 -d 10.0.0.2 -j DROP");
        assert_eq!((twice.port.as_deref(), twice.others.len()), (Some("1:9,80"), 2));
        let text = r#"-A a -m comment --comment "it is \"-j DROP\" here" -j ACCEPT"#;
        assert_eq!((rule(text).target.as_deref(), rule(text).others.len()), (Some("ACCEPT"), 0));
        // What is in quotes and begins with a dash looks like an option, and is none we know.
        assert_eq!(rule(r#"-A a --comment "-x" -j DROP"#).others, ["-x"]);
    }

    #[test]
    fn tables_chains_and_strange_lines_are_told_apart() {
        let saved = Saved::parse(
            "# Generated by iptables-save\n*nat\n:PREROUTING ACCEPT [1:60]\n:a-snat - [0:0]\n\
             -A a-snat -j SNAT --to-source 192.0.2.5\nCOMMIT\n*filter\n:INPUT DROP [0:0]\n\
             -A INPUT\nwhat is this\n[3 -A INPUT\n-A\n-A INPUT !\nCOMMIT\n# Completed\n",
        );
        let chains: Vec<String> =
            saved.chains.iter().map(|(table, chain)| format!("{table} {chain}")).collect();
        assert_eq!(chains, ["nat PREROUTING", "nat a-snat", "filter INPUT"]);
        assert_eq!(saved.rules.len(), 2);
        assert_eq!((saved.rules[1].table.as_str(), &saved.rules[1].target), ("filter", &None));
        assert_eq!(saved.strange, ["what is this", "[3 -A INPUT", "-A", "-A INPUT !"]);
        assert_eq!(Saved::parse(""), Saved::default());
    }

    #[test]
    fn prefixes_are_read_in_all_spellings() {
        assert_eq!(prefix("10.0.0.3"), "10.0.0.3/32".parse().ok());
        assert_eq!(prefix("10.0.0.3/24"), "10.0.0.0/24".parse().ok());
        assert_eq!(prefix("10.0.0.0/255.255.0.0"), "10.0.0.0/16".parse().ok());
        for text in ["", "/", "10.0.0", "10.0.0.0/33", "10.0.0.0/255.0.255.0", "br100"] {
            assert_eq!(prefix(text), None, "{text}");
        }
    }
}
