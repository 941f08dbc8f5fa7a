//! What opens a vault besides the keys in the home: what the command line names, a passphrase file, a person at the terminal.

use std::path::{Path, PathBuf};

use tresor_storage::ids::VaultId;
use tresor_storage::keys::{KeyError, KeyFile, RecoveryKit, Unlock};
use tresor_worker::home::UnlockSource;
use zeroize::Zeroizing;

use crate::args::GlobalArgs;
use crate::config::{Origin, Settings, read_small};
use crate::error::CliError;
use crate::screen::Screen;

/// Looks for secrets where the caller said.
#[derive(Clone)]
pub(crate) struct Secrets {
    key_file: Option<PathBuf>,
    recovery_kit: Option<PathBuf>,
    /// And whether an option of this call named it: then nothing else is tried.
    passphrase_file: Option<(PathBuf, bool)>,
    can_ask: bool,
}

impl Secrets {
    /// Those of a call.
    pub(crate) fn new(args: &GlobalArgs, settings: &Settings, screen: &Screen) -> Self {
        let named = matches!(settings.passphrase_file.origin, Origin::Option(_));
        Self {
            key_file: args.key_file.clone(),
            recovery_kit: args.recovery_kit.clone(),
            passphrase_file: settings.passphrase_file.value.clone().map(|path| (path, named)),
            can_ask: screen.can_ask(),
        }
    }

    /// A passphrase for a new slot: from `file`, else from the file of the settings, else typed twice.
    ///
    /// # Errors
    /// When there is nobody to ask, the two differ, or the file cannot be read.
    pub(crate) fn new_passphrase(&self, file: Option<&Path>, what: &str) -> Result<Zeroizing<String>, CliError> {
        if let Some(path) = file {
            return Ok(first_line(path)?);
        }
        if !self.can_ask {
            return Err(CliError::usage_hint(
                format!("no passphrase for {what}, and nobody to ask"),
                "name a file whose first line is the passphrase",
            ));
        }
        let first = ask(&format!("New passphrase for {what}: "))?;
        if *ask("Once more: ")? != *first {
            return Err(CliError::usage("the two passphrases differ"));
        }
        Ok(first)
    }

    /// The same, but nobody is asked.
    pub(crate) fn without_asking(&self) -> Self {
        Self {
            can_ask: false,
            ..self.clone()
        }
    }

    /// Whether this call names what opens vaults.
    pub(crate) fn is_explicit(&self) -> bool {
        self.key_file.is_some() || self.recovery_kit.is_some() || matches!(self.passphrase_file, Some((_, true)))
    }

    /// The key file that the command line names.
    pub(crate) fn key_file(&self) -> Option<&Path> {
        self.key_file.as_deref()
    }

    /// All files that something secret is in.
    pub(crate) fn files(&self) -> Vec<PathBuf> {
        let passphrase = self.passphrase_file.as_ref().map(|(path, _)| path);
        let files = [self.key_file.as_ref(), self.recovery_kit.as_ref(), passphrase];
        files.into_iter().flatten().cloned().collect()
    }

    /// The passphrase file of the settings.
    pub(crate) fn passphrase_file(&self) -> Option<&Path> {
        self.passphrase_file.as_ref().map(|(path, _)| path.as_path())
    }
}

fn ask(prompt: &str) -> Result<Zeroizing<String>, KeyError> {
    let asked = rpassword::prompt_password(prompt).map(Zeroizing::new);
    asked.map_err(|source| KeyError::Io {
        doing: "ask on",
        path: String::from("the terminal"),
        source,
    })
}

/// The first line of a file, without its end.
fn first_line(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    let text = read(path)?;
    let line = text.split('\n').next().unwrap_or_default();
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.is_empty() {
        return Err(KeyError::File {
            path: path.display().to_string(),
            why: String::from("its first line is empty"),
        });
    }
    Ok(Zeroizing::new(line.to_owned()))
}

fn read(path: &Path) -> Result<Zeroizing<String>, KeyError> {
    read_small(path).map_err(|error| match error {
        CliError::File { doing, source, .. } => KeyError::Io {
            doing,
            path: path.display().to_string(),
            source,
        },
        other => KeyError::File {
            path: path.display().to_string(),
            why: other.chain(),
        },
    })
}

impl UnlockSource for Secrets {
    fn explicit(&self, vault: VaultId) -> Result<Option<Unlock>, KeyError> {
        if let Some(path) = &self.key_file {
            return Ok(Some(KeyFile::load(path, Some(vault))?.unlock()));
        }
        if let Some(path) = &self.recovery_kit {
            let kit = RecoveryKit::from_text(&read(path)?)?;
            if kit.vault != vault {
                let why = format!("it is of vault {}, this is vault {vault}", kit.vault);
                return Err(KeyError::Wrong {
                    what: format!("recovery kit {} ({why})", path.display()),
                    vault: vault.to_string(),
                });
            }
            return Ok(Some(kit.unlock()));
        }
        match &self.passphrase_file {
            Some((path, true)) => Ok(Some(Unlock::Passphrase(first_line(path)?))),
            _ => Ok(None),
        }
    }

    fn passphrase(&self, vault: &str) -> Result<Option<Zeroizing<String>>, KeyError> {
        match &self.passphrase_file {
            Some((path, _)) => first_line(path).map(Some),
            None if self.can_ask => ask(&format!("Passphrase of vault {vault}: ")).map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    #[test]
    fn a_passphrase_is_the_first_line_and_nothing_of_it_is_trimmed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        for (text, found) in [
            (" two words \nrest", Some(" two words ")),
            ("x", Some("x")),
            ("x\r\n", Some("x")),
            ("\nx", None),
            ("", None),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(first_line(&path).ok().as_deref().map(String::as_str), found, "{text:?}");
        }
    }
}
