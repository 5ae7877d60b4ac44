//! The control socket, the client's end.

use std::io::ErrorKind;
use std::path::Path;

use http_body_util::{BodyExt, Empty};
use hyper::Method;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use crate::report::Problem;

/// Why the daemon gave no answer, or which one.
#[derive(Debug, thiserror::Error)]
pub enum CtlError {
    /// Nobody answers on the socket.
    #[error("{socket}: {why}; is the daemon of node {node} running?")]
    Nobody {
        /// Path of the socket.
        socket: String,
        /// What the system says.
        why: String,
        /// The node, by the socket's name.
        node: String,
    },
    /// The daemon refused, in its own words.
    #[error("{0}")]
    Refused(String),
    /// The conversation broke off or made no sense.
    #[error("{socket}: {why}")]
    Broken {
        /// Path of the socket.
        socket: String,
        /// What happened.
        why: String,
    },
}

/// `page?key=value`, with `value` written so that it arrives as it is.
#[must_use]
pub fn query(page: &str, key: &str, value: &str) -> String {
    let mut words = form_urlencoded::Serializer::new(String::new());
    format!("{page}?{}", words.append_pair(key, value).finish())
}

/// Asks for `path`, such as `/v1/status`.
///
/// # Errors
/// [`CtlError`]: nobody answers, the daemon refuses, or the answer is not a `T`.
pub async fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, CtlError> {
    ask(socket, Method::GET, path).await
}

/// Tells the daemon to do `path`, such as `/v1/reload`.
///
/// # Errors
/// [`CtlError`]: nobody answers, the daemon refuses, or the answer is not a `T`.
pub async fn post<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, CtlError> {
    ask(socket, Method::POST, path).await
}

/// Takes away what is at `path`, such as `/v1/flows?filter=vnet1`.
///
/// # Errors
/// [`CtlError`]: nobody answers, the daemon refuses, or the answer is not a `T`.
pub async fn delete<T: DeserializeOwned>(socket: &Path, path: &str) -> Result<T, CtlError> {
    ask(socket, Method::DELETE, path).await
}

async fn ask<T: DeserializeOwned>(
    socket: &Path,
    method: Method,
    path: &str,
) -> Result<T, CtlError> {
    let broken = |why: String| CtlError::Broken { socket: socket.display().to_string(), why };
    let stream = UnixStream::connect(socket).await.map_err(|error| nobody(socket, &error))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(error.to_string()))?;
    let conversation = async {
        let request = hyper::Request::builder()
            .method(method)
            .uri(path)
            .header(hyper::header::HOST, "trunkline")
            .body(Empty::<Bytes>::new())
            .map_err(|error| broken(error.to_string()))?;
        let answer =
            sender.send_request(request).await.map_err(|error| broken(error.to_string()))?;
        let status = answer.status();
        let body = answer.into_body().collect().await;
        let body = body.map_err(|error| broken(error.to_string()))?.to_bytes();
        if !status.is_success() {
            return Err(match serde_json::from_slice::<Problem>(&body) {
                Ok(problem) => CtlError::Refused(problem.error),
                Err(_) => broken(format!("the answer is {status}")),
            });
        }
        serde_json::from_slice(&body).map_err(|error| broken(error.to_string()))
    };
    tokio::pin!(conversation);
    // The connection must be driven for the conversation to go on; it may end before it.
    tokio::select! {
        answer = &mut conversation => answer,
        _ = connection => conversation.await,
    }
}

fn nobody(socket: &Path, error: &std::io::Error) -> CtlError {
    let name = socket.display().to_string();
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => CtlError::Nobody {
            node: socket.file_stem().unwrap_or_default().to_string_lossy().into_owned(),
            why: error.to_string(),
            socket: name,
        },
        ErrorKind::PermissionDenied => CtlError::Broken {
            socket: name,
            why: "permission denied; the control socket is for root and its group".into(),
        },
        _ => CtlError::Broken { socket: name, why: error.to_string() },
    }
}
