//! Where things outlive the daemon: one directory in bpffs for each node.
//!
//! ```text
//! /sys/fs/bpf/trunkline/<node>/<map>           maps
//! /sys/fs/bpf/trunkline/<node>/links/xdp_7     XDP link on the interface of index 7
//! /sys/fs/bpf/trunkline/<node>/links/tc_9      TCX link
//! ```
//!
//! bpffs takes no name with a dot in it: interfaces (`eth0.100`) are named by index, and a dot in
//! a node's name becomes a colon, which no node has.

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read as _, Seek as _, Write as _};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use libbpf_rs::libbpf_sys;

use crate::error::{Doing as _, Error};

const BPFFS: &str = "/sys/fs/bpf";
const RUN: &str = "/run/trunkline";
/// How long to wait for a process to end.
const PATIENCE: Duration = Duration::from_secs(1);
/// linux/magic.h
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The pins of a node.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    dir: PathBuf,
}

/// Where a link is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkKind {
    Xdp,
    Tc,
    /// tc, for what leaves by the interface.
    Egress,
}

/// The node's lock; whoever holds it is the node's daemon. Given back with the process.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
    path: PathBuf,
}

/// Refuses what cannot name a node.
pub(crate) fn check_node(node: &str) -> Result<(), Error> {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let fits = (1..=64).contains(&node.len()) && !node.starts_with('.');
    if fits && node.bytes().all(letter) { Ok(()) } else { Err(Error::Node(node.to_owned())) }
}

impl Lock {
    /// Takes the node's lock, or says who has it: a process that was just killed has it a little
    /// longer, while its memory is taken apart.
    pub(crate) fn take(node: &str) -> Result<Self, Error> {
        let path = Path::new(RUN).join(format!("{node}.lock"));
        let doing = || format!("cannot lock {}", path.display());
        fs::create_dir_all(RUN).doing(doing)?;
        let start = Instant::now();
        loop {
            let mut options = OpenOptions::new();
            let open = options.read(true).write(true).create(true).truncate(false).open(&path);
            let mut file = open.doing(doing)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(fs::TryLockError::WouldBlock) if start.elapsed() < PATIENCE => {
                    std::thread::sleep(PATIENCE / 100);
                    continue;
                }
                Err(fs::TryLockError::WouldBlock) => {
                    return Err(Error::Running { node: node.to_owned(), pid: holder(&mut file) });
                }
                Err(fs::TryLockError::Error(error)) => return Err(Error::system(doing(), error)),
            }
            // Whoever held it may have removed the file since it was opened: then it locks nothing.
            let lock = Self { file, path: path.clone() };
            if lock.is_in_place().doing(doing)? {
                lock.sign().doing(doing)?;
                return Ok(lock);
            }
        }
    }

    fn is_in_place(&self) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(there) => Ok(there.ino() == self.file.metadata()?.ino()),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn sign(&self) -> io::Result<()> {
        let mut file = &self.file;
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    }

    /// Gives the lock back and leaves no file.
    pub(crate) fn remove(self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// The process that signed a lock.
fn holder(file: &mut File) -> String {
    let mut pid = String::new();
    let _ = file.read_to_string(&mut pid);
    if pid.trim().is_empty() { "?".to_owned() } else { pid.trim().to_owned() }
}

impl Pins {
    /// The node's directory, which need not be there.
    pub(crate) fn of(node: &str) -> Result<Self, Error> {
        check_node(node)?;
        check_bpffs(Path::new(BPFFS))?;
        let dir = Path::new(BPFFS).join("trunkline").join(node.replace('.', ":"));
        Ok(Self { dir })
    }

    pub(crate) fn make(&self) -> Result<(), Error> {
        let links = self.links_dir();
        fs::create_dir_all(&links).doing(|| format!("cannot make {}", links.display()))
    }

    pub(crate) fn exist(&self) -> bool {
        self.dir.exists()
    }

    pub(crate) fn map(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn link(&self, kind: LinkKind, ifindex: u32) -> PathBuf {
        let kind = match kind {
            LinkKind::Xdp => "xdp",
            LinkKind::Tc => "tc",
            LinkKind::Egress => "egress",
        };
        self.links_dir().join(format!("{kind}_{ifindex}"))
    }

    /// All pinned links, as (interface's index, path).
    pub(crate) fn links(&self) -> Result<Vec<(u32, PathBuf)>, Error> {
        let of = |path: PathBuf| {
            let (_, index) = path.file_name()?.to_str()?.split_once('_')?;
            Some((index.parse().ok()?, path))
        };
        Ok(entries(&self.links_dir())?.into_iter().filter_map(of).collect())
    }

    /// Pins under that path, in place of what was there, without a moment in between.
    pub(crate) fn put(&self, object: BorrowedFd<'_>, path: &Path) -> Result<(), Error> {
        let doing = || format!("cannot pin {}", path.display());
        let fresh = self.dir.join("fresh");
        remove(&fresh).doing(doing)?;
        pin(object, &fresh).doing(doing)?;
        fs::rename(&fresh, path).doing(doing)
    }

    /// Removes all pins and the directory.
    pub(crate) fn remove(&self) -> Result<(), Error> {
        for dir in [self.links_dir(), self.dir.clone()] {
            let doing = || format!("cannot remove {}", dir.display());
            for path in entries(&dir)? {
                remove(&path).doing(doing)?;
            }
            match fs::remove_dir(&dir) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(Error::system(doing(), error));
                }
                _ => {}
            }
        }
        // Another node's pins may be in it.
        let _ = self.dir.parent().map(fs::remove_dir);
        Ok(())
    }

    fn links_dir(&self) -> PathBuf {
        self.dir.join("links")
    }
}

fn check_bpffs(path: &Path) -> Result<(), Error> {
    let not = || Error::NotBpffs(path.to_owned());
    let name = c_path(path).map_err(|_| not())?;
    // SAFETY: all zeros is a valid statfs.
    let mut found: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: a string that ends with a zero and a whole statfs, both outliving the call.
    let result = unsafe { libc::statfs(name.as_ptr(), &raw mut found) };
    if result == 0 && found.f_type == BPF_FS_MAGIC { Ok(()) } else { Err(not()) }
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, Error> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::system(format!("cannot read {}", dir.display()), error)),
    }
}

/// Removes a pin; none there is no error.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| ErrorKind::InvalidInput.into())
}

fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: an open descriptor and a string that ends with a zero.
    match unsafe { libbpf_sys::bpf_obj_pin(object.as_raw_fd(), path.as_ptr()) } {
        0 => Ok(()),
        error => Err(io::Error::from_raw_os_error(-error)),
    }
}

/// What is pinned there; none if nothing is.
pub(crate) fn open(path: &Path) -> io::Result<Option<OwnedFd>> {
    let path = c_path(path)?;
    // SAFETY: a string that ends with a zero.
    match unsafe { libbpf_sys::bpf_obj_get(path.as_ptr()) } {
        error if error == -libc::ENOENT => Ok(None),
        error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
        // SAFETY: the call made this descriptor for us.
        fd => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_dots_has_a_directory_that_bpffs_takes() {
        let pins = Pins::of("compute-1.example.org").unwrap();
        assert_eq!(pins.dir, Path::new("/sys/fs/bpf/trunkline/compute-1:example:org"));
        assert_eq!(pins.link(LinkKind::Tc, 9), pins.dir.join("links/tc_9"));
    }

    #[test]
    fn what_cannot_name_a_directory_is_refused() {
        for name in ["", ".", "..", "a/b", "a:b", &"x".repeat(65)] {
            assert!(matches!(Pins::of(name), Err(Error::Node(_))), "{name}");
        }
    }

    #[test]
    fn a_path_that_is_no_bpffs_says_how_to_mount_one() {
        let said = check_bpffs(Path::new("/proc")).unwrap_err().to_string();
        assert!(said.contains("/proc is no bpffs: mount it (mount -t bpf bpf /sys/fs/bpf)"));
        check_bpffs(Path::new(BPFFS)).unwrap();
    }

    #[test]
    fn a_second_daemon_of_one_node_is_told_who_runs_it() {
        let node = format!("tlk-lock-{}", std::process::id());
        let lock = Lock::take(&node).unwrap();
        let said = Lock::take(&node).unwrap_err().to_string();
        let pid = std::process::id();
        assert_eq!(
            said,
            format!(
                "node {node} is run by process {pid} already: stop it first, or say another --node"
            )
        );
        // One that is just ending is waited for.
        let ending = std::thread::spawn(move || {
            std::thread::sleep(PATIENCE / 10);
            drop(lock);
        });
        Lock::take(&node).unwrap().remove();
        ending.join().unwrap();
        assert!(!Path::new(RUN).join(format!("{node}.lock")).exists());
    }
}
