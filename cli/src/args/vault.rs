//! `tresor vault …`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use tresor_storage::chunk::Profile;
use tresor_storage::verify::Level;

use super::common::DetachArgs;

/// What can be done with vaults.
#[derive(Debug, Subcommand)]
pub(crate) enum VaultVerb {
    Create(VaultCreateArgs),
    /// Lists the vaults of this home, or of the cluster
    List,
    /// Shows one vault: stores, keys, who may write, how much is in it
    Show(VaultNameArgs),
    Verify(VaultVerifyArgs),
    Rebuild(VaultRebuildArgs),
    TakeOver(VaultTakeOverArgs),
    RecoveryKit(VaultKitArgs),
    Remove(VaultRemoveArgs),
    /// Who can open a vault: its key slots
    #[command(subcommand, arg_required_else_help = true)]
    Key(KeyVerb),
}

/// One vault.
#[derive(Debug, Args)]
pub(crate) struct VaultNameArgs {
    /// The vault [default: that of --vault]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// Makes a vault, in a store that has none
///
/// The store is given with --store; without it the vault lies in the home. A key file is made in the home; with
/// --passphrase the vault is opened by a passphrase instead, and no key lies on this machine. In a cluster a worker makes the
/// vault, the store must be one that workers reach, and the cluster keeps its key.
#[derive(Debug, Args)]
pub(crate) struct VaultCreateArgs {
    /// Its name: 2 to 50 letters, digits and hyphens, starting with a letter
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// How disks are cut into chunks; for life
    #[arg(long, value_enum, default_value_t = ProfileArg::Grain32k)]
    pub(crate) profile: ProfileArg,

    /// A label for the region in which the store is
    #[arg(long, value_name = "LABEL", default_value = "")]
    pub(crate) region: String,

    /// Open it by a passphrase instead of a key file; asked for twice, or read from --passphrase-file
    #[arg(long)]
    pub(crate) passphrase: bool,
}

/// How disks are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProfileArg {
    /// 16 to 128 KiB, about 28 KiB on average: deduplicates disks of machines best
    #[value(name = "grain-32k")]
    Grain32k,
    /// About 60 KiB on average: half as many chunks, 4 % more bytes
    #[value(name = "grain-64k")]
    Grain64k,
    /// 64 KiB always: for disks of databases that move nothing
    #[value(name = "fixed-64k")]
    Fixed64k,
}

impl From<ProfileArg> for Profile {
    fn from(profile: ProfileArg) -> Self {
        match profile {
            ProfileArg::Grain32k => Self::Grain32k,
            ProfileArg::Grain64k => Self::Grain64k,
            ProfileArg::Fixed64k => Self::Fixed64k,
        }
    }
}

/// Checks that what was stored is still there and right
///
/// Every finding names the object and the recovery points that it harms; exit code 3 when there is one.
#[derive(Debug, Args)]
pub(crate) struct VaultVerifyArgs {
    /// The vault [default: that of --vault]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// How deeply
    #[arg(long, value_enum, default_value_t = LevelArg::Checks)]
    pub(crate) level: LevelArg,

    /// Only this pack, as messages name it: WRITER/SEQ
    #[arg(long, value_name = "ID")]
    pub(crate) pack: Option<String>,

    /// In a cluster: only this recovery point
    #[arg(long, value_name = "POINT", conflicts_with = "pack")]
    pub(crate) point: Option<String>,

    #[command(flatten)]
    pub(crate) detach: DetachArgs,
}

/// How deeply a vault is verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LevelArg {
    /// All objects are there
    Names,
    /// Their lengths and checksums are right; needs no key of contents
    Checks,
    /// All of it decrypts, decompresses and has the right names
    Contents,
    /// Every chunk of every recovery point is where its recipe leads; contents are not read
    Recipes,
    /// All of that
    All,
}

impl From<LevelArg> for Level {
    fn from(level: LevelArg) -> Self {
        match level {
            LevelArg::Names => Self::Names,
            LevelArg::Checks => Self::Checks,
            LevelArg::Contents => Self::Contents,
            LevelArg::Recipes => Self::Recipes,
            LevelArg::All => Self::All,
        }
    }
}

/// Builds the index of a vault anew from what its store holds
#[derive(Debug, Args)]
pub(crate) struct VaultRebuildArgs {
    /// The vault [default: that of --vault]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// Makes this home the one that may write to a vault
///
/// For a vault whose home is lost, with --store and a key; or one that another home holds. The former holder is fenced:
/// its running backups fail, and it refuses to write from then on. In a cluster it becomes the cluster's, with --store and
/// --key-file; the key is handed to the cluster.
#[derive(Debug, Args)]
pub(crate) struct VaultTakeOverArgs {
    /// The vault's name in this home [default: that of --vault]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,
}

/// Makes a recovery kit: a page that opens the vault when everything else is lost
///
/// Print it and keep it apart from the backups. Each call adds a key slot of its own.
#[derive(Debug, Args)]
pub(crate) struct VaultKitArgs {
    /// The vault [default: that of --vault]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Write it to this new file, readable by you alone
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "stdout")]
    pub(crate) out: Option<PathBuf>,

    /// Print it, also when standard output is no terminal
    #[arg(long)]
    pub(crate) stdout: bool,
}

/// Forgets a vault, or deletes it with all its data
///
/// Without --delete-data only this home (or the cluster) forgets it: store and key file stay, and `take-over` brings it back.
#[derive(Debug, Args)]
pub(crate) struct VaultRemoveArgs {
    /// The vault
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// Delete every recovery point and every object in its store, for good
    #[arg(long)]
    pub(crate) delete_data: bool,

    /// The vault's name again, to confirm without being asked
    #[arg(long, value_name = "NAME")]
    pub(crate) yes: Option<String>,
}

/// What can be done with the key slots of a vault (that of --vault).
#[derive(Debug, Subcommand)]
pub(crate) enum KeyVerb {
    Add(KeyAddArgs),
    /// Lists the key slots
    List,
    Rotate(KeyRotateArgs),
    Remove(KeyRemoveArgs),
}

/// Adds a key slot: another passphrase or key file that opens the vault
#[derive(Debug, Args)]
pub(crate) struct KeyAddArgs {
    /// The slot's name
    #[arg(value_name = "SLOT")]
    pub(crate) slot: String,

    /// Write a new key file; without it a passphrase is asked for
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) new_key_file: Option<PathBuf>,

    /// Read the new passphrase from this file's first line instead of asking
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with = "new_key_file")]
    pub(crate) new_passphrase_file: Option<PathBuf>,

    /// What the slot allows
    #[arg(long, value_enum, default_value_t = GrantArg::Full)]
    pub(crate) grant: GrantArg,
}

/// What a slot allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GrantArg {
    /// All: back up, restore, change keys
    Full,
    /// Restore and verify
    Read,
    /// List points and sweep; no contents
    Sweep,
}

impl From<GrantArg> for tresor_storage::keys::Grant {
    fn from(grant: GrantArg) -> Self {
        match grant {
            GrantArg::Full => Self::Full,
            GrantArg::Read => Self::Read,
            GrantArg::Sweep => Self::Sweep,
        }
    }
}

/// Gives a key slot another secret
///
/// The former one opens nothing any more. Data is not written again. With --compromised new backups also use new data keys.
#[derive(Debug, Args)]
pub(crate) struct KeyRotateArgs {
    /// The slot [default: that of this home's key file]
    #[arg(value_name = "SLOT")]
    pub(crate) slot: Option<String>,

    /// The former secret may be in the wrong hands
    #[arg(long)]
    pub(crate) compromised: bool,

    /// Read the new passphrase from this file's first line instead of asking
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) new_passphrase_file: Option<PathBuf>,
}

/// Removes a key slot
#[derive(Debug, Args)]
pub(crate) struct KeyRemoveArgs {
    /// The slot
    #[arg(value_name = "SLOT")]
    pub(crate) slot: String,

    /// Its secret may be in the wrong hands: new backups use new data keys
    #[arg(long)]
    pub(crate) compromised: bool,
}
