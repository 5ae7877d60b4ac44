//! Benchmarks of the parts: `cargo bench -p benches`. What they printed is kept under `runs/`.
