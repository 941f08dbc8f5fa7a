//! Items: protected, changed, shown, listed by name.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tresor_proto::ids::{ItemId, VaultId};
use tresor_proto::v1;

use super::vaults::draw;
use crate::rpc::caller::Caller;
use crate::rpc::context::Services;
use crate::rpc::kinds::Kind;
use crate::rpc::page::Page;
use crate::rpc::refused::Refused;
use crate::rpc::standing::{Board, ItemState};
use crate::rpc::{convert, fields, resolve};
use crate::state::command::Command;
use crate::state::{State, Subject};

/// The policy that an item gets that is protected without one, where there is a policy of that name.
pub const DEFAULT_POLICY: &str = "default";
/// The vault of items for which none is named, where there is one of that name or just one.
const DEFAULT_VAULT: &str = "main";

/// Where a page of items goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct ByName {
    name: String,
    item: ItemId,
}

/// What is asked for, where there is only one thing that can be meant: the vault of that name, or `main`, or the only one.
pub(super) fn vault_for(state: &State, name: &str) -> Result<VaultId, Refused> {
    if !name.is_empty() {
        return resolve::vault(state, name);
    }
    let mut vaults = state.vaults_by_name();
    let only = match (vaults.next(), vaults.next()) {
        (Some((_, only)), None) => Some(only),
        _ => None,
    };
    state
        .vault_named(DEFAULT_VAULT)
        .or(only)
        .ok_or_else(|| Refused::invalid("spec.vault", "is needed: there are several, or none yet"))
}

impl Services {
    /// Protects a machine. Without a policy it gets the one named `default`, if there is one; else the answer says that it has no schedule.
    pub(crate) async fn protect_item(
        &self,
        caller: &Caller,
        message: v1::ProtectItemRequest,
    ) -> Result<v1::Item, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let mut spec = message.spec.ok_or_else(|| Refused::invalid("spec", "is needed"))?;
        let item = ItemId(*draw()?);
        let made = self
            .change(caller, Kind::Protect, key, |state| {
                if spec.policy.is_empty() && !message.no_policy && state.policy_named(DEFAULT_POLICY).is_some() {
                    spec.policy = String::from(DEFAULT_POLICY);
                }
                let vault = vault_for(state, &spec.vault)?;
                Ok(Command::Protect {
                    item,
                    spec: convert::item_spec(state, &spec, vault)?,
                    also: message.also,
                })
            })
            .await?;
        self.item_of(made.about)
    }

    fn item_of(&self, about: Subject) -> Result<v1::Item, Refused> {
        let Subject::Item(id) = about else {
            return Err(Refused::OtherChange);
        };
        self.item_now(id)?.ok_or_else(|| Refused::missing("item", id))
    }

    fn item_now(&self, id: ItemId) -> Result<Option<v1::Item>, Refused> {
        let plans = self.plans();
        self.handle.read(|state| {
            let Some(row) = state.items().get(&id) else {
                return Ok(None);
            };
            let board = Board::new(state, &plans, self.now(state));
            Ok(Some(convert::item(state, &board, id, row)))
        })
    }

    /// One item.
    pub(crate) async fn get_item(&self, _: &Caller, message: v1::GetItemRequest) -> Result<v1::Item, Refused> {
        let id = self
            .look(|state| resolve::item(state, &message.name, &message.vault))
            .await?;
        self.item_now(id)?
            .ok_or_else(|| Refused::missing("item", &message.name))
    }

    /// Items by name; with a state, all of which it is true.
    pub(crate) async fn list_items(
        &self,
        _: &Caller,
        message: v1::ListItemsRequest,
    ) -> Result<v1::ListItemsResponse, Refused> {
        let filters = (&message.vault, &message.labels, &message.state);
        let page = Page::<ByName>::read("items", &filters, message.page_size, &message.page_token)?;
        let wanted = match message.state.as_str() {
            "" => None,
            text => Some(ItemState::read(text).ok_or_else(|| {
                let states = ItemState::ALL.map(ItemState::text);
                Refused::invalid("state", format!("is one of {}", states.join(", ")))
            })?),
        };
        self.handle.barrier().await?;
        let plans = self.plans();
        self.handle.read(|state| {
            let of = match message.vault.as_str() {
                "" => None,
                name => Some(resolve::vault(state, name)?),
            };
            let board = Board::new(state, &plans, self.now(state));
            let (items, next_page_token) = page.fill(rows_after(state, page.after.as_ref()), |_, id| {
                let row = state.items().get(&id)?;
                let in_vault = of.is_none_or(|of| row.spec.vault == of);
                if !in_vault || !has_labels(&row.spec.labels, &message.labels) {
                    return None;
                }
                if wanted.is_some_and(|wanted| !board.item(state, id, row).is(wanted)) {
                    return None;
                }
                Some(convert::item(state, &board, id, row))
            });
            Ok(v1::ListItemsResponse { items, next_page_token })
        })
    }

    /// Changes an item as a whole. An empty vault is the one that it is in.
    pub(crate) async fn update_item(
        &self,
        caller: &Caller,
        message: v1::UpdateItemRequest,
    ) -> Result<v1::Item, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let spec = message.spec.ok_or_else(|| Refused::invalid("spec", "is needed"))?;
        let made = self
            .change(caller, Kind::UpdateItem, key, |state| {
                // Of one of which only points are left, the policy can be changed.
                let item = resolve::protected_item(state, &message.name, &message.vault)
                    .or_else(|_| resolve::item(state, &message.name, &message.vault))?;
                let row = state.items().get(&item).ok_or_else(|| Refused::missing("item", item))?;
                let vault = match spec.vault.as_str() {
                    "" => row.spec.vault,
                    name => resolve::vault(state, name)?,
                };
                Ok(Command::UpdateItem {
                    item,
                    version: message.version,
                    spec: convert::item_spec(state, &spec, vault)?,
                })
            })
            .await?;
        self.item_of(made.about)
    }

    /// Ends the protection of an item; its points stay. One without points is forgotten at once.
    pub(crate) async fn unprotect_item(
        &self,
        caller: &Caller,
        message: v1::UnprotectItemRequest,
    ) -> Result<v1::Item, Refused> {
        let key = fields::key(&message.idempotency_key)?;
        let mut before = None;
        let made = self
            .change(caller, Kind::Unprotect, key, |state| {
                let item = resolve::protected_item(state, &message.name, &message.vault)?;
                before = state.items().get(&item).cloned();
                Ok(Command::Unprotect { item })
            })
            .await?;
        let Subject::Item(id) = made.about else {
            return Err(Refused::OtherChange);
        };
        if let Some(item) = self.item_now(id)? {
            return Ok(item);
        }
        let plans = self.plans();
        self.handle.read(|state| {
            let board = Board::new(state, &plans, self.now(state));
            Ok(match &before {
                Some(before) => convert::gone_item(state, &board, id, before),
                // Sent again after it was forgotten: what is left to say.
                None => v1::Item {
                    id: id.to_string(),
                    spec: Some(v1::ItemSpec {
                        name: message.name.clone(),
                        vault: message.vault.clone(),
                        ..v1::ItemSpec::default()
                    }),
                    state: ItemState::Unprotected.text().to_owned(),
                    ..v1::Item::default()
                },
            })
        })
    }
}

fn rows_after<'s>(state: &'s State, after: Option<&ByName>) -> impl Iterator<Item = (ByName, ItemId)> + use<'s> {
    let (name, first) = after.map_or(("", ItemId([0; 16])), |after| (&after.name, after.item));
    let after = after.cloned();
    state
        .items_by_name_from(name, first)
        .filter(move |(name, id)| {
            after
                .as_ref()
                .is_none_or(|after| (after.name.as_str(), after.item) != (*name, *id))
        })
        .map(|(name, id)| {
            let key = ByName {
                name: name.to_owned(),
                item: id,
            };
            (key, id)
        })
}

/// Whether all labels that are asked for are there; one with an empty value asks for the label alone.
fn has_labels(labels: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key).is_some_and(|found| value.is_empty() || found == value))
}
