//! dnsmasq on host ports, one for each network whose DHCP or DNS it serves: started when the port is there,
//! told of changes, started again when it ends, stopped with the daemon.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use control::dnsmasq::{self, Host, Plan};
use control::model::Model;
use control::netlink::host_port_name;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::node::Node;

/// How long one that ended waits for its next start.
const PAUSE: Duration = Duration::from_secs(1);
/// Where programs are that the path of a service may not name.
const SYSTEM: [&str; 2] = ["/usr/sbin", "/sbin"];

/// The dnsmasqs of this node; they end with it.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    running: BTreeMap<String, Server>,
    /// What was started and ends by itself.
    helpers: Vec<Child>,
}

#[derive(Debug)]
struct Server {
    plan: Plan,
    child: Option<Child>,
    started: Instant,
    /// How often it ended by itself.
    ends: u64,
}

/// Whether the programs are there that a model needs.
///
/// # Errors
/// One is not: the words name its package.
pub(crate) fn programs(model: &Model) -> Result<()> {
    programs_of(model, |program| find(program).is_some())
}

fn programs_of(model: &Model, is_there: impl Fn(&str) -> bool) -> Result<()> {
    let plans = dnsmasq::plans(model);
    if plans.is_empty() {
        return Ok(());
    }
    let leases = plans.iter().any(|plan| plan.leases);
    if !is_there("dnsmasq") {
        let (key, else_use) = if leases { ("dhcp", "builtin") } else { ("dns", "none") };
        bail!(
            "{key} = \"dnsmasq\" needs the program dnsmasq: apt-get install dnsmasq-base, or use \
             {key} = \"{else_use}\""
        );
    }
    if let Some(file) = &model.dhcp.dnsmasq_file {
        std::fs::File::open(file)
            .with_context(|| format!("dnsmasq_config_file {} cannot be read", file.display()))?;
    }
    if leases && model.dhcp.release && !is_there("dhcp_release") {
        bail!(
            "force_dhcp_release needs the program dhcp_release: apt-get install dnsmasq-utils, or \
             say force_dhcp_release = false"
        );
    }
    Ok(())
}

fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(SYSTEM.map(PathBuf::from));
    folders.map(|folder| folder.join(program)).find(|path| path.is_file())
}

impl Server {
    /// Starts it over its files; what an earlier daemon left of it goes first.
    fn start(plan: Plan) -> Result<Self> {
        end_left(&plan.files.pid, &plan.files.names);
        let child = spawn(&plan)?;
        tracing::info!(bridge = %plan.bridge, pid = child.id(), "dnsmasq serves");
        Ok(Self { plan, child: Some(child), started: Instant::now(), ends: 0 })
    }

    /// Starts it again if it has ended.
    fn look(&mut self) -> Result<()> {
        if let Some(child) = &mut self.child {
            let Some(status) = child.try_wait()? else { return Ok(()) };
            self.child = None;
            self.ends += 1;
            tracing::warn!(bridge = %self.plan.bridge, "dnsmasq ended ({status}); it is started again");
        }
        if self.started.elapsed() >= PAUSE {
            self.started = Instant::now();
            self.child = Some(spawn(&self.plan)?);
        }
        Ok(())
    }

    fn hang_up(&self) {
        if let Some(child) = &self.child {
            // One that has just ended reads its files as it starts.
            let _ = kill(Pid::from_raw(child.id() as i32), Signal::SIGHUP);
        }
    }

    /// Ends it at once: it keeps nothing that would have to be written.
    fn end(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        self.running.values_mut().for_each(Server::end);
    }
}

/// Writes its files and starts it.
fn spawn(plan: &Plan) -> Result<Child> {
    write(plan)?;
    let program = find("dnsmasq").context("dnsmasq is gone: apt-get install dnsmasq-base")?;
    let mut command = Command::new(program);
    command.args(&plan.words).stdin(Stdio::null());
    command.spawn().with_context(|| format!("dnsmasq of {}", plan.bridge))
}

/// Writes its files, whole or not at all: it may read them at any moment.
fn write(plan: &Plan) -> Result<()> {
    let put = |path: &Path, text: &str| -> Result<()> {
        let new = path.with_extension("new");
        std::fs::write(&new, text).with_context(|| format!("{}", new.display()))?;
        std::fs::rename(&new, path).with_context(|| format!("{}", path.display()))
    };
    if let Some(folder) = plan.files.hosts.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("{}", folder.display()))?;
    }
    put(&plan.files.hosts, &plan.hosts_text())?;
    put(&plan.files.names, &plan.names)?;
    put(&plan.files.options, &plan.options)
}

/// Ends the dnsmasq of this pid file, if it is one that reads these names.
fn end_left(pid_file: &Path, names: &Path) {
    let Ok(text) = std::fs::read_to_string(pid_file) else { return };
    let Ok(pid) = text.trim().parse::<i32>() else { return };
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    // The number may be somebody else's by now.
    if String::from_utf8_lossy(&words).contains(&names.display().to_string()) {
        let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        let deadline = Instant::now() + Duration::from_secs(1);
        while Path::new(&format!("/proc/{pid}/exe")).exists() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    let _ = std::fs::remove_file(pid_file);
}

/// Ends what a daemon that was killed left running, and removes its files.
pub(crate) fn take_away(node: &str) {
    let folder = dnsmasq::folder(node);
    let Ok(files) = std::fs::read_dir(&folder) else { return };
    for path in files.filter_map(|file| Some(file.ok()?.path())) {
        if path.extension().is_some_and(|end| end == "pid") {
            end_left(&path, &path.with_extension("hosts"));
        }
        let _ = std::fs::remove_file(path);
    }
    let _ = std::fs::remove_dir(folder);
}

impl Node {
    /// Has a dnsmasq on every host port that is to have one, with what it serves now.
    pub(crate) fn tend_dnsmasq(&mut self) {
        let mut plans = dnsmasq::plans(&self.model);
        plans.retain(|plan| self.plugged(&host_port_name(&plan.bridge)).is_some());
        let stays = |bridge: &String| plans.iter().any(|plan| plan.bridge == *bridge);
        let servers = &mut self.servers;
        servers.helpers.retain_mut(|helper| matches!(helper.try_wait(), Ok(None)));
        let gone: Vec<String> =
            servers.running.keys().filter(|bridge| !stays(bridge)).cloned().collect();
        for bridge in gone {
            if let Some(mut server) = servers.running.remove(&bridge) {
                server.end();
                let files = &server.plan.files;
                for file in [&files.hosts, &files.options, &files.names, &files.pid] {
                    let _ = std::fs::remove_file(file);
                }
            }
        }
        for plan in plans {
            let bridge = plan.bridge.clone();
            if let Err(error) = servers.serve(plan, self.model.dhcp.release) {
                tracing::error!(%bridge, "dnsmasq: {error:#}");
            }
        }
    }
}

impl Servers {
    fn serve(&mut self, plan: Plan, release: bool) -> Result<()> {
        let bridge = plan.bridge.clone();
        let Some(server) = self.running.get_mut(&bridge) else {
            self.running.insert(bridge, Server::start(plan)?);
            return Ok(());
        };
        if server.plan.words != plan.words {
            server.end();
            *server = Server::start(plan)?;
            return Ok(());
        }
        if server.plan == plan {
            return server.look();
        }
        let before = std::mem::replace(&mut server.plan, plan);
        write(&server.plan)?;
        // First the file, so that nobody is given the address anew; then the lease.
        server.hang_up();
        let gone = before.hosts.iter().filter(|host| {
            let is = |other: &&Host| (other.mac, other.address) == (host.mac, host.address);
            !server.plan.hosts.iter().any(|other| is(&other))
        });
        for host in gone.filter(|_| release) {
            self.helpers.extend(release_address(&bridge, host));
        }
        Ok(())
    }

    /// What an operator should know of them.
    pub(crate) fn warnings(&self) -> Vec<String> {
        let ended = self.running.values().filter(|server| server.ends > 0);
        let told = ended.map(|server| {
            let (bridge, ends) = (&server.plan.bridge, server.ends);
            format!("dnsmasq of {bridge} ended {ends} times and was started again: see the log")
        });
        told.collect()
    }
}

/// Tells dnsmasq, as the VM would, that the address is free.
fn release_address(bridge: &str, host: &Host) -> Option<Child> {
    let mut command = Command::new(find("dhcp_release")?);
    command.args([bridge, &host.address.to_string(), &host.mac.to_string()]);
    match command.stdin(Stdio::null()).spawn() {
        Ok(child) => Some(child),
        Err(error) => {
            tracing::warn!(bridge, address = %host.address, %error, "dhcp_release");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use control::flags::Flags;

    #[test]
    fn a_program_that_is_missing_is_told_with_its_package() {
        let model = |text: &str| {
            let network = "vlan_interface = \"eth0\"\n[[network]]\nname = \"a\"\nvlan = 100\n\
                           cidr = \"10.0.0.0/24\"\ngateway = \"10.0.0.1\"\n";
            let text = format!("{text}{network}");
            Model::from_text(&Flags::default(), "test.toml", &text).unwrap()
        };
        let said = |text: &str, there: &[&str]| {
            let checked = programs_of(&model(text), |program| there.contains(&program));
            checked.map_err(|error| error.to_string()).err().unwrap_or_default()
        };
        assert_eq!(said("", &[]), "", "builtin needs none");
        assert!(said("dhcp = \"dnsmasq\"\n", &[]).contains("apt-get install dnsmasq-base"));
        let one = said("dhcp = \"dnsmasq\"\n", &["dnsmasq"]);
        assert!(one.contains("apt-get install dnsmasq-utils"), "{one}");
        assert!(said("dns = \"dnsmasq\"\n", &[]).contains("or use dns = \"none\""));
        assert_eq!(said("dns = \"dnsmasq\"\n", &["dnsmasq"]), "");
        let off = "dhcp = \"dnsmasq\"\nforce_dhcp_release = false\n";
        assert_eq!(said(off, &["dnsmasq"]), "");
        let file = format!("dnsmasq_config_file = \"/none/such\"\n{off}");
        assert_eq!(said(&file, &["dnsmasq"]), "dnsmasq_config_file /none/such cannot be read");
    }
}
