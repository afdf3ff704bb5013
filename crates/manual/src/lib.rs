//! Man pages and shell completions of a program, from its command line: what packages install.

#![forbid(unsafe_code)]

use clap::{Args, Command};
use clap_complete::{Shell, generate_to};
use std::fs;
use std::io;
use std::path::PathBuf;

/// The hidden subcommand `manual` of each program.
#[derive(Debug, Args)]
pub struct Manual {
    /// The folder for what is written: man pages in man1, completions in bash, zsh and fish
    #[arg(long)]
    out: PathBuf,
}

impl Manual {
    /// Writes the pages of the program and of its subcommands, and its completions.
    pub fn write(&self, program: Command) -> io::Result<()> {
        let mut program = without_help(program);
        let name = program.get_name().to_owned();
        for (shell, folder) in [(Shell::Bash, "bash"), (Shell::Zsh, "zsh"), (Shell::Fish, "fish")] {
            generate_to(shell, &mut program, &name, self.folder(folder)?)?;
        }
        clap_mangen::generate_to(program, self.folder("man1")?)
    }

    /// The folder of that name, which is made if it is missing.
    fn folder(&self, name: &str) -> io::Result<PathBuf> {
        let folder = self.out.join(name);
        fs::create_dir_all(&folder)?;
        Ok(folder)
    }
}

/// Each page says how to get help; a page for `help` of each subcommand says nothing.
fn without_help(program: Command) -> Command {
    program.disable_help_subcommand(true).mut_subcommands(without_help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_completions() {
        let folder = tempfile::tempdir().unwrap();
        let shown = Command::new("ports").about("Shows ports").subcommand(Command::new("list"));
        let hidden = Command::new("secret").hide(true);
        let program = Command::new("tool").about("Does things").subcommand(shown).subcommand(hidden);
        Manual { out: folder.path().to_owned() }.write(program).unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert!(read("man1/tool.1").contains("Does things"));
        assert!(read("man1/tool-ports.1").contains("Shows ports"));
        assert!(!folder.path().join("man1/tool-secret.1").exists());
        assert!(!folder.path().join("man1/tool-ports-help.1").exists());
        for completion in ["bash/tool.bash", "zsh/_tool", "fish/tool.fish"] {
            assert!(read(completion).contains("ports"), "{completion}");
        }
    }
}
