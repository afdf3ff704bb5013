//! Compiles the XDP programs of the source and the sink, and those of the examples, into `OUT_DIR`.

use libbpf_cargo::SkeletonBuilder;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, exit};

fn main() {
    for source in ["pktgen.bpf.c", "lab.bpf.c", "pktgen.h", "pg_source.h", "pg_sink.h"] {
        println!("cargo:rerun-if-changed=src/{source}");
    }
    println!("cargo:rerun-if-changed=../../bpf/include/gw_wire.h");
    println!("cargo:rerun-if-env-changed=CLANG");
    let clang = env::var_os("CLANG").unwrap_or_else(|| OsString::from("clang"));
    let (Some(out), Some(here)) = (env::var_os("OUT_DIR"), env::var_os("CARGO_MANIFEST_DIR")) else {
        fail("OUT_DIR and CARGO_MANIFEST_DIR are not set: build with cargo");
    };
    let (out, here) = (PathBuf::from(out), PathBuf::from(here));
    let src = here.join("src");
    let mut args: Vec<OsString> =
        ["-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-I"].map(OsString::from).into();
    args.push(src.clone().into());
    // The wire formats of the gateway's program, which the lab shares.
    args.push("-I".into());
    args.push(here.join("../../bpf/include").into());
    // linux/bpf.h includes asm/types.h, which Debian keeps in a directory per architecture that
    // clang does not search for the target bpf.
    args.push("-idirafter".into());
    args.push(format!("/usr/include/{}", multiarch()).into());
    for program in ["pktgen", "lab"] {
        let built = SkeletonBuilder::new()
            .source(src.join(format!("{program}.bpf.c")))
            .clang(&clang)
            .clang_args(&args)
            .obj(out.join(format!("{program}.bpf.o")))
            .build();
        if let Err(e) = built {
            fail(&format!(
                "{} could not compile benches/pktgen/src/{program}.bpf.c: {e:#}\n\
                 It takes clang 12 or later and the kernel headers (`apt-get install clang linux-libc-dev`).",
                clang.to_string_lossy()
            ));
        }
    }
}

/// The name of the directory of this architecture's headers, as `x86_64-linux-gnu`.
fn multiarch() -> String {
    let output = Command::new("cc").arg("-print-multiarch").output();
    let name = output.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok());
    match name.as_deref().map(str::trim) {
        Some(n) if !n.is_empty() => n.to_owned(),
        _ => format!("{}-linux-gnu", env::consts::ARCH),
    }
}

#[expect(clippy::disallowed_methods, reason = "a build script that fails says why and ends; nothing is open")]
fn fail(message: &str) -> ! {
    eprintln!("error: {message}");
    exit(1)
}
