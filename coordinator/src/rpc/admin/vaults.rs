//! Vaults: entered (a worker's job makes or claims them), shown, forgotten.

use tresor_proto::ids::VaultId;
use tresor_proto::v1;
use zeroize::Zeroizing;

use super::key_file;
use crate::rpc::caller::Caller;
use crate::rpc::context::Services;
use crate::rpc::kinds::Kind;
use crate::rpc::page::Page;
use crate::rpc::refused::Refused;
use crate::rpc::{convert, fields, resolve};
use crate::state::Subject;
use crate::state::command::{Command, VaultOrigin, VaultSpec};

/// How disks can be cut: the profiles of the vault format, by their names in a vault's header.
const PROFILES: [&str; 3] = ["grain-32k", "grain-64k", "fixed-64k"];
/// Longest label of a region, bytes.
const REGION_MAX: usize = 64;

/// Random bytes of the operating system.
pub(super) fn draw<const N: usize>() -> Result<Zeroizing<[u8; N]>, Refused> {
    let mut bytes = Zeroizing::new([0; N]);
    getrandom::fill(bytes.as_mut()).map_err(|e| Refused::Secrets {
        doing: String::from("draw random numbers"),
        why: e.to_string(),
    })?;
    Ok(bytes)
}

impl Services {
    /// Enters a vault; the answer is the job that makes or claims it.
    pub(crate) async fn create_vault(
        &self,
        caller: &Caller,
        message: v1::CreateVaultRequest,
    ) -> Result<v1::Job, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let url = fields::store_url("url", &message.url)?;
        if message.region.len() > REGION_MAX || message.region.chars().any(char::is_control) {
            let rule = format!("must have at most {REGION_MAX} bytes and no control characters");
            return Err(Refused::invalid("region", rule));
        }
        let profile = match message.profile.as_str() {
            "" => String::new(),
            profile => fields::one_of("profile", profile, &PROFILES)?,
        };
        let (vault, secret, origin) = match (message.take_over, message.key_file.as_ref()) {
            (true, []) => return Err(Refused::invalid("key_file", "is needed to take a vault over")),
            (true, file) => {
                let (vault, secret) = key_file::read(file)?;
                (vault, secret, VaultOrigin::TakeOver)
            }
            (false, []) => {
                let vault = VaultId(*draw()?);
                (vault, self.keys.vault_key(vault), VaultOrigin::Make)
            }
            // Made by who asks, with that key: the job finds it, and that nobody has written to it.
            (false, file) => {
                let (vault, secret) = key_file::read(file)?;
                (vault, secret, VaultOrigin::Make)
            }
        };
        if origin == VaultOrigin::TakeOver && !profile.is_empty() {
            return Err(Refused::invalid("profile", "stands in the vault that is taken over"));
        }
        let wrapped = self
            .keys
            .wrap_vault_key(vault, secret.as_ref())
            .map_err(|e| Refused::Secrets {
                doing: format!("wrap the key of vault {}", message.name),
                why: e.to_string(),
            })?;
        let spec = VaultSpec {
            vault,
            name: message.name,
            url,
            region: message.region,
            profile,
            origin,
            key: wrapped,
        };
        let made = self
            .change(caller, Kind::AddVault, key, |_| Ok(Command::AddVault(spec)))
            .await?;
        self.job_of(made.about, "claim")
    }

    /// One vault.
    pub(crate) async fn get_vault(&self, _: &Caller, message: v1::GetVaultRequest) -> Result<v1::Vault, Refused> {
        self.look(|state| {
            let id = resolve::vault(state, &message.name)?;
            let row = state.vaults().get(&id).ok_or_else(|| Refused::missing("vault", id))?;
            Ok(convert::vault(state, id, row))
        })
        .await
    }

    /// Vaults by name.
    pub(crate) async fn list_vaults(
        &self,
        _: &Caller,
        message: v1::ListVaultsRequest,
    ) -> Result<v1::ListVaultsResponse, Refused> {
        let page = Page::<String>::read("vaults", &(), message.page_size, &message.page_token)?;
        self.look(|state| {
            let after = page.after.as_deref();
            let rows = state
                .vaults_by_name()
                .filter(|(name, _)| after.is_none_or(|after| *name > after))
                .map(|(name, id)| (name.to_owned(), id));
            let (vaults, next_page_token) = page.fill(rows, |_, id| {
                let row = state.vaults().get(&id)?;
                Some(convert::vault(state, id, row))
            });
            Ok(v1::ListVaultsResponse {
                vaults,
                next_page_token,
            })
        })
        .await
    }

    /// Forgets a vault, one with many points in pieces; its objects stay.
    pub(crate) async fn remove_vault(
        &self,
        caller: &Caller,
        message: v1::RemoveVaultRequest,
    ) -> Result<v1::Empty, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let made = self
            .change(caller, Kind::RemoveVault, key, |state| {
                let vault = resolve::vault(state, &message.name)?;
                Ok(Command::RemoveVault { vault })
            })
            .await?;
        match made.about {
            Subject::Vault(_) => Ok(v1::Empty {}),
            _ => Err(Refused::OtherChange),
        }
    }
}
