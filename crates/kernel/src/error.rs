//! Why the kernel side could not be set up, in words for an operator.

use std::io;
use std::path::PathBuf;

use crate::layout::LAYOUT;

/// Why the kernel side could not be set up or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The node's name cannot name a directory.
    #[error("'{0}' cannot name a node: use letters, digits, '-', '_' and '.', no '.' first")]
    Node(String),
    /// There is no bpffs where pins go.
    #[error(
        "{0} is no bpffs: mount it (mount -t bpf bpf /sys/fs/bpf); inside `ip netns exec` it is \
         hidden: start with nsenter --net=/run/netns/NAME"
    )]
    NotBpffs(PathBuf),
    /// The process may not do what it must.
    #[error("missing {}: run as root, or give these capabilities", .0.join(", "))]
    Capabilities(Vec<&'static str>),
    /// A daemon of this node lives.
    #[error("node {node} is run by process {pid} already: stop it first, or say another --node")]
    Running {
        /// The node.
        node: String,
        /// Process that holds the node's lock, `?` if it did not say.
        pid: String,
    },
    /// libbpf or the verifier refused an object.
    #[error("cannot load the {object} programs: {source}\n{log}")]
    Load {
        /// Name of the object.
        object: &'static str,
        /// What libbpf said last, the verifier's log among it.
        log: String,
        /// Its error.
        source: libbpf_rs::Error,
    },
    /// Somebody else's program is where ours must go. Nothing was changed.
    #[error("{interface}: {program} is attached and is not ours; look: {look}; remove: {remove}")]
    Foreign {
        /// Name of the interface.
        interface: String,
        /// The program: hook, name and id.
        program: String,
        /// Command that shows it.
        look: String,
        /// Command that removes it.
        remove: String,
    },
    /// The connections of an earlier run are kept in a way this version does not read.
    #[error(
        "the connections of node {node} are in a table of layout {found}, and this version has \
         layout {LAYOUT}: start the version that left them, or end them with trunkline detach"
    )]
    Layout {
        /// The node.
        node: String,
        /// Layout of the table that is there.
        found: u32,
    },
    /// What was asked for cannot be had on this interface.
    #[error("{interface}: {why}")]
    Unfit {
        /// Name of the interface.
        interface: String,
        /// Why, and what to do.
        why: String,
    },
    /// A number that is out of range or names nothing.
    #[error("there is no {what} {number}")]
    Number {
        /// What the number should name.
        what: &'static str,
        /// The number.
        number: u32,
    },
    /// The node's programs are on interfaces of another network namespace.
    #[error(
        "node {0} is attached in another network namespace: run this there (nsenter \
         --net=/run/netns/NAME)"
    )]
    Elsewhere(String),
    /// A map refused.
    #[error("map {map}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// libbpf's error.
        source: libbpf_rs::Error,
    },
    /// The system refused.
    #[error("{doing}: {source}")]
    System {
        /// What was tried.
        doing: String,
        /// The system's reason.
        source: io::Error,
    },
}

impl Error {
    pub(crate) fn system(doing: impl Into<String>, source: io::Error) -> Self {
        Self::System { doing: doing.into(), source }
    }
}

/// Names what was tried, for the error message.
pub(crate) trait Doing<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Error>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, doing: impl FnOnce() -> String) -> Result<T, Error> {
        self.map_err(|source| Error::system(doing(), source))
    }
}
