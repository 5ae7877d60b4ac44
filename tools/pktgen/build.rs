//! Compiles the programs of `bpf/` with clang and writes their skeletons.

use std::env;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let variable = |name| env::var(name).expect("cargo sets it");
    let out = PathBuf::from(variable("OUT_DIR"));
    // Debian keeps <asm/types.h> where only a native compiler looks.
    let include = format!("-I/usr/include/{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH"));
    for name in ["send", "sink", "bridge"] {
        let source = Path::new("bpf").join(format!("{name}.bpf.c"));
        let built = SkeletonBuilder::new()
            .source(&source)
            .clang_args([&include, "-mcpu=v3", "-Wall", "-Wextra", "-Werror"])
            .build_and_generate(out.join(format!("{name}.skel.rs")));
        if let Err(error) = built {
            panic!("{}: {error:#}\nclang and the kernel's headers are needed", source.display());
        }
    }
    println!("cargo:rerun-if-changed=bpf");
}
