//! Compiles bpf/ with clang and writes the skeletons.

use std::env;
use std::path::{Path, PathBuf};

use libbpf_cargo::SkeletonBuilder;

fn main() {
    let variable = |name| env::var(name).expect("cargo sets it");
    let sources = Path::new(&variable("CARGO_MANIFEST_DIR")).join("../../bpf");
    let out = PathBuf::from(variable("OUT_DIR"));
    // Debian keeps <asm/types.h> where only a native compiler looks.
    let include = format!("-I/usr/include/{}-linux-gnu", variable("CARGO_CFG_TARGET_ARCH"));
    // `traced` is `forward` that also tells a test what it did.
    for (name, of, flags) in
        [("forward", "forward", ""), ("deliver", "deliver", ""), ("traced", "forward", "-DTRACED")]
    {
        let source = sources.join(format!("{of}.bpf.c"));
        // v3 has the compare-and-swap that the token buckets need; kernels since 5.12 take it.
        let built = SkeletonBuilder::new()
            .source(&source)
            .clang_args(
                [&include, "-mcpu=v3", "-Wall", "-Wextra", "-Werror", flags]
                    .into_iter()
                    .filter(|argument| !argument.is_empty()),
            )
            .build_and_generate(out.join(format!("{name}.skel.rs")));
        if let Err(error) = built {
            panic!("{}: {error:#}\nclang and the kernel's headers are needed", source.display());
        }
    }
    println!("cargo:rerun-if-changed={}", sources.display());
}
