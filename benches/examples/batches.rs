//! Sends batches through the pipeline in memory and nothing else, to be counted by valgrind:
//! `batches hit|miss|copied ENTRIES BATCHES` (see tools/bench.d/instructions).

use benches::Bed;
use std::hint::black_box;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [what, entries, batches] = &words[..] else {
        panic!("usage: batches hit|miss|copied ENTRIES BATCHES");
    };
    let mut bed = Bed::with(entries.parse().expect("a number of lines"));
    for _ in 0..batches.parse().expect("a number of batches") {
        match what.as_str() {
            "hit" => {
                let known = bed.known();
                black_box(bed.forward(known));
            }
            "miss" => {
                let new = bed.new_ones();
                black_box(bed.forward(new));
            }
            _ => {
                let known = bed.known();
                black_box(bed.fill(known));
            }
        }
    }
}
