//! Compiles the BPF programs and generates their Rust types into `OUT_DIR`. A compiler that is missing
//! or fails stops the build.

use libbpf_cargo::SkeletonBuilder;
use std::env;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, exit};

/// The XDP program, the tc programs, the one that counts the frames that devices do not take of XDP, and the one that sends
/// for workers.
const PROGRAMS: [&str; 4] = ["gw", "tc", "lost", "send"];

fn main() {
    for name in PROGRAMS {
        println!("cargo:rerun-if-changed=src/{name}.bpf.c");
    }
    println!("cargo:rerun-if-changed=include");
    println!("cargo:rerun-if-env-changed=CLANG");

    let clang = env::var_os("CLANG").unwrap_or_else(|| OsString::from("clang"));
    if let Err(e) = Command::new(&clang).arg("--version").output() {
        fail(&format!(
            "the XDP program needs clang, and `{}` does not run: {e}. \
             Install it (`scripts/setup.sh`, or `apt-get install clang`) or set CLANG to its path.",
            clang.to_string_lossy()
        ));
    }
    let (Some(out), Some(here)) = (env::var_os("OUT_DIR"), env::var_os("CARGO_MANIFEST_DIR")) else {
        fail("OUT_DIR and CARGO_MANIFEST_DIR are not set: build with cargo");
    };
    let (out, here) = (PathBuf::from(out), PathBuf::from(here));

    let mut args: Vec<OsString> = ["-mcpu=v3", "-Wall", "-Wextra", "-Werror"].map(OsString::from).into();
    args.push("-I".into());
    args.push(here.join("include").into());
    // linux/bpf.h includes asm/types.h, which Debian keeps in a directory per architecture that
    // clang does not search for the target bpf.
    args.push("-idirafter".into());
    args.push(format!("/usr/include/{}", multiarch()).into());

    for name in PROGRAMS {
        let built = SkeletonBuilder::new()
            .source(here.join(format!("src/{name}.bpf.c")))
            .clang(&clang)
            .clang_args(&args)
            .obj(out.join(format!("{name}.bpf.o")))
            .build_and_generate(out.join(format!("{name}.skel.rs")));
        if let Err(e) = built {
            fail(&format!(
                "{} could not compile bpf/src/{name}.bpf.c: {e:#}\n\
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
