//! Settings: options over environment over `HOME/config.toml` over defaults, and which of them won.

mod file;
mod stores;
mod values;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tresor_storage::vault::naming::check_vault_name;
use tresor_worker::backup::Effort;

use crate::args::{GlobalArgs, LogFormat};
use crate::cluster::Target;
use crate::error::CliError;
use crate::otlp::Endpoint;

pub(crate) use file::FileConfig;
pub(crate) use stores::{StoreTable, StoreTables, read_small};
use values::{parse_cores, parse_level, parse_log_format, parse_patience, parse_target};

/// How long a cluster that cannot answer is waited for: restarts and elections take seconds.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where a setting's value is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "from", content = "name")]
pub(crate) enum Origin {
    /// An option of this call.
    Option(&'static str),
    /// A variable of the environment.
    Environment(&'static str),
    /// `HOME/config.toml`.
    File,
    /// Nobody said anything.
    Default,
}

/// A value and where it is from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting<T> {
    /// The value.
    pub(crate) value: T,
    /// Where it is from.
    pub(crate) origin: Origin,
}

/// All settings of a call.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where vaults, keys and the index are kept.
    pub(crate) home: Setting<PathBuf>,
    /// The vault to work with.
    pub(crate) vault: Setting<String>,
    /// The cluster to work with instead of the home.
    pub(crate) cluster: Setting<Target>,
    /// How long a cluster that cannot answer is waited for.
    pub(crate) cluster_patience: Setting<Duration>,
    /// What is logged: a level or a filter.
    pub(crate) log: Setting<String>,
    /// How log lines look.
    pub(crate) log_format: Setting<LogFormat>,
    /// Where spans go.
    pub(crate) otlp: Setting<Option<Endpoint>>,
    /// Where a backup leaves its numbers.
    pub(crate) metrics_file: Setting<Option<PathBuf>>,
    /// Where the passphrase is read from instead of asking.
    pub(crate) passphrase_file: Setting<Option<PathBuf>>,
    /// Cores that a job uses.
    pub(crate) cores: Setting<usize>,
    /// Level of zstd for data.
    pub(crate) compression_level: Setting<i32>,
    /// What is said of stores, by URL.
    pub(crate) stores: BTreeMap<String, StoreTable>,
}

/// A setting as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    /// Its key.
    pub(crate) setting: &'static str,
    /// Its value; none where nothing is set.
    pub(crate) value: Option<String>,
    /// Where it is from.
    #[serde(flatten)]
    pub(crate) origin: Origin,
}

impl Origin {
    /// In words.
    pub(crate) fn describe(self) -> String {
        match self {
            Self::Option(name) => format!("option {name}"),
            Self::Environment(name) => format!("environment {name}"),
            Self::File => String::from("config.toml"),
            Self::Default => String::from("default"),
        }
    }
}

/// Picks values in the order in which they win, and notes what is wrong.
struct Picker<'a> {
    env: &'a dyn Fn(&str) -> Option<OsString>,
    problems: Vec<String>,
}

impl Picker<'_> {
    /// The value of a variable that is set and not empty.
    fn variable(&mut self, name: &'static str) -> Option<String> {
        let value = (self.env)(name).filter(|value| !value.is_empty())?;
        match value.into_string() {
            Ok(text) => Some(text),
            Err(_) => {
                self.problems.push(format!("{name} is not UTF-8"));
                None
            }
        }
    }

    fn pick<T>(
        &mut self,
        option: Option<(&'static str, T)>,
        variable: &'static str,
        parse: impl FnOnce(&str) -> Result<T, String>,
        file: Option<T>,
        default: impl FnOnce() -> T,
    ) -> Setting<T> {
        if let Some((name, value)) = option {
            return Setting {
                value,
                origin: Origin::Option(name),
            };
        }
        if let Some(text) = self.variable(variable) {
            match parse(&text) {
                Ok(value) => {
                    return Setting {
                        value,
                        origin: Origin::Environment(variable),
                    };
                }
                Err(why) => self.problems.push(format!("{variable}: {why}")),
            }
        }
        match file {
            Some(value) => Setting {
                value,
                origin: Origin::File,
            },
            None => Setting {
                value: default(),
                origin: Origin::Default,
            },
        }
    }

    /// A path; those of the environment may be any bytes.
    fn pick_path(
        &mut self,
        option: Option<(&'static str, &PathBuf)>,
        variable: &'static str,
        file: Option<PathBuf>,
    ) -> Setting<Option<PathBuf>> {
        if let Some((name, path)) = option {
            return Setting {
                value: Some(path.clone()),
                origin: Origin::Option(name),
            };
        }
        if let Some(path) = (self.env)(variable).filter(|value| !value.is_empty()) {
            return Setting {
                value: Some(path.into()),
                origin: Origin::Environment(variable),
            };
        }
        let origin = if file.is_some() { Origin::File } else { Origin::Default };
        Setting { value: file, origin }
    }
}

/// Finds the home: it is needed to know where the file is.
///
/// # Errors
/// When nothing says where it is.
pub(crate) fn home(args: &GlobalArgs, env: &dyn Fn(&str) -> Option<OsString>) -> Result<Setting<PathBuf>, CliError> {
    let mut picker = Picker {
        env,
        problems: Vec::new(),
    };
    let chosen = picker.pick_path(args.home.as_ref().map(|path| ("--home", path)), "TRESOR_HOME", None);
    if let Setting {
        value: Some(value),
        origin,
    } = chosen
    {
        return Ok(Setting { value, origin });
    }
    let set = |name| env(name).map(PathBuf::from).filter(|path| path.is_absolute());
    // A relative XDG_DATA_HOME is to be ignored (XDG Base Directory Specification 0.8).
    let data = set("XDG_DATA_HOME").or_else(|| set("HOME").map(|home| home.join(".local/share")));
    match data {
        Some(data) => Ok(Setting {
            value: data.join("tresor"),
            origin: Origin::Default,
        }),
        None => Err(CliError::usage_hint(
            "nothing says where the home is: HOME is not set",
            "pass --home DIR, or set TRESOR_HOME",
        )),
    }
}

/// Merges all settings.
///
/// # Errors
/// [`CliError::Settings`] with all that is wrong, in the file and elsewhere.
pub(crate) fn resolve(
    home: Setting<PathBuf>,
    args: &GlobalArgs,
    env: &dyn Fn(&str) -> Option<OsString>,
    file: FileConfig,
) -> Result<Settings, CliError> {
    let mut picker = Picker {
        env,
        problems: file.problems(),
    };
    let vault = args.vault.clone().map(|name| ("--vault", name));
    let vault = picker.pick(
        vault,
        "TRESOR_VAULT",
        |text| Ok(text.to_owned()),
        file.vault,
        || String::from("main"),
    );
    if let Err(error) = check_vault_name(&vault.value) {
        picker.problems.push(error.to_string());
    }
    let option = args.cluster.as_deref().and_then(|text| match parse_target(text) {
        Ok(target) => Some(("--cluster", target)),
        Err(why) => {
            picker.problems.push(format!("--cluster: {why}"));
            None
        }
    });
    // What is wrong with the file's is among its problems already.
    let in_file = file.cluster.as_deref().and_then(|text| parse_target(text).ok());
    let cluster = picker.pick(option, "TRESOR_CLUSTER", parse_target, in_file, || Target::None);
    let in_file = file.cluster_patience.as_deref();
    let in_file = in_file.and_then(|text| parse_patience(text).ok());
    let cluster_patience = picker.pick(None, "TRESOR_CLUSTER_PATIENCE", parse_patience, in_file, || PATIENCE);
    let log = match (args.quiet, args.verbose) {
        (true, _) => Some(("--quiet", String::from("error"))),
        (false, 0) => None,
        (false, 1) => Some(("-v", String::from("info"))),
        (false, 2) => Some(("-vv", String::from("debug"))),
        (false, _) => Some(("-vvv", String::from("trace"))),
    };
    let log = picker.pick(
        log,
        "TRESOR_LOG",
        |text| Ok(text.to_owned()),
        file.log,
        || String::from("warn"),
    );
    let log_format = args.log_format.map(|format| ("--log-format", format));
    let log_format = picker.pick(
        log_format,
        "TRESOR_LOG_FORMAT",
        parse_log_format,
        file.log_format.as_deref().and_then(|word| parse_log_format(word).ok()),
        || LogFormat::Human,
    );
    let option = args.otlp.as_deref().and_then(|text| match text.parse() {
        Ok(endpoint) => Some(("--otlp", Some(endpoint))),
        Err(why) => {
            picker.problems.push(format!("--otlp: {why}"));
            None
        }
    });
    let parse = |text: &str| text.parse().map(Some);
    let in_file = file.otlp.as_deref().and_then(|text| text.parse().ok()).map(Some);
    let otlp = picker.pick(option, Endpoint::VARIABLE, parse, in_file, || None);
    let relative_to_home = |path: PathBuf| home.value.join(path);
    let metrics_file = picker.pick_path(
        args.metrics_file.as_ref().map(|path| ("--metrics-file", path)),
        "TRESOR_METRICS_FILE",
        file.metrics_file.map(relative_to_home),
    );
    let passphrase_file = picker.pick_path(
        args.passphrase_file.as_ref().map(|path| ("--passphrase-file", path)),
        "TRESOR_PASSPHRASE_FILE",
        file.passphrase_file.map(relative_to_home),
    );
    let effort = Effort::default();
    let cores = picker.pick(None, "TRESOR_CORES", parse_cores, file.cores, || effort.cores);
    let level = picker.pick(
        None,
        "TRESOR_COMPRESSION_LEVEL",
        parse_level,
        file.compression_level,
        || effort.compression_level,
    );
    if !picker.problems.is_empty() {
        return Err(CliError::Settings {
            problems: picker.problems,
        });
    }
    Ok(Settings {
        home,
        vault,
        cluster,
        cluster_patience,
        log,
        log_format,
        otlp,
        metrics_file,
        passphrase_file,
        cores,
        compression_level: level,
        stores: file.stores,
    })
}

impl Settings {
    /// How much of the machine jobs use.
    pub(crate) fn effort(&self) -> Effort {
        Effort {
            cores: self.cores.value,
            compression_level: self.compression_level.value,
        }
    }

    /// All of them, in the order of the documentation.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        fn path(path: &Path) -> String {
            path.display().to_string()
        }
        let file = |setting: &Setting<Option<PathBuf>>| setting.value.as_deref().map(path);
        let all = [
            ("home", Some(path(&self.home.value)), self.home.origin),
            ("vault", Some(self.vault.value.clone()), self.vault.origin),
            (
                "cluster",
                Some(self.cluster.value.to_string()).filter(|text| !text.is_empty()),
                self.cluster.origin,
            ),
            (
                "cluster_patience",
                Some(format!("{} s", self.cluster_patience.value.as_secs())),
                self.cluster_patience.origin,
            ),
            ("log", Some(self.log.value.clone()), self.log.origin),
            (
                "log_format",
                Some(self.log_format.value.name().to_owned()),
                self.log_format.origin,
            ),
            (
                "otlp",
                self.otlp.value.as_ref().map(ToString::to_string),
                self.otlp.origin,
            ),
            ("metrics_file", file(&self.metrics_file), self.metrics_file.origin),
            (
                "passphrase_file",
                file(&self.passphrase_file),
                self.passphrase_file.origin,
            ),
            ("cores", Some(self.cores.value.to_string()), self.cores.origin),
            (
                "compression_level",
                Some(self.compression_level.value.to_string()),
                self.compression_level.origin,
            ),
        ];
        all.into_iter()
            .map(|(setting, value, origin)| Shown { setting, value, origin })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
    use super::*;

    fn no_env(_: &str) -> Option<OsString> {
        None
    }

    fn at(path: &str) -> Setting<PathBuf> {
        Setting {
            value: PathBuf::from(path),
            origin: Origin::Default,
        }
    }

    fn settings(args: &GlobalArgs, env: &[(&str, &str)], file: &str) -> Result<Settings, Vec<String>> {
        let env = |name: &str| {
            env.iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        };
        let file = FileConfig::parse(file, Path::new("/h/config.toml")).map_err(|error| vec![error.to_string()])?;
        resolve(at("/h"), args, &env, file).map_err(|error| match error {
            CliError::Settings { problems } => problems,
            other => panic!("{other}"),
        })
    }

    #[test]
    fn options_win_over_the_environment_over_the_file_over_the_default() {
        let none = GlobalArgs::default();
        let file = "vault = \"file-vault\"\ncores = 3\n";
        let env = [("TRESOR_VAULT", "env-vault")];
        let args = GlobalArgs {
            vault: Some(String::from("option-vault")),
            ..Default::default()
        };
        for (args, env, file, value, origin) in [
            (&none, &[][..], "", "main", Origin::Default),
            (&none, &[], file, "file-vault", Origin::File),
            (&none, &env, file, "env-vault", Origin::Environment("TRESOR_VAULT")),
            (&args, &env, file, "option-vault", Origin::Option("--vault")),
        ] {
            let found = settings(args, env, file).unwrap().vault;
            assert_eq!((found.value.as_str(), found.origin), (value, origin));
        }
        assert_eq!(settings(&none, &[("TRESOR_CORES", "5")], file).unwrap().cores.value, 5);
        assert_eq!(settings(&none, &[("TRESOR_CORES", "")], file).unwrap().cores.value, 3);
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let env = [("TRESOR_CORES", "0"), ("TRESOR_LOG_FORMAT", "xml")];
        let file = "compression_level = 77\nvault = \"1\"\n[stores.\"file:///a\"]\nrequest_timeout = \"soon\"\n";
        let problems = settings(&GlobalArgs::default(), &env, file).unwrap_err();
        assert_eq!(problems.len(), 5, "{problems:#?}");
    }

    #[test]
    fn paths_of_the_file_are_relative_to_the_home() {
        let found = settings(&GlobalArgs::default(), &[], "metrics_file = \"m.prom\"\n").unwrap();
        assert_eq!(found.metrics_file.value.as_deref(), Some(Path::new("/h/m.prom")));
    }

    #[test]
    fn the_home_is_where_the_option_the_variable_or_the_data_folder_says() {
        let args = GlobalArgs {
            home: Some(PathBuf::from("/o")),
            ..Default::default()
        };
        let all = |name: &str| match name {
            "TRESOR_HOME" => Some(OsString::from("/e")),
            "XDG_DATA_HOME" => Some(OsString::from("/x")),
            "HOME" => Some(OsString::from("/u")),
            _ => None,
        };
        let only_user = |name: &str| all(name).filter(|_| name == "HOME");
        let relative = |name: &str| {
            if name == "XDG_DATA_HOME" {
                Some(OsString::from("x"))
            } else {
                only_user(name)
            }
        };
        let none = GlobalArgs::default();
        assert_eq!(home(&args, &all).unwrap().value, Path::new("/o"));
        assert_eq!(home(&none, &all).unwrap().value, Path::new("/e"));
        assert_eq!(
            home(&none, &|name| all(name).filter(|_| name != "TRESOR_HOME"))
                .unwrap()
                .value,
            Path::new("/x/tresor")
        );
        assert_eq!(
            home(&none, &only_user).unwrap().value,
            Path::new("/u/.local/share/tresor")
        );
        assert_eq!(
            home(&none, &relative).unwrap().value,
            Path::new("/u/.local/share/tresor")
        );
        assert!(home(&none, &no_env).is_err());
    }
}
