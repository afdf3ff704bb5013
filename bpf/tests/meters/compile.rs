//! BPF programs of the tests alone, compiled when they run: the product's build has nothing to do with them.

use std::path::Path;
use std::process::Command;

/// The object that clang makes of a source below this crate, as build.rs has it compiled.
pub fn object(source: &str) -> Vec<u8> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let headers = dir.path().join("include/bpf");
    std::fs::create_dir_all(&headers).unwrap();
    for (name, text) in libbpf_rs::libbpf_sys::API_HEADERS {
        std::fs::write(headers.join(name), text).unwrap();
    }
    let arch = Command::new("cc").arg("-print-multiarch").output().unwrap().stdout;
    let arch = String::from_utf8(arch).unwrap();
    let out = dir.path().join("test.bpf.o");
    let compiled = Command::new(std::env::var_os("CLANG").unwrap_or("clang".into()))
        .args(["-g", "-O2", "-target", "bpf", "-mcpu=v3", "-Wall", "-Wextra", "-Werror", "-c", "-o"])
        .args([&out, &here.join(source)])
        .arg("-I")
        .arg(here.join("include"))
        .arg("-I")
        .arg(dir.path().join("include"))
        .arg("-idirafter")
        .arg(format!("/usr/include/{}", arch.trim()))
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{source}: {}", String::from_utf8_lossy(&compiled.stderr));
    std::fs::read(out).unwrap()
}
