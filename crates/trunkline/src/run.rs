//! `trunkline run`: the control thread's loop.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use control::api::{self, Request};
use control::describe;
use control::flags::Flags;
use control::model::Model;
use control::report::{HandedOver, Vif};
use tokio::net::UnixDatagram;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing_subscriber::EnvFilter;

use crate::dnsmasq;
use crate::node::Node;
use crate::start;
use crate::takeover::take_over;

/// How often neighbours are asked and addresses announced.
const SECOND: Duration = Duration::from_secs(1);
/// How often silent stations are forgotten, and the kernel makes sure of its own neighbours.
const AGEING: Duration = Duration::from_secs(5);
/// How long lines wait for their pass: changes within it share one walk through the table.
const PASS: Duration = Duration::from_millis(20);
/// Questions that may wait.
const QUESTIONS: usize = 64;

/// `run --check`: says what the configuration means.
pub(crate) fn check(flags: &Flags) -> Result<()> {
    let model = Model::load(flags)?;
    dnsmasq::programs(&model)?;
    let file = model.config.as_ref().map_or("no file".into(), |file| file.display().to_string());
    println!("{file}: good");
    println!("node {}: NICs {}", model.node, {
        let names: Vec<_> = model.nics.iter().map(|nic| nic.name.as_str()).collect();
        names.join(", ")
    });
    for network in &model.networks {
        let vifs = model.vifs.iter().filter(|vif| {
            model.networks.get(vif.network).is_some_and(|at| at.name == network.name)
        });
        let vlan = network.vlan.map_or("untagged".into(), |vlan| format!("VLAN {vlan}"));
        println!(
            "network {}: {vlan} on {}, bridge {}, {} vifs",
            network.name,
            network.uplink,
            network.bridge,
            vifs.count()
        );
    }
    for warning in &model.warnings {
        println!("WARNING: {warning}");
    }
    Ok(())
}

/// `run`: brings the node up and keeps it so until SIGTERM or SIGINT.
pub(crate) fn run(flags: &Flags, takeover: bool) -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours);
    log.with_writer(std::io::stderr).init();
    let model = Model::load(flags)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(flags, model, takeover))
}

async fn serve(flags: &Flags, model: Model, takeover: bool) -> Result<()> {
    // Signals first: one that comes during the start is obeyed after it.
    let (mut hangup, mut terminate) =
        (signal(SignalKind::hangup())?, signal(SignalKind::terminate())?);
    let mut interrupt = signal(SignalKind::interrupt())?;
    if takeover {
        take_over(&model).await?;
    }
    let listener = patiently(|| api::listen(&model.control_socket)).await?;
    let socket = model.control_socket.clone();
    let started = start::start(flags, model).await;
    let (mut node, mut watch) = started.inspect_err(|_| drop(std::fs::remove_file(&socket)))?;
    let (questions, mut asked) = mpsc::channel(QUESTIONS);
    let server = tokio::spawn(api::serve(listener, questions));
    let wake = UnixDatagram::from_std(node.workers.wake.try_clone()?)?;
    let mut rung = [0; 64];
    let (mut ageing, mut pass) = (tokio::time::interval(AGEING), tokio::time::interval(PASS));
    let mut second = tokio::time::interval(SECOND);
    tracing::info!(node = %node.model.node, workers = node.workers.len(), "ready");
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => { let _ = node.reload().await; }
            event = watch.next() => {
                let event = event?;
                node.link(event.clone()).await;
                node.tend_after(&event).await;
            }
            Some(request) = asked.recv() => match request {
                Request::HandOver(reply) => {
                    let _ = reply.send(HandedOver { pid: std::process::id() });
                    // The answer is written by the server, which runs while this waits.
                    tokio::time::sleep(PASS).await;
                    break;
                }
                request => node.answer(request).await,
            },
            told = wake.recv(&mut rung) => {
                told?;
                node.hear().await?;
            }
            _ = second.tick() => {
                node.second();
                node.tend_dnsmasq();
                node.follow_queues().await;
            }
            _ = ageing.tick() => {
                node.age();
                node.confirm_hops().await;
                if let Err(error) = node.tell_strangers().await {
                    tracing::warn!("{error:#}");
                }
                if node.workers.any_finished() {
                    bail!("a worker ended by itself; this is a bug: please report what it said above");
                }
            }
            _ = pass.tick(), if node.has_work() => node.work().await?,
        }
    }
    tracing::info!("stopped; programs and interfaces stay: `trunkline detach` takes them away");
    server.abort();
    node.workers.halt();
    std::fs::remove_file(&socket).with_context(|| format!("{}", socket.display()))?;
    Ok(())
}

/// Tries until it succeeds, for a second: a daemon that was just killed still holds its socket and
/// its lock while the kernel takes it apart.
pub(crate) async fn patiently<T, E, F: Future<Output = Result<T, E>>>(
    mut act: impl FnMut() -> F,
) -> Result<T, E> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(1);
    loop {
        match act().await {
            Err(_) if tokio::time::Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            outcome => return outcome,
        }
    }
}

impl Node {
    /// Whether something waits to be done for many changes at once.
    fn has_work(&self) -> bool {
        self.has_pending() || self.public.stale || self.public.floats_changed
    }

    async fn work(&mut self) -> Result<()> {
        if self.public.stale {
            self.look_at_public().await?;
        }
        if self.public.floats_changed {
            self.lead_host_to_floats().await?;
        }
        self.make_pass();
        Ok(())
    }

    async fn answer(&mut self, request: Request) {
        // Who asked may have gone; that is no concern of ours.
        match request {
            Request::Status(reply) => drop(reply.send(self.status())),
            Request::Ports(reply) => drop(reply.send(self.port_reports())),
            Request::Segments(reply) => drop(reply.send(self.segment_reports())),
            Request::Fdb(segment, reply) => drop(reply.send(self.fdb_report(segment.as_deref()))),
            Request::Routes(reply) => {
                let routes = &self.publisher.current().routes;
                drop(reply.send(describe::routes(routes, &self.names.told())));
            }
            Request::Neighbours(reply) => {
                let table = Arc::clone(&self.publisher.current().neighbours);
                let hops = (0..).map_while(|number| table.hop(number));
                let names = self.names.told();
                drop(reply.send(describe::neighbours(&self.neighbours, hops, &names)));
            }
            Request::Nat(reply) => {
                let nat = &self.publisher.current().nat;
                drop(reply.send(describe::nat(&self.model, nat, &self.names.told())));
            }
            Request::Leases(reply) => drop(reply.send(self.lease_reports())),
            Request::Groups(reply) => drop(reply.send(self.group_reports())),
            Request::Flows(filter, reply) => drop(reply.send(self.flow_reports(&filter))),
            Request::Cut(filter, reply) => drop(reply.send(self.cut(&filter))),
            Request::Explain(port, packet, reply) => {
                drop(reply.send(self.explain(&port, &packet)));
            }
            Request::Vif(name, reply) => drop(reply.send(Vif::of(&self.model, &name))),
            Request::Reload(reply) => drop(reply.send(self.reload().await)),
            Request::HandOver(_) => {} // ends the loop, and does not come here
        }
    }
}
