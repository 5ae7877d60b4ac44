//! A pcap file of a test's frames (draft-ietf-opsawg-pcap: magic, version 2.4, Ethernet).

use std::path::{Path, PathBuf};

/// Frames in the order they were seen.
#[derive(Debug, Default)]
pub struct Pcap {
    bytes: Vec<u8>,
    packets: u32,
}

impl Pcap {
    /// Adds a frame; its time is its number, in microseconds.
    pub fn add(&mut self, frame: &[u8]) {
        let len = u32::try_from(frame.len()).expect("a frame is shorter than 4 GiB");
        for word in [0, self.packets, len, len] {
            self.bytes.extend(u32::to_le_bytes(word));
        }
        self.bytes.extend(frame);
        self.packets += 1;
    }

    /// Writes `target/pcap/<name>.pcap`.
    pub fn save(&self, name: &str) -> PathBuf {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/pcap");
        std::fs::create_dir_all(&folder).unwrap();
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1] {
            file.extend(u32::to_le_bytes(word));
        }
        file.extend(&self.bytes);
        let path = folder.join(format!("{name}.pcap"));
        std::fs::write(&path, file).unwrap();
        path
    }
}
