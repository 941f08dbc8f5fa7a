//! Which cluster a text means. Pure.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tresor_storage::vault::naming::check_vault_name;

/// Most addresses of one cluster: more coordinators than anybody runs.
pub(super) const ADDRESSES_MAX: usize = 16;

/// Where a coordinator listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// A name or an address; one of IPv6 without its brackets.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
}

/// What `--cluster` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// None: commands work in this home.
    None,
    /// One that `tresor login` keeps.
    Named(String),
    /// The one whose coordinators listen there.
    Members(Vec<Address>),
    /// That of a node on this machine.
    Socket(PathBuf),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = match bracketed {
            Some(host) => host.parse::<std::net::Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None => host.to_owned(),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if host.is_empty() || (bracketed.is_none() && !host.chars().all(plain)) {
            return Err(wrong());
        }
        match port.parse() {
            Ok(port) if port > 0 => Ok(Self { host, port }),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Reads `HOST:PORT,…`.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse_addresses(text: &str) -> Result<Vec<Address>, String> {
    let mut addresses = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let address = part.parse()?;
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    match addresses.len() {
        0 => Err(String::from("no address is given")),
        1..=ADDRESSES_MAX => Ok(addresses),
        many => Err(format!("{many} addresses are given, {ADDRESSES_MAX} are possible")),
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::None);
        }
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err(format!("{text:?} names no socket"))
            } else {
                Ok(Self::Socket(path.into()))
            };
        }
        if text.contains([':', ',']) {
            return parse_addresses(text).map(Self::Members);
        }
        check_cluster_name(text)?;
        Ok(Self::Named(text.to_owned()))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => Ok(()),
            Self::Named(name) => f.write_str(name),
            Self::Members(addresses) => f.write_str(&list(addresses)),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Addresses as they are typed.
pub(crate) fn list(addresses: &[Address]) -> String {
    let texts: Vec<String> = addresses.iter().map(Address::to_string).collect();
    texts.join(",")
}

/// Checks the name that a cluster is kept under: as a vault's, since it is a folder's name, too.
///
/// # Errors
/// The rule.
pub(crate) fn check_cluster_name(name: &str) -> Result<(), String> {
    check_vault_name(name).map_err(|_| {
        format!("{name:?} is neither HOST:PORT nor a cluster's name (2 to 50 letters, digits and hyphens, the first a letter)")
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_named_by_its_name_its_addresses_or_a_socket() {
        let members = |texts: &[&str]| Target::Members(texts.iter().map(|text| text.parse().unwrap()).collect());
        for (text, target) in [
            ("", Target::None),
            ("prod", Target::Named(String::from("prod"))),
            ("c1:7700", members(&["c1:7700"])),
            (
                "c1:7700, c2.x.org:7700,c1:7700,",
                members(&["c1:7700", "c2.x.org:7700"]),
            ),
            ("[::1]:7700", members(&["[::1]:7700"])),
            ("unix:/run/t.sock", Target::Socket("/run/t.sock".into())),
            ("unix:///run/t.sock", Target::Socket("/run/t.sock".into())),
        ] {
            assert_eq!(text.parse::<Target>().unwrap(), target, "{text}");
        }
    }

    #[test]
    fn what_names_no_cluster_is_refused() {
        for text in [
            "c1:",
            ":7700",
            "c1:0",
            "c1:99999",
            "::1:7700",
            "[::g]:1",
            "http://c1:7700",
            ",",
            "unix:",
            "x",
            "../x",
            "a b",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
        let many: Vec<String> = (1..=ADDRESSES_MAX + 1).map(|n| format!("c{n}:7700")).collect();
        assert!(parse_addresses(&many.join(",")).is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        for text in ["prod", "c1:7700,c2:7700", "[::1]:7700", "unix:/run/t.sock"] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
    }
}
