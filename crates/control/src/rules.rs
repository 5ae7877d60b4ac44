//! The rules of a configuration: from what the operator said to a [`Model`], or why not.

mod allowed;
mod dhcp;
mod group;
mod limits;
mod nat;
mod network;
mod policy;
mod quota;
mod route;
mod settings;
mod vif;
mod vpn;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::config::{ConfigError, File};
use crate::flags::Flags;
use crate::limits::VifLimits;
use crate::model::{Model, Network, Nic, Vif};

pub(crate) use self::dhcp::host_name;

/// Longest interface name, bytes (IFNAMSIZ less its zero).
const NAME_MAX: usize = 15;
/// Far end of a host port; the near end has the bridge's own name.
const HOST_PORT_SUFFIX: &str = "-tl";
/// Ends of the punt link.
const PUNT_LINK: [&str; 2] = ["tl-punt0", "tl-punt1"];

/// The model of `flags` over `file`.
pub(crate) fn model(flags: &Flags, file: &File) -> Result<Model, ConfigError> {
    let settings = flags.over(&file.settings);
    let said = Said { flags, file };
    let node = settings::node(&settings, &said)?;
    let tuning = settings::tuning(&settings, &said)?;
    let limits = limits::of_all(&settings, &said)?;
    let mut names = Names::default();
    let nics = Nics::of_settings(&settings, &said, &mut names)?;
    let mut draft = Draft {
        said,
        node: node.clone(),
        settings,
        names,
        nics,
        networks: Vec::new(),
        vifs: Vec::new(),
        limits,
    };
    for entry in &file.networks {
        draft.network(entry)?;
    }
    for entry in &file.vifs {
        draft.vif(entry)?;
    }
    draft.allow()?;
    let static_fdb = draft.static_fdb()?;
    let (routes, neighbours) = (draft.routes()?, draft.neighbours()?);
    let (floats, nat, vpns) = (draft.floats()?, draft.nat()?, draft.vpns()?);
    let (dhcp, security, policy) = (draft.dhcp_rules()?, draft.security()?, draft.policy()?);
    let warnings = draft.warnings();
    let announcements = settings::announcements(&draft.settings, &said)?;
    let Draft { settings, nics, networks, vifs, .. } = draft;
    if nics.0.is_empty() {
        let message = "nothing to do: name a NIC (vlan_interface, flat_interface or \
                       public_interface) or write a [[network]]";
        return Err(ConfigError { place: file.name.clone(), message: message.into() });
    }
    let default_socket = || PathBuf::from(format!("/run/trunkline/{node}.sock"));
    Ok(Model {
        config: (!file.name.is_empty()).then(|| PathBuf::from(&file.name)),
        control_socket: settings.control_socket.unwrap_or_else(default_socket),
        routing_source_ip: settings.routing_source_ip,
        nics: nics.0,
        networks: networks.into_iter().map(|(network, _)| network).collect(),
        vifs: vifs.into_iter().map(|(vif, _)| vif).collect(),
        static_fdb,
        routes,
        neighbours,
        floats,
        vpns,
        nat,
        dhcp,
        security,
        policy,
        provision: settings.provision.unwrap_or_default(),
        firewall: settings.firewall_driver.unwrap_or_default(),
        announcements,
        warnings,
        tuning,
        node,
    })
}

/// Who said what, to say where.
#[derive(Clone, Copy)]
struct Said<'a> {
    flags: &'a Flags,
    file: &'a File,
}

impl Said<'_> {
    /// An error in the value of a setting.
    fn setting(&self, key: &str, message: String) -> ConfigError {
        if self.flags.sets(key) {
            return ConfigError { place: format!("--{}", key.replace('_', "-")), message };
        }
        self.line(self.file.lines.of(key), message)
    }

    fn line(&self, line: usize, message: String) -> ConfigError {
        ConfigError { place: format!("{}:{line}", self.file.name), message }
    }
}

/// The names of interfaces on this node, and what each one is.
#[derive(Default)]
struct Names(BTreeMap<String, String>);

impl Names {
    /// `name` becomes the name of `what`; an error's words if it cannot.
    fn take(&mut self, name: &str, what: String) -> Result<(), String> {
        interface_name(name)?;
        match self.0.get(name) {
            Some(other) => Err(format!("'{name}' is {what}, but it is already {other}")),
            None => {
                self.0.insert(name.to_string(), what);
                Ok(())
            }
        }
    }
}

/// The kernel's own rule (dev_valid_name).
fn interface_name(name: &str) -> Result<(), String> {
    let forbidden = |c: char| c == '/' || c == ':' || c.is_whitespace() || c.is_control();
    if name.is_empty() || name == "." || name == ".." || name.contains(forbidden) {
        return Err(format!("'{name}' cannot name an interface"));
    }
    if name.len() > NAME_MAX {
        return Err(format!("'{name}' is too long for an interface: at most {NAME_MAX} bytes"));
    }
    if PUNT_LINK.contains(&name) {
        return Err(format!("'{name}' is the name of the punt link"));
    }
    Ok(())
}

/// The NICs, each once with all its roles.
struct Nics(Vec<Nic>);

impl Nics {
    fn of_settings(
        settings: &Flags,
        said: &Said<'_>,
        names: &mut Names,
    ) -> Result<Self, ConfigError> {
        let mut nics = Self(Vec::new());
        let roles = [
            ("vlan_interface", &settings.vlan_interface, true),
            ("flat_interface", &settings.flat_interface, true),
            ("public_interface", &settings.public_interface, false),
        ];
        for (key, name, trunk) in roles {
            if let Some(name) = name {
                nics.add(name, trunk, names).map_err(|message| said.setting(key, message))?;
            }
        }
        Ok(nics)
    }

    fn add(&mut self, name: &str, trunk: bool, names: &mut Names) -> Result<(), String> {
        let nic = match self.0.iter_mut().find(|nic| nic.name == name) {
            Some(nic) => nic,
            None => {
                names.take(name, "a NIC".into())?;
                self.0.push(Nic { name: name.into(), trunk: false, public: false });
                self.0.last_mut().expect("one was just pushed")
            }
        };
        if trunk {
            nic.trunk = true;
        } else {
            nic.public = true;
        }
        Ok(())
    }
}

/// A model in the making; each network and vif with the line it begins in.
struct Draft<'a> {
    said: Said<'a>,
    node: String,
    settings: Flags,
    names: Names,
    nics: Nics,
    networks: Vec<(Network, usize)>,
    vifs: Vec<(Vif, usize)>,
    /// Those of a vif that says nothing.
    limits: VifLimits,
}
