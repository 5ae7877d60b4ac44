//! A start over the table of an earlier run: continued, copied from, or refused, never guessed.
#![allow(clippy::unwrap_used)] // tests

mod common;

use common::{Node, enter_netns};
use conntrack::{FlowKey, NewLine, Rewrite, Table};
use kernel::{Kernel, Left, Settings};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};

const KEY: FlowKey = FlowKey::ipv4([10, 0, 0, 3], [10, 0, 0, 4], 1, 2, 17, 7, 1);

/// A node that ended with one connection open, and the number of its table.
fn ended(name: &str) -> (Node, u32) {
    enter_netns();
    let mut node = Node::start(name);
    let kernel = node.kernel();
    let table = Table::new(kernel.lines(), kernel.header().hash_key());
    let line = |key| NewLine { key, rewrite: Rewrite::default() };
    table.install(&line(KEY), &line(KEY.reversed(8, 1)), 1, 60).unwrap();
    let _ = kernel.header().next_stamp();
    let id = kernel.table_id().unwrap();
    node.kernel = None;
    (node, id)
}

fn start(node: &mut Node, lines: u32, continues: Option<u32>) -> Result<&mut Kernel, String> {
    let settings = Settings { lines, hash_key: 99, tcx: true, replays: true, continues };
    let kernel = Kernel::start(&node.name, &settings).map_err(|error| error.to_string())?;
    Ok(node.kernel.insert(kernel))
}

fn pin(node: &Node, map: &str) -> MapHandle {
    MapHandle::from_pinned_path(format!("/sys/fs/bpf/trunkline/{}/{map}", node.name)).unwrap()
}

fn finds_it(kernel: &Kernel) -> bool {
    let table = Table::new(kernel.lines(), kernel.header().hash_key());
    table.find(KEY, table.hash(KEY)).is_some()
}

#[test]
fn connections_stamps_and_key_go_on_in_the_same_table() {
    let (mut node, id) = ended("same");
    let kernel = start(&mut node, 64, Some(id)).unwrap();
    assert!(matches!(kernel.left(), Left::Same));
    assert_eq!((kernel.header().hash_key(), kernel.header().stamp()), (1, 1));
    assert_eq!((kernel.table_id().unwrap(), finds_it(kernel)), (id, true));
}

#[test]
fn a_table_of_another_size_stays_pinned_until_it_has_been_copied() {
    let (mut node, id) = ended("size");
    let kernel = start(&mut node, 128, Some(id)).unwrap();
    let Left::Other(lines, hash_key) = kernel.left() else { panic!("{:?}", kernel.left()) };
    assert_eq!((lines.len(), hash_key, kernel.lines().len()), (64, 1, 128));
    assert_eq!((kernel.header().hash_key(), kernel.header().stamp()), (99, 1));
    let new = Table::new(kernel.lines(), kernel.header().hash_key());
    assert_eq!(new.take_over(&Table::new(lines, hash_key)).connections, 1);
    assert!(finds_it(kernel));
    assert_eq!(pin(&node, "lines").max_entries(), 64);
    node.kernel().keep_table().unwrap();
    assert_eq!(pin(&node, "lines").max_entries(), 128);
}

#[test]
fn a_table_whose_numbers_nobody_knows_is_not_continued() {
    let (mut node, id) = ended("unknown");
    for continues in [None, Some(id + 100_000)] {
        let kernel = start(&mut node, 64, continues).unwrap();
        assert!(matches!(kernel.left(), Left::Nothing));
        assert!(!finds_it(kernel));
        node.kernel = None;
    }
}

#[test]
fn a_table_of_another_layout_is_refused_in_words_and_stays() {
    let (mut node, id) = ended("layout");
    let header = pin(&node, "header");
    let mut row = header.lookup(&[0; 4], MapFlags::ANY).unwrap().unwrap();
    row[..4].copy_from_slice(&77u32.to_ne_bytes());
    header.update(&[0; 4], &row, MapFlags::ANY).unwrap();
    let said = start(&mut node, 64, Some(id)).unwrap_err();
    assert!(said.contains("are in a table of layout 77, and this version has layout"), "{said}");
    assert!(said.ends_with("or end them with trunkline detach"), "{said}");
    assert_eq!(pin(&node, "lines").info().unwrap().info.id, id);
}
