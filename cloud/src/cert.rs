//! Certificates for a test bed: clients accept TLS only from a server whose certificate an authority has signed that
//! they trust, and this makes both.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use jiff::ToSpan as _;
use jiff::civil::Date;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};
use sag_cloud::time::{now_ms, stamp};

/// The files, in the folder that is named: what clients are to trust, and the two options of `serve`.
const AUTHORITY: &str = "ca.pem";
const CERTIFICATE: &str = "server.pem";
const KEY: &str = "server-key.pem";

/// What was made, as PEM.
struct Made {
    authority: String,
    certificate: String,
    key: String,
}

/// An authority, and a certificate of it for these names and addresses. The key of the authority is kept nowhere, so
/// nobody can make another certificate that its clients trust.
fn make(names: &[String], today: Date, days: u32) -> anyhow::Result<Made> {
    let (begin, end) = (today.checked_sub(1.day())?, today.checked_add(i64::from(days).days())?);
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "sag-cloud test authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    let mut server = CertificateParams::new(names).context("a name is neither a host name nor an address")?;
    server.distinguished_name.push(DnType::CommonName, "sag-cloud");
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    let moment =
        |day: Date| date_time_ymd(day.year().into(), day.month().unsigned_abs(), day.day().unsigned_abs());
    for params in [&mut authority, &mut server] {
        params.not_before = moment(begin);
        params.not_after = moment(end);
    }
    let (authority_key, key) = (KeyPair::generate()?, KeyPair::generate()?);
    let signed = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let certificate = server.signed_by(&key, &issuer)?.pem();
    Ok(Made { authority: signed, certificate, key: key.serialize_pem() })
}

/// Makes the three files; returns their paths. What is there already is not replaced.
pub fn write(names: &[String], folder: &Path, days: u32) -> anyhow::Result<[PathBuf; 3]> {
    let paths = [AUTHORITY, CERTIFICATE, KEY].map(|name| folder.join(name));
    for path in &paths {
        anyhow::ensure!(!path.exists(), "{} is there already; nothing is replaced", path.display());
    }
    std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let now = stamp(now_ms());
    let made = make(names, now.get(..10).unwrap_or_default().parse()?, days)?;
    let texts = [(&made.authority, 0o644), (&made.certificate, 0o644), (&made.key, 0o600)];
    for (path, (text, mode)) in paths.iter().zip(texts) {
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
        file.and_then(|mut f| f.write_all(text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(paths)
}
