//! Reading the configuration file.

use anyhow::{Context, Result, anyhow};
use sag_model::config::{self, Checked, Config, Encap, Tunnel};
use std::path::Path;

/// Larger documents are a mistake (a hundred thousand rules are about 20 MB).
const MAX_BYTES: u64 = 256 << 20;

/// The text of a file, with a clear error if there is none.
pub fn read(path: &Path) -> Result<String> {
    let meta = std::fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if meta.len() > MAX_BYTES {
        return Err(anyhow!(
            "{}: {} bytes are more than a configuration may have",
            path.display(),
            meta.len()
        ));
    }
    std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A validated file; every problem is a line of the error.
pub fn load(path: &Path) -> Result<(Checked, String)> {
    let text = read(path)?;
    let checked = config::parse(&text, &path.display().to_string()).map_err(|e| anyhow!("{e}"))?;
    Ok((checked, text))
}

/// A warning, if keys stand in the file and others may read it.
pub fn exposed_keys(path: &Path, config: &Config) -> Option<String> {
    let keys = |t: &Tunnel| matches!(&t.encap, Encap::Esp { manual: Some(_), .. });
    let mode = crate::files::mode_if_exposed(path).filter(|_| config.tunnels.iter().any(keys))?;
    let file = path.display();
    Some(format!(
        "{file}: it holds keys of tunnels and others may read it (mode {mode:04o}); chmod 600 {file}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_that_others_may_read_are_a_warning() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vcpe.toml");
        let port = "[[port]]\nname = \"0\"\ndevice = \"eth0\"\nrole = \"wan\"\n";
        let tunnel =
            "[[tunnel]]\nname = \"t\"\nkind = \"esp\"\nlocal = \"192.0.2.1\"\nremote = \"192.0.2.2\"\n";
        let key = |c: &str| c.repeat(72);
        let keys =
            format!("spi_in = 1000\nspi_out = 1001\nkey_in = \"{}\"\nkey_out = \"{}\"\n", key("1"), key("2"));
        let warning = |text: &str, mode: u32| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let (checked, _) = load(&path).unwrap();
            exposed_keys(&path, &checked.config)
        };
        let with_keys = format!("{port}{tunnel}{keys}");
        let said = warning(&with_keys, 0o644).unwrap();
        assert!(said.contains("mode 0644") && said.contains("chmod 600"), "{said}");
        assert!(warning(&with_keys, 0o640).is_some());
        assert_eq!(warning(&with_keys, 0o600), None);
        assert_eq!(warning(port, 0o644), None, "nothing to hide");
    }
}
