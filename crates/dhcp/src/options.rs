//! Options an operator adds, in the words of dnsmasq's `dhcp-option`: `42,10.0.0.1`.

use std::net::Ipv4Addr;
use std::str::FromStr;

use ipnet::Ipv4Net;

/// An option that is sent as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// Its number.
    pub code: u8,
    /// What it says.
    pub data: Vec<u8>,
}

/// What all options of one answer may take together.
const LONGEST: usize = 250;

/// How an option's value is written (RFC 2132, RFC 3442).
#[derive(Clone, Copy)]
enum Form {
    /// Addresses, one or more.
    Addresses,
    /// Numbers of so many bytes.
    Number(usize),
    /// Pairs of a network and its router.
    Routes,
    /// Text.
    Text,
    /// Whatever the value looks like: addresses or text.
    Any,
}

const fn form(code: u8) -> Form {
    match code {
        3..=11 | 16 | 28 | 32 | 41 | 42 | 44 | 45 | 48 | 49 | 65 | 68..=76 | 150 => Form::Addresses,
        19 | 20 | 23 | 27 | 29..=31 | 34 | 36 | 37 | 39 | 46 => Form::Number(1),
        13 | 22 | 25 | 26 => Form::Number(2),
        2 | 24 | 35 | 38 => Form::Number(4),
        12 | 14 | 15 | 17 | 18 | 40 | 47 | 62 | 64 | 66 | 67 | 100 | 101 | 114 => Form::Text,
        121 | 249 => Form::Routes,
        _ => Form::Any,
    }
}

impl FromStr for Extra {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is no option: write its number and its value, like 42,10.0.0.1 or \
                 26,1400 or 43,hex:0102"
            )
        };
        let (code, value) = text.split_once(',').ok_or_else(wrong)?;
        let code: u8 = code.trim().parse().map_err(|_| wrong())?;
        // Who has which address, for how long and from whom is not the operator's to say here.
        if matches!(code, 0 | 1 | 50..=61 | 82 | 255) {
            return Err(format!("option {code} is the protocol's own and cannot be set"));
        }
        let data = data(code, value.trim()).ok_or_else(wrong)?;
        match data.len() {
            1..=LONGEST => Ok(Self { code, data }),
            _ => Err(format!("option {code} has {} bytes: use 1 to {LONGEST}", data.len())),
        }
    }
}

fn data(code: u8, value: &str) -> Option<Vec<u8>> {
    if let Some(digits) = value.strip_prefix("hex:") {
        return hex(digits);
    }
    let words = || value.split(',').map(str::trim);
    let addresses = || -> Option<Vec<u8>> {
        let each = words().map(|word| word.parse::<Ipv4Addr>().ok());
        Some(each.collect::<Option<Vec<_>>>()?.iter().flat_map(Ipv4Addr::octets).collect())
    };
    match form(code) {
        Form::Addresses => addresses(),
        Form::Number(bytes) => {
            let each = words().map(|word| {
                let number: u64 = word.parse().ok()?;
                let fits = number < 1 << (8 * bytes);
                fits.then(|| number.to_be_bytes()[8 - bytes..].to_vec())
            });
            Some(each.collect::<Option<Vec<_>>>()?.concat())
        }
        Form::Routes => {
            let words: Vec<&str> = words().collect();
            let (pairs, []) = words.as_chunks::<2>() else { return None };
            let each = pairs.iter().map(|[to, via]| {
                let (to, via): (Ipv4Net, Ipv4Addr) = (to.parse().ok()?, via.parse().ok()?);
                let bytes = usize::from(to.prefix_len().div_ceil(8));
                let mut route = vec![to.prefix_len()];
                route.extend_from_slice(to.network().octets().get(..bytes)?);
                route.extend_from_slice(&via.octets());
                Some(route)
            });
            Some(each.collect::<Option<Vec<_>>>()?.concat())
        }
        Form::Text => Some(value.as_bytes().to_vec()),
        Form::Any => addresses().or_else(|| Some(value.as_bytes().to_vec())),
    }
}

fn hex(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<char> = digits.chars().filter(|digit| *digit != ':').collect();
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    let byte =
        |[high, low]: &[char; 2]| u8::try_from(high.to_digit(16)? << 4 | low.to_digit(16)?).ok();
    pairs.iter().map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_written_as_dnsmasq_s() {
        let of = |text: &str| text.parse::<Extra>().map(|extra| (extra.code, extra.data));
        assert_eq!(of("42,10.0.0.1,10.0.0.2"), Ok((42, vec![10, 0, 0, 1, 10, 0, 0, 2])));
        assert_eq!(of("26,1400"), Ok((26, vec![5, 120])));
        assert_eq!(of("43,hex:01:02fF"), Ok((43, vec![1, 2, 255])));
        assert_eq!(of("66,boot.example"), Ok((66, b"boot.example".to_vec())));
        let routes = vec![8, 10, 10, 0, 0, 1, 0, 10, 0, 0, 2];
        assert_eq!(of("121,10.0.0.0/8,10.0.0.1,0.0.0.0/0,10.0.0.2"), Ok((121, routes)));
        assert_eq!(of("224,10.0.0.9"), Ok((224, vec![10, 0, 0, 9])));
        assert_eq!(of("224,plain"), Ok((224, b"plain".to_vec())));
    }

    #[test]
    fn what_is_no_option_is_refused_in_words() {
        for text in
            ["", "42", "42,", "x,1", "300,1", "42,ten", "26,70000", "43,hex:1", "121,10.0.0.0/8"]
        {
            let said = text.parse::<Extra>().unwrap_err();
            assert!(
                said.contains("is no option") || said.contains("use 1 to 250"),
                "{text}: {said}"
            );
        }
        for text in ["53,1", "51,60", "54,10.0.0.1", "1,255.0.0.0", "255,x"] {
            let said = text.parse::<Extra>().unwrap_err();
            assert!(said.contains("the protocol's own"), "{said}");
        }
    }
}
