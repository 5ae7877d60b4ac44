//! `trunkline ctl vpn`: keys and configuration for a project's VPN instance and its users, nova's
//! cloudpipe. The node only leads the instance's public port to it; what is made here is copied to
//! the instance and to the users.

mod authority;
mod texts;

use std::fs::{File, OpenOptions, Permissions, create_dir_all, read_to_string, set_permissions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use clap::Subcommand;
use control::report::Vpn;

use authority::{Authority, Role};

/// For the owner alone.
const SECRET: u32 = 0o600;

/// What is done about a VPN.
#[derive(Debug, Subcommand)]
pub(crate) enum Deed {
    /// Make what a project's VPN instance and its users need; what is there stays.
    Create {
        /// Its network, one with a [[vpn]]
        network: String,
        /// A user, who gets a file of his own; may be given several times
        #[arg(long = "user", value_name = "NAME")]
        users: Vec<String>,
        /// Where to put it [default: /etc/trunkline/vpn/<network>]
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
    /// Put a user's certificate on the list of those that are no longer good.
    Revoke {
        /// The network
        network: String,
        /// The user
        user: String,
        /// Where it is [default: /etc/trunkline/vpn/<network>]
        #[arg(long, value_name = "FOLDER")]
        out: Option<PathBuf>,
    },
}

impl Deed {
    /// Does it to one of these; says what was done.
    pub(crate) fn execute(&self, vpns: &[Vpn]) -> Result<String> {
        let (Self::Create { network, out, .. } | Self::Revoke { network, out, .. }) = self;
        let vpn = vpns.iter().find(|vpn| vpn.network == *network).with_context(|| {
            format!("network '{network}' has no [[vpn]] in this node's configuration")
        })?;
        let place = || Path::new("/etc/trunkline/vpn").join(network);
        let folder = Folder(out.clone().unwrap_or_else(place));
        match self {
            Self::Create { users, .. } => folder.create(vpn, users),
            Self::Revoke { user, .. } => folder.revoke(vpn, user),
        }
    }
}

/// Where a project's VPN is kept: `ca.key` here, `server/` for the instance, `users/`.
struct Folder(PathBuf);

impl Folder {
    fn create(&self, vpn: &Vpn, users: &[String]) -> Result<String> {
        users.iter().try_for_each(|user| is_name(user))?;
        for part in ["server", "users"] {
            let path = self.0.join(part);
            create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        }
        set_permissions(&self.0, Permissions::from_mode(0o700))?;
        let authority = match self.read("ca.key") {
            Ok(key) => Authority::of(&vpn.network, &key)?,
            Err(_) => self.found(vpn)?,
        };
        self.replace("server/server.conf", &texts::server(vpn))?;
        let mut said = format!("{}: copy it to the instance\n", self.0.join("server").display());
        for user in users {
            let file = format!("users/{user}.ovpn");
            let signed = authority.sign(user, Role::User)?;
            let text = texts::client(
                vpn,
                [
                    ("ca", &self.read("server/ca.crt")?),
                    ("cert", &signed.certificate),
                    ("key", &signed.key),
                    ("tls-crypt", &self.read("server/tls-crypt.key")?),
                ],
            );
            self.write(&file, &text).with_context(|| {
                format!("{user} is there already: revoke him, and name the new one otherwise")
            })?;
            self.write(&format!("users/{user}.serial"), &signed.serial)?;
            said += &format!("{}: for {user}\n", self.0.join(file).display());
        }
        Ok(said)
    }

    /// Everything but users. The authority's key comes last: it says that all is there.
    fn found(&self, vpn: &Vpn) -> Result<Authority> {
        let authority = Authority::new(&vpn.network)?;
        let (certificate, key) = authority.own()?;
        let server = authority.sign("server", Role::Server)?;
        let mut random = [0; 256];
        File::open("/dev/urandom")?.read_exact(&mut random)?;
        self.replace("server/ca.crt", &certificate)?;
        self.replace("server/server.crt", &server.certificate)?;
        self.replace("server/server.key", &server.key)?;
        self.replace("server/tls-crypt.key", &texts::static_key(&random))?;
        self.replace("server/crl.pem", &authority.revoke(&[])?)?;
        self.replace("server/up.sh", texts::UP)?;
        set_permissions(self.0.join("server/up.sh"), Permissions::from_mode(0o700))?;
        self.write("ca.key", &key)?;
        Ok(authority)
    }

    fn revoke(&self, vpn: &Vpn, user: &str) -> Result<String> {
        is_name(user)?;
        let serial = self
            .read(&format!("users/{user}.serial"))
            .with_context(|| format!("there is no user {user}"))?;
        let authority = Authority::of(&vpn.network, &self.read("ca.key")?)?;
        let mut revoked = self.read("revoked").unwrap_or_default();
        if !revoked.lines().any(|line| line == serial) {
            revoked += &format!("{serial}\n");
        }
        let serials: Vec<String> = revoked.lines().map(str::to_owned).collect();
        self.replace("revoked", &revoked)?;
        self.replace("server/crl.pem", &authority.revoke(&serials)?)?;
        let list = self.0.join("server/crl.pem");
        Ok(format!("{}: copy it to the instance, which reads it for every client", list.display()))
    }

    fn read(&self, name: &str) -> Result<String> {
        let path = self.0.join(name);
        read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// Writes a file that is not there yet.
    fn write(&self, name: &str, text: &str) -> Result<()> {
        self.put(OpenOptions::new().write(true).create_new(true), name, text)
    }

    fn replace(&self, name: &str, text: &str) -> Result<()> {
        self.put(OpenOptions::new().write(true).create(true).truncate(true), name, text)
    }

    fn put(&self, how: &mut OpenOptions, name: &str, text: &str) -> Result<()> {
        let path = self.0.join(name);
        match how.mode(SECRET).open(&path) {
            Ok(mut file) => file.write_all(text.as_bytes()).map_err(Into::into),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                bail!("{} exists", path.display())
            }
            Err(error) => Err(error).with_context(|| format!("cannot write {}", path.display())),
        }
    }
}

/// Whether it may be a file's name.
fn is_name(user: &str) -> Result<()> {
    let proper = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    ensure!(
        !user.is_empty() && user.len() <= 64 && !user.starts_with('.') && user.chars().all(proper),
        "'{user}' is no user's name: letters, digits and - _ . @, at most 64"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn vpn() -> Vpn {
        Vpn {
            network: "tenant1".into(),
            public_address: Ipv4Addr::new(91, 207, 15, 105),
            public_port: 1000,
            private_address: Ipv4Addr::new(10, 0, 0, 2),
            private_port: 1194,
            gateway: Ipv4Addr::new(10, 0, 0, 1),
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            first_client: Ipv4Addr::new(10, 0, 0, 247),
            last_client: Ipv4Addr::new(10, 0, 0, 254),
        }
    }

    #[test]
    fn what_is_made_is_there_once_and_secret_and_users_come_later() {
        let folder = tempfile::tempdir().unwrap();
        let out = Some(folder.path().join("vpn"));
        let create = |users: &[&str]| Deed::Create {
            network: "tenant1".into(),
            users: users.iter().map(|&user| user.to_owned()).collect(),
            out: out.clone(),
        };
        create(&["alice"]).execute(&[vpn()]).unwrap();
        let read = |name: &str| read_to_string(folder.path().join("vpn").join(name)).unwrap();
        let (authority, alice) = (read("ca.key"), read("users/alice.ovpn"));
        assert!(alice.contains("remote 91.207.15.105 1000\n"), "{alice}");
        assert!(alice.contains(read("server/ca.crt").trim()), "{alice}");
        let server = read("server/server.conf");
        let bridge = "server-bridge 10.0.0.1 255.255.255.0 10.0.0.247 10.0.0.254\n";
        assert!(server.contains(bridge) && server.contains("port 1194\n"), "{server}");
        create(&["bob"]).execute(&[vpn()]).unwrap();
        assert_eq!((read("ca.key"), read("users/alice.ovpn")), (authority, alice));
        assert!(read("users/bob.ovpn").contains("<tls-crypt>\n-----BEGIN OpenVPN Static key V1"));
        let again = create(&["bob"]).execute(&[vpn()]).unwrap_err();
        assert!(format!("{again:#}").contains("bob is there already"), "{again:#}");
        let mode = std::fs::metadata(folder.path().join("vpn/ca.key")).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let revoke = Deed::Revoke { network: "tenant1".into(), user: "bob".into(), out };
        let before = read("server/crl.pem");
        revoke.execute(&[vpn()]).unwrap();
        revoke.execute(&[vpn()]).unwrap();
        assert_ne!(read("server/crl.pem"), before);
        assert_eq!(read("revoked").lines().count(), 1);
    }

    #[test]
    fn names_lead_nowhere_else_and_networks_must_have_a_vpn() {
        for name in ["", "../x", ".x", "a/b", "a b"] {
            assert!(is_name(name).is_err(), "{name}");
        }
        let deed = Deed::Create { network: "tenant2".into(), users: vec![], out: None };
        let said = deed.execute(&[vpn()]).unwrap_err().to_string();
        assert!(said.contains("has no [[vpn]]"), "{said}");
    }
}
