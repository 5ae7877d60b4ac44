//! The control socket, the daemon's end: HTTP and JSON over a Unix socket.
//!
//! The daemon is one thread. A question comes to it as a [`Request`] on a channel and goes back on
//! the request's own channel, so nothing of the daemon is shared and nothing is locked.

use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::filter::Filter;
use crate::report::{
    Cut, Explained, FdbEntry, Flow, Group, HandedOver, Lease, Nat, Neighbour, Port, Problem,
    Reloaded, Route, Segment, Status, Vif,
};

/// A question to the daemon, and where its answer goes.
#[derive(Debug)]
pub enum Request {
    /// The daemon as a whole.
    Status(oneshot::Sender<Status>),
    /// All ports, by number.
    Ports(oneshot::Sender<Vec<Port>>),
    /// All segments, by number.
    Segments(oneshot::Sender<Vec<Segment>>),
    /// The MACs of one segment (by name) or of all.
    Fdb(Option<String>, oneshot::Sender<Vec<FdbEntry>>),
    /// All routes, by zone and prefix.
    Routes(oneshot::Sender<Vec<Route>>),
    /// All neighbours, by link and address.
    Neighbours(oneshot::Sender<Vec<Neighbour>>),
    /// Address translation.
    Nat(oneshot::Sender<Nat>),
    /// What every VM is told by DHCP.
    Leases(oneshot::Sender<Vec<Lease>>),
    /// Security groups in the order of the file.
    Groups(oneshot::Sender<Vec<Group>>),
    /// The flows the filter lets through.
    Flows(Filter, oneshot::Sender<Vec<Flow>>),
    /// End the connections of which the filter lets a flow through; it has a word at least.
    Cut(Filter, oneshot::Sender<Cut>),
    /// What would become of a packet in words that came by the port of that name; `Err` says what
    /// is wrong with the question.
    Explain(String, String, oneshot::Sender<Result<Explained, String>>),
    /// What the VM behind the vif of this name has to know; `Err` says that there is none.
    Vif(String, oneshot::Sender<Result<Vif, String>>),
    /// Stop, for the daemon that takes this one's place; everything stays for it.
    HandOver(oneshot::Sender<HandedOver>),
    /// Read the file again; `Err` says why the old configuration stays.
    Reload(oneshot::Sender<Result<Reloaded, String>>),
}

/// A daemon that does not answer for this long is told to be stuck.
const PATIENCE: Duration = Duration::from_secs(10);
/// A reload may have a thousand vifs to plug, and the kernel takes 30 ms for each.
const RELOAD_PATIENCE: Duration = Duration::from_secs(600);

/// The socket of the daemon called `node`, unless told otherwise.
#[must_use]
pub fn socket_path(node: &str) -> PathBuf {
    PathBuf::from(format!("/run/trunkline/{node}.sock"))
}

/// Opens the control socket (mode 0660, its directory 0755 if it has to be made).
///
/// A socket file nobody answers on is what a killed daemon left, and is replaced.
///
/// # Errors
/// Another daemon answers there, something that is no socket is there, or the system refuses.
pub async fn listen(path: &Path) -> io::Result<UnixListener> {
    let told = |error: io::Error| {
        io::Error::new(error.kind(), format!("control socket {}: {error}", path.display()))
    };
    if let Some(directory) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(told)?;
    }
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let message = "something that is no socket is in its place";
            return Err(told(io::Error::new(io::ErrorKind::AlreadyExists, message)));
        }
        Ok(_) => match UnixStream::connect(path).await {
            Ok(_) => {
                let message = "another daemon answers there: take its place with --takeover, or give \
                               this one another --node";
                return Err(told(io::Error::new(io::ErrorKind::AddrInUse, message)));
            }
            Err(_) => std::fs::remove_file(path).map_err(told)?,
        },
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(told)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660)).map_err(told)?;
    Ok(listener)
}

/// Answers on `listener` until it is dropped, asking the daemon over `requests`.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: UnixListener, requests: mpsc::Sender<Request>) -> io::Result<()> {
    axum::serve(listener, router(requests)).await
}

fn router(requests: mpsc::Sender<Request>) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/ports", get(ports))
        .route("/v1/segments", get(segments))
        .route("/v1/fdb", get(fdb))
        .route("/v1/routes", get(routes))
        .route("/v1/neighbours", get(neighbours))
        .route("/v1/nat", get(nat))
        .route("/v1/dhcp", get(leases))
        .route("/v1/groups", get(groups))
        .route("/v1/flows", get(flows).delete(cut))
        .route("/v1/explain", get(explain))
        .route("/v1/vif", get(vif))
        .route("/v1/reload", post(reload))
        .route("/v1/handover", post(hand_over))
        .fallback(async |uri: Uri| {
            problem(StatusCode::NOT_FOUND, &format!("there is no such page: {}", uri.path()))
        })
        .method_not_allowed_fallback(async |method: Method, uri: Uri| {
            let error = format!("{} is not asked with {method}", uri.path());
            problem(StatusCode::METHOD_NOT_ALLOWED, &error)
        })
        .with_state(Daemon(requests))
}

/// The daemon, as the handlers see it.
#[derive(Clone)]
struct Daemon(mpsc::Sender<Request>);

impl Daemon {
    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Response> {
        self.ask_within(PATIENCE, request).await
    }

    async fn ask_within<T>(
        &self,
        patience: Duration,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, Response> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.0.send(request(reply)).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(patience, asked).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(problem(StatusCode::SERVICE_UNAVAILABLE, "the daemon is stopping")),
            Err(_) => Err(problem(
                StatusCode::GATEWAY_TIMEOUT,
                "the daemon does not answer: a long reload?",
            )),
        }
    }
}

/// The answer as JSON, or the problem with getting it.
fn json<T: Serialize>(answer: Result<T, Response>) -> Response {
    answer.map_or_else(|problem| problem, |answer| Json(answer).into_response())
}

fn problem(status: StatusCode, error: &str) -> Response {
    (status, Json(Problem { error: error.into() })).into_response()
}

async fn status(State(daemon): State<Daemon>) -> Response {
    json(daemon.ask(Request::Status).await)
}

async fn ports(State(daemon): State<Daemon>) -> Response {
    json(daemon.ask(Request::Ports).await)
}

async fn segments(State(daemon): State<Daemon>) -> Response {
    json(daemon.ask(Request::Segments).await)
}

#[derive(Deserialize)]
struct Of {
    segment: Option<String>,
}

async fn fdb(State(daemon): State<Daemon>, Query(of): Query<Of>) -> Response {
    json(daemon.ask(|reply| Request::Fdb(of.segment, reply)).await)
}

async fn routes(State(daemon): State<Daemon>) -> Response {
    json(daemon.ask(Request::Routes).await)
}

async fn neighbours(State(daemon): State<Daemon>) -> Response {
    json(daemon.ask(Request::Neighbours).await)
}

async fn nat(State(daemon): State<Daemon>) -> Response {
    json(daemon.ask(Request::Nat).await)
}

async fn leases(State(daemon): State<Daemon>) -> Response {
    json(daemon.ask(Request::Leases).await)
}

async fn groups(State(daemon): State<Daemon>) -> Response {
    json(daemon.ask(Request::Groups).await)
}

#[derive(Deserialize)]
struct Which {
    #[serde(default)]
    filter: Filter,
}

async fn flows(State(daemon): State<Daemon>, Query(which): Query<Which>) -> Response {
    json(daemon.ask(|reply| Request::Flows(which.filter, reply)).await)
}

async fn cut(State(daemon): State<Daemon>, Query(which): Query<Which>) -> Response {
    // A slip of the fingers must not end every connection of the node.
    if which.filter.is_empty() {
        let error = "say which: a port, an address, address:port or a protocol";
        return problem(StatusCode::UNPROCESSABLE_ENTITY, error);
    }
    json(daemon.ask(|reply| Request::Cut(which.filter, reply)).await)
}

#[derive(Deserialize)]
struct Asked {
    port: String,
    packet: String,
}

async fn explain(State(daemon): State<Daemon>, Query(asked): Query<Asked>) -> Response {
    refusable(daemon.ask(|reply| Request::Explain(asked.port, asked.packet, reply)).await)
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

async fn vif(State(daemon): State<Daemon>, Query(which): Query<Named>) -> Response {
    refusable(daemon.ask(|reply| Request::Vif(which.name, reply)).await)
}

async fn reload(State(daemon): State<Daemon>) -> Response {
    refusable(daemon.ask_within(RELOAD_PATIENCE, Request::Reload).await)
}

async fn hand_over(State(daemon): State<Daemon>) -> Response {
    json(daemon.ask(Request::HandOver).await)
}

/// An answer that may be a refusal with its reason.
fn refusable<T: Serialize>(answer: Result<Result<T, String>, Response>) -> Response {
    match answer {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(reason)) => problem(StatusCode::UNPROCESSABLE_ENTITY, &reason),
        Err(problem) => problem,
    }
}
