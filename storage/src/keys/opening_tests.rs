#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;
use prost::Message as _;
use zeroize::Zeroizing;

use super::*;
use crate::ids::{ClusterId, PartId, SessionId};
use crate::keys::{GenerationKeys, Key, PassphraseCost, SlotKind};
use crate::limits::KEY_REVISION_MAX;
use crate::stored::{self, key_slot};

const VAULT: VaultId = VaultId([1; 16]);
const HEADER: ObjectHash = [7; 32];
const CHEAP: PassphraseCost = PassphraseCost {
    memory_kib: 64,
    passes: 1,
    lanes: 1,
};

fn stamp(claim: u64, cluster: u64) -> Stamp {
    let writer = Writer {
        cluster: ClusterId(cluster),
        session: SessionId(1),
        part: PartId(claim),
    };
    Stamp {
        writer,
        claim,
        now: String::from("2026-11-22T05:00:00Z"),
    }
}

fn file() -> Unlock {
    Unlock::File(Key::random())
}

fn passphrase(text: &str) -> Unlock {
    Unlock::Passphrase(Zeroizing::new(text.to_owned()))
}

fn slot(name: &str, unlock: &Unlock) -> NewSlot {
    NewSlot {
        cost: CHEAP,
        ..NewSlot::full(name, unlock.clone())
    }
}

fn first(slots: &[NewSlot]) -> Draft {
    first_revision(VAULT, HEADER, &stamp(1, 5), Keyring::generate(), slots).unwrap()
}

fn open(objects: &[&Draft], unlock: &Unlock) -> Result<Opened, KeyError> {
    let objects: Vec<RevisionObject> = objects.iter().map(|d| d.object.clone()).collect();
    open_revisions(VAULT, Some(&HEADER), &objects, unlock)
}

fn content(ring: &Keyring) -> Vec<(u32, Key, Option<Key>)> {
    ring.generations
        .iter()
        .map(|(g, k)| (g.0, k.meta.clone(), k.data.clone()))
        .collect()
}

fn assert_same(a: &Keyring, b: &Keyring) {
    assert!(a.id == b.id && a.cut == b.cut && content(a) == content(b));
}

fn replace(name: &str, unlock: &Unlock, compromised: bool) -> Change {
    Change::Replace {
        slot: name.to_owned(),
        unlock: unlock.clone(),
        cost: CHEAP,
        compromised,
    }
}

#[test]
fn kinds_of_slots_are_seen_without_a_key() {
    let draft = first(&[slot("home", &file())]);
    let objects = [draft.object.clone()];
    assert!(names_slot_kind(VAULT, &objects, SlotKind::File));
    assert!(!names_slot_kind(VAULT, &objects, SlotKind::Passphrase));
    let draft = first(&[slot("typed", &passphrase("correct horse"))]);
    assert!(names_slot_kind(VAULT, &[draft.object], SlotKind::Passphrase));
}

/// Takes an object apart, lets `edit` at it and puts it together with a right checksum, as one who holds no key can.
fn forge(object: &RevisionObject, edit: impl FnOnce(&mut stored::KeyRevisionBody)) -> RevisionObject {
    let mut outer = stored::KeyRevision::decode(object.bytes.clone()).unwrap();
    let mut body = stored::KeyRevisionBody::decode(outer.body).unwrap();
    edit(&mut body);
    outer.body = body.encode_to_vec().into();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&outer.body).update(&outer.mac).update(&outer.full_mac);
    outer.checksum = hasher.finalize().as_bytes().to_vec().into();
    let writer = body.writer.unwrap();
    let writer = Writer {
        cluster: ClusterId(writer.cluster),
        session: SessionId(writer.session),
        part: PartId(writer.part),
    };
    let name = crate::vault::names::key_revision(body.revision, writer);
    RevisionObject {
        name,
        bytes: outer.encode_to_vec().into(),
    }
}

#[test]
fn every_kind_of_slot_opens_all_keys() {
    let unlocks = [file(), passphrase("correct horse"), Unlock::Kit(Key::random())];
    let slots = [
        slot("host", &unlocks[0]),
        slot("ops", &unlocks[1]),
        slot("safe", &unlocks[2]),
    ];
    let draft = first(&slots);
    for (unlock, name) in unlocks.iter().zip(["host", "ops", "safe"]) {
        let opened = open(&[&draft], unlock).unwrap();
        assert_same(&opened.keyring, &draft.keyring);
        assert_eq!((opened.slot.as_str(), opened.revision.number()), (name, 1));
        assert!(opened.ignored.is_empty() && opened.conflicts.is_empty());
        draft.check_read_back(&draft.object.bytes, unlock).unwrap();
    }
    let kinds: Vec<SlotKind> = draft.revision.slots().map(|s| s.kind).collect();
    assert_eq!(kinds, [SlotKind::File, SlotKind::Passphrase, SlotKind::Kit]);
}

#[test]
fn what_fits_no_slot_is_wrong_and_says_what_it_is() {
    let draft = first(&[slot("host", &file()), slot("ops", &passphrase("correct horse"))]);
    for unlock in [file(), passphrase("wrong horse"), Unlock::Kit(Key::random())] {
        let error = open(&[&draft], &unlock).unwrap_err();
        assert!(
            matches!(&error, KeyError::Wrong { what, .. } if what == unlock.describe()),
            "{error}"
        );
        assert_eq!(error.kind(), crate::Kind::Denied);
    }
}

#[test]
fn the_bytes_of_a_key_file_open_no_kit_slot() {
    let key = Key::random();
    let draft = first(&[slot("safe", &Unlock::Kit(key.clone()))]);
    assert!(matches!(
        open(&[&draft], &Unlock::File(key)),
        Err(KeyError::Wrong { .. })
    ));
}

#[test]
fn no_revision_at_all_is_said_so() {
    assert!(matches!(open(&[], &file()), Err(KeyError::None { .. })));
}

#[test]
fn keys_made_for_another_header_are_refused() {
    let unlock = file();
    let draft = first(&[slot("host", &unlock)]);
    let other = open_revisions(VAULT, Some(&[8; 32]), std::slice::from_ref(&draft.object), &unlock);
    assert!(matches!(other, Err(KeyError::Header { .. })));
    assert!(open_revisions(VAULT, None, &[draft.object], &unlock).is_ok());
}

#[test]
fn of_two_makings_with_one_id_and_secret_the_keys_are_those_of_the_header() {
    let unlock = file();
    let slots = [slot("cluster", &unlock)];
    let lost = first_revision(VAULT, [8; 32], &stamp(2, 4), Keyring::generate(), &slots).unwrap();
    let won = first(&slots);
    assert!(lost.revision.rank() > won.revision.rank());
    let opened = open(&[&won, &lost], &unlock).unwrap();
    assert_same(&opened.keyring, &won.keyring);
    assert_eq!(opened.strays, [lost.object.name.as_str()]);
    assert_eq!(opened.ignored.len(), 1);
    assert!(matches!(open(&[&lost], &unlock), Err(KeyError::Header { .. })));
    // Without the header at hand nothing tells them apart but their rank.
    let objects = [won.object, lost.object.clone()];
    let opened = open_revisions(VAULT, None, &objects, &unlock).unwrap();
    assert_same(&opened.keyring, &lost.keyring);
}

#[test]
fn replacing_one_slot_keeps_every_other_working_without_its_secret() {
    let (host, ops, safe) = (file(), passphrase("correct horse"), Unlock::Kit(Key::random()));
    let one = first(&[slot("host", &host), slot("ops", &ops), slot("safe", &safe)]);
    let new_host = file();
    let opened = open(&[&one], &host).unwrap();
    let two = opened.change(&stamp(1, 5), &replace("host", &new_host, false)).unwrap();
    for unlock in [&new_host, &ops, &safe] {
        let opened = open(&[&two], unlock).unwrap();
        assert_same(&opened.keyring, &one.keyring);
        assert_eq!(opened.revision.number(), 2);
    }
    assert!(matches!(open(&[&two], &host), Err(KeyError::Wrong { .. })));
    let opened = open(&[&two, &one], &ops).unwrap();
    assert_eq!(
        opened.superseded(&[one.object.clone(), two.object.clone()]),
        [one.object.name]
    );
}

#[test]
fn the_former_secret_is_refused_while_the_former_revision_is_still_there() {
    let (host, new_host) = (file(), file());
    let one = first(&[slot("host", &host)]);
    let two = open(&[&one], &host)
        .unwrap()
        .change(&stamp(1, 5), &replace("host", &new_host, true))
        .unwrap();
    let error = open(&[&one, &two], &host).unwrap_err();
    assert!(
        matches!(&error, KeyError::Removed { slot, revision: 2, .. } if slot == "host"),
        "{error}"
    );
    assert_eq!(open(&[&one, &two], &new_host).unwrap().keyring.generations.len(), 2);
}

#[test]
fn a_rotation_for_compromise_adds_a_generation_and_keeps_the_old_ones() {
    let (host, ops) = (file(), passphrase("correct horse"));
    let one = first(&[slot("host", &host), slot("ops", &ops)]);
    let opened = open(&[&one], &host).unwrap();
    let two = opened
        .change(&stamp(1, 5), &replace("ops", &passphrase("battery staple"), true))
        .unwrap();
    let ring = open(&[&one, &two], &host).unwrap().keyring;
    assert_eq!(ring.newest(), Generation(2));
    assert!(ring.id == one.keyring.id && ring.cut == one.keyring.cut);
    assert!(content(&ring)[0] == content(&one.keyring)[0]);
    assert!(content(&ring)[1].1 != content(&ring)[0].1 && content(&ring)[1].2 != content(&ring)[0].2);
}

#[test]
fn slots_are_added_and_removed_by_name_within_the_rules() {
    let (host, ops) = (file(), passphrase("correct horse"));
    let one = first(&[slot("host", &host)]);
    let opened = open(&[&one], &host).unwrap();
    let change = |opened: &Opened, change: Change| opened.change(&stamp(1, 5), &change);
    let remove = |name: &str| Change::Remove {
        slot: name.to_owned(),
        compromised: false,
    };

    for bad in ["", "a\nb", &"x".repeat(51), "host"] {
        let error = change(&opened, Change::Add(slot(bad, &ops))).unwrap_err();
        assert!(matches!(error, KeyError::Slot { .. }), "{bad:?}: {error}");
    }
    assert!(matches!(
        change(&opened, Change::Add(slot("ops", &passphrase("short")))),
        Err(KeyError::Slot { .. })
    ));
    assert!(
        matches!(change(&opened, remove("host")), Err(KeyError::Slot { .. })),
        "the last slot"
    );
    assert!(matches!(change(&opened, remove("nobody")), Err(KeyError::Slot { .. })));

    let sweeper = NewSlot {
        grant: Grant::Sweep,
        ..slot("sweeper", &file())
    };
    let two = change(&opened, Change::Add(sweeper)).unwrap();
    let opened = open(&[&two], &host).unwrap();
    assert!(
        matches!(change(&opened, remove("host")), Err(KeyError::Slot { .. })),
        "the last with all keys"
    );

    let three = change(&opened, Change::Add(slot("ops", &ops))).unwrap();
    let opened = open(&[&three], &ops).unwrap();
    let four = change(&opened, remove("host")).unwrap();
    assert!(matches!(open(&[&four], &host), Err(KeyError::Wrong { .. })));
    assert_same(&open(&[&four], &ops).unwrap().keyring, &one.keyring);

    let full: Vec<NewSlot> = (0..=KEY_SLOTS_MAX).map(|n| slot(&format!("s{n}"), &host)).collect();
    let made = first_revision(VAULT, HEADER, &stamp(1, 5), Keyring::generate(), &full);
    assert!(matches!(made, Err(KeyError::Slot { .. })));
}

#[test]
fn a_holder_gets_what_it_was_granted_and_cannot_grant_more() {
    let (host, reader, sweeper) = (file(), file(), file());
    let draft = first(&[
        slot("host", &host),
        NewSlot {
            grant: Grant::Read,
            ..slot("reader", &reader)
        },
        NewSlot {
            grant: Grant::Sweep,
            ..slot("sweeper", &sweeper)
        },
    ]);
    let opened = open(&[&draft], &reader).unwrap();
    assert!(opened.keyring.cut.is_none());
    assert!(content(&opened.keyring) == content(&draft.keyring));
    let error = opened.change(&stamp(1, 5), &Change::NewGeneration).unwrap_err();
    assert!(matches!(error, KeyError::NotAllowed { .. }));

    let opened = open(&[&draft], &sweeper).unwrap();
    assert!(opened.keyring.cut.is_none() && opened.keyring.id == draft.keyring.id);
    let keys = &opened.keyring.generations[&Generation(1)];
    assert!(keys.data.is_none() && keys.meta == draft.keyring.generations[&Generation(1)].meta);
    assert!(opened.change(&stamp(1, 5), &Change::NewGeneration).is_err());

    let two = open(&[&draft], &host)
        .unwrap()
        .change(&stamp(1, 5), &Change::NewGeneration)
        .unwrap();
    assert_eq!(open(&[&two], &sweeper).unwrap().keyring.generations.len(), 2);
}

#[test]
fn of_two_revisions_of_one_number_the_higher_claim_counts_and_no_generation_is_lost() {
    let host = file();
    let one = first(&[slot("host", &host)]);
    let opened = open(&[&one], &host).unwrap();
    let late = opened.change(&stamp(1, 5), &Change::NewGeneration).unwrap();
    let taker = opened.change(&stamp(2, 9), &Change::NewGeneration).unwrap();
    for order in [[&late, &taker], [&taker, &late]] {
        let both = open(&order, &host).unwrap();
        assert_eq!(both.revision.object_name(), taker.object.name);
        assert_same(&both.keyring, &taker.keyring);
        assert_eq!(both.conflicts, BTreeSet::from([Generation(2)]));
        let next = both.change(&stamp(2, 9), &Change::NewGeneration).unwrap();
        assert_eq!(next.revision.number(), 3);
        let opened = open(&[&late, &taker, &next], &host).unwrap();
        let kept = opened.superseded(&[late.object.clone(), taker.object.clone(), next.object.clone()]);
        assert_eq!(
            kept,
            std::slice::from_ref(&taker.object.name),
            "the revision that lost has keys that no other has"
        );
    }
    // One number, one claim: the lowest writer.
    let low = opened.change(&stamp(1, 3), &Change::NewGeneration).unwrap();
    assert_eq!(
        open(&[&late, &low], &host).unwrap().revision.object_name(),
        low.object.name
    );
}

#[test]
fn a_generation_of_an_older_revision_that_the_newest_lacks_is_kept() {
    let (host, ops) = (file(), file());
    let one = first(&[slot("host", &host)]);
    let opened = open(&[&one], &host).unwrap();
    let renewed = opened.change(&stamp(1, 5), &Change::NewGeneration).unwrap();
    // Written by one who had not seen it, as number 2 and then 3.
    let blind = opened.change(&stamp(1, 6), &Change::Add(slot("ops", &ops))).unwrap();
    let blind = open(&[&blind], &host)
        .unwrap()
        .change(&stamp(1, 6), &Change::Add(slot("more", &file())))
        .unwrap();
    let both = open(&[&renewed, &blind], &host).unwrap();
    assert_eq!(both.revision.number(), 3);
    assert!(content(&both.keyring) == content(&renewed.keyring));
    assert!(both.superseded(std::slice::from_ref(&renewed.object)).is_empty());
    let next = both
        .change(
            &stamp(1, 6),
            &Change::Remove {
                slot: String::from("more"),
                compromised: false,
            },
        )
        .unwrap();
    assert!(content(&open(&[&next], &ops).unwrap().keyring) == content(&renewed.keyring));
    assert!(
        next.revision
            .contains()
            .contains(blake3::hash(&renewed.object.bytes).as_bytes())
    );
}

#[test]
fn an_old_body_under_a_new_number_is_ignored() {
    let host = file();
    let one = first(&[slot("host", &host)]);
    let two = open(&[&one], &host)
        .unwrap()
        .change(&stamp(1, 5), &Change::NewGeneration)
        .unwrap();
    let replayed = forge(&one.object, |body| body.revision = 3);
    let renamed = RevisionObject {
        name: one.object.name.replace("00000001-", "00000004-"),
        ..one.object.clone()
    };
    let objects = [replayed, renamed, two.object.clone(), one.object.clone()];
    let opened = open_revisions(VAULT, Some(&HEADER), &objects, &host).unwrap();
    assert_eq!(opened.revision.number(), 2);
    let why: Vec<&FormatError> = opened.ignored.iter().map(|i| &i.why).collect();
    assert!(
        matches!(
            why[..],
            [
                FormatError::Mismatch { .. },
                FormatError::Authentication { what: "key revision" }
            ]
        ),
        "{why:?}"
    );
}

#[test]
fn keys_that_a_stranger_seals_to_our_public_keys_are_ignored() {
    let host = file();
    let ours = first(&[slot("host", &host)]);
    // The stranger knows what is in clear: slot id, public key and anchor. He draws keys and seals them to us, with MACs of his own.
    let mut slots: Vec<Slot> = ours.revision.slots.iter().map(|s| s.slot.clone()).collect();
    let his = draft(
        VAULT,
        HEADER,
        2,
        &stamp(9, 1),
        Keyring::generate(),
        &slots,
        BTreeSet::new(),
    )
    .unwrap();
    let opened = open(&[&ours, &his], &host).unwrap();
    assert_same(&opened.keyring, &ours.keyring);
    assert_eq!(opened.ignored.len(), 1);
    assert_eq!(
        opened.ignored[0].why,
        FormatError::Authentication {
            what: "anchor of the key slot"
        }
    );
    let error = open(&[&his], &host).unwrap_err();
    assert!(matches!(error, KeyError::Revisions { .. }), "{error}");
    // Nor does a revision count that has no slot of ours and his MACs.
    slots.clear();
    slots.push(Slot::make(VAULT, &slot("his", &file()), "", &his.keyring).unwrap());
    let his = draft(VAULT, HEADER, 3, &stamp(9, 1), his.keyring, &slots, BTreeSet::new()).unwrap();
    let opened = open(&[&ours, &his], &host).unwrap();
    assert_same(&opened.keyring, &ours.keyring);
    assert_eq!(
        opened.ignored[0].why,
        FormatError::Authentication { what: "key revision" }
    );
}

#[test]
fn who_may_only_sweep_cannot_write_a_revision_that_writers_follow() {
    let (host, sweeper) = (file(), file());
    let ours = first(&[
        slot("host", &host),
        NewSlot {
            grant: Grant::Sweep,
            ..slot("sweeper", &sweeper)
        },
    ]);
    // He has K_id and K_meta, and draws K_cut and K_data that he knows.
    let mut ring = open(&[&ours], &sweeper).unwrap().keyring;
    ring.cut = Some(Key::random());
    for keys in ring.generations.values_mut() {
        keys.data = Some(Key::random());
    }
    ring.generations.insert(
        Generation(2),
        GenerationKeys {
            meta: Key::random(),
            data: Some(Key::random()),
        },
    );
    let slots: Vec<Slot> = ours.revision.slots.iter().map(|s| s.slot.clone()).collect();
    let his = draft(VAULT, HEADER, 2, &stamp(1, 5), ring.clone(), &slots, BTreeSet::new()).unwrap();
    let opened = open(&[&ours, &his], &host).unwrap();
    assert_same(&opened.keyring, &ours.keyring);
    assert_eq!(opened.ignored.len(), 1);

    // Nor one that has no slot of ours, which would lock us out: its second MAC is not under our K_cut.
    let his_own = Slot::make(VAULT, &slot("his", &file()), "", &ring).unwrap();
    let slots = [slots[1].clone(), his_own];
    let his = draft(VAULT, HEADER, 2, &stamp(1, 5), ring, &slots, BTreeSet::new()).unwrap();
    let opened = open(&[&ours, &his], &host).unwrap();
    assert_same(&opened.keyring, &ours.keyring);
    assert_eq!(
        opened.ignored[0].why,
        FormatError::Authentication { what: "key revision" }
    );
}

#[test]
fn a_slot_of_another_vault_with_the_same_secret_is_foreign() {
    let host = file();
    let other = first_revision(
        VaultId([2; 16]),
        HEADER,
        &stamp(9, 1),
        Keyring::generate(),
        &[slot("host", &host)],
    );
    let (ours, other) = (first(&[slot("host", &host)]), other.unwrap());
    let opened = open(&[&other, &ours], &host).unwrap();
    assert_same(&opened.keyring, &ours.keyring);
    assert!(matches!(opened.ignored[0].why, FormatError::Mismatch { .. }));
    let moved = forge(&other.object, |body| body.vault_id = VAULT.0.to_vec().into());
    let opened = open_revisions(VAULT, None, &[moved, ours.object.clone()], &host).unwrap();
    assert_same(&opened.keyring, &ours.keyring);
    assert!(matches!(open(&[&other], &host), Err(KeyError::None { .. })));
}

#[test]
fn no_flipped_bit_and_no_cut_goes_unnoticed() {
    let unlocks = [file(), passphrase("correct horse")];
    let draft = first(&[slot("host", &unlocks[0]), slot("ops", &unlocks[1])]);
    let bytes = &draft.object.bytes;
    for bit in 0..bytes.len() * 8 {
        let mut damaged = bytes.to_vec();
        damaged[bit / 8] ^= 1 << (bit % 8);
        let object = RevisionObject {
            bytes: damaged.into(),
            ..draft.object.clone()
        };
        let error = open_revisions(VAULT, Some(&HEADER), &[object], &unlocks[0]).unwrap_err();
        assert!(matches!(error, KeyError::Revisions { .. }), "bit {bit}: {error}");
        assert_eq!(error.kind(), crate::Kind::Corrupt, "bit {bit}: {error}");
    }
    for length in 0..bytes.len() {
        let object = RevisionObject {
            bytes: bytes.slice(..length),
            ..draft.object.clone()
        };
        let error = open_revisions(VAULT, Some(&HEADER), &[object], &unlocks[1]).unwrap_err();
        assert!(matches!(error, KeyError::Revisions { .. }), "cut at {length}: {error}");
    }
    let long = RevisionObject {
        bytes: vec![0; KEY_REVISION_MAX + 1].into(),
        ..draft.object.clone()
    };
    let error = open_revisions(VAULT, Some(&HEADER), &[long], &unlocks[0]).unwrap_err();
    assert!(
        matches!(
            error,
            KeyError::Revisions {
                source: FormatError::TooLarge { .. },
                ..
            }
        ),
        "{error}"
    );
}

#[test]
fn no_flipped_bit_in_a_body_with_a_right_checksum_gives_other_keys() {
    let host = file();
    let draft = first(&[slot("host", &host)]);
    let outer = stored::KeyRevision::decode(draft.object.bytes.clone()).unwrap();
    for bit in 0..outer.body.len() * 8 {
        let mut body = outer.body.to_vec();
        body[bit / 8] ^= 1 << (bit % 8);
        let mut hasher = blake3::Hasher::new();
        hasher.update(&body).update(&outer.mac).update(&outer.full_mac);
        let checksum = hasher.finalize().as_bytes().to_vec().into();
        let bytes = stored::KeyRevision {
            body: body.into(),
            checksum,
            ..outer.clone()
        }
        .encode_to_vec()
        .into();
        let object = RevisionObject {
            bytes,
            ..draft.object.clone()
        };
        let error = open_revisions(VAULT, Some(&HEADER), &[object], &host).unwrap_err();
        let named = matches!(
            error,
            KeyError::Revisions { .. } | KeyError::Wrong { .. } | KeyError::None { .. }
        );
        assert!(named, "bit {bit}: {error}");
    }
}

#[test]
fn a_slot_that_asks_for_absurd_work_is_refused_without_doing_it() {
    let ops = passphrase("correct horse");
    let draft = first(&[slot("ops", &ops)]);
    let absurd = |memory_kib, passes, lanes| {
        forge(&draft.object, |body| {
            let Some(key_slot::Unlock::Passphrase(p)) = &mut body.slots[0].unlock else {
                panic!("a passphrase slot")
            };
            (p.memory_kib, p.passes, p.lanes) = (memory_kib, passes, lanes);
        })
    };
    for object in [
        absurd(u32::MAX, 1, 1),
        absurd(64, u32::MAX, 1),
        absurd(64, 1, u32::MAX),
        absurd(1 << 20, 64, 1),
    ] {
        let error = open_revisions(VAULT, Some(&HEADER), &[object], &ops).unwrap_err();
        assert!(
            matches!(
                error,
                KeyError::Revisions {
                    source: FormatError::TooLarge { .. },
                    ..
                }
            ),
            "{error}"
        );
    }
}

#[test]
fn bodies_over_the_bounds_are_refused() {
    let host = file();
    let draft = first(&[slot("host", &host)]);
    type Edit = fn(&mut stored::KeyRevisionBody);
    let edits: [(&str, Edit); 14] = [
        ("version", |b| b.format_version = 2),
        ("number", |b| b.revision = 0),
        ("no slots", |b| b.slots.clear()),
        ("many slots", |b| b.slots = vec![b.slots[0].clone(); KEY_SLOTS_MAX + 1]),
        ("a million empty slots", |b| {
            b.slots = vec![stored::KeySlot::default(); 500_000];
        }),
        ("equal names", |b| b.slots.push(b.slots[0].clone())),
        ("no generations", |b| b.generations.clear()),
        ("many generations", |b| b.generations = (1..1000).collect()),
        ("huge generation", |b| b.generations = vec![u32::MAX]),
        ("descending generations", |b| b.generations = vec![2, 1]),
        ("a key less", |b| drop(b.slots[0].keys.pop())),
        ("no kind", |b| b.slots[0].unlock = None),
        ("grant", |b| b.slots[0].grant = 9),
        ("loud name", |b| b.slots[0].name = String::from("\u{1b}[2J")),
    ];
    for (what, edit) in edits {
        let object = forge(&draft.object, edit);
        let error = open_revisions(VAULT, Some(&HEADER), &[object], &host).unwrap_err();
        assert!(matches!(error, KeyError::Revisions { .. }), "{what}: {error}");
    }
    let no_writer = {
        let mut outer = stored::KeyRevision::decode(draft.object.bytes.clone()).unwrap();
        let mut body = stored::KeyRevisionBody::decode(outer.body).unwrap();
        body.writer = None;
        outer.body = body.encode_to_vec().into();
        RevisionObject {
            bytes: outer.encode_to_vec().into(),
            ..draft.object.clone()
        }
    };
    assert!(open_revisions(VAULT, Some(&HEADER), &[no_writer], &host).is_err());
}

#[test]
fn a_revision_of_a_later_program_is_passed_over_for_reading_and_never_by_a_change() {
    let host = file();
    let one = first(&[slot("host", &host)]);
    let later = forge(&one.object, |body| {
        body.format_version = 2;
        body.revision = 2;
    });
    let opened = open_revisions(VAULT, Some(&HEADER), &[later, one.object.clone()], &host).unwrap();
    assert_eq!(opened.ignored.len(), 1);
    let error = opened.change(&stamp(1, 5), &Change::NewGeneration).unwrap_err();
    assert_eq!(error.kind(), crate::Kind::Unsupported);
}

#[test]
fn the_largest_revision_fits_its_bound() {
    let host = file();
    let mut ring = Keyring::generate();
    while ring.generations.len() < KEY_GENERATIONS_MAX {
        ring.add_generation();
    }
    let slots: Vec<NewSlot> = (0..KEY_SLOTS_MAX).map(|n| slot(&format!("{n:050}"), &host)).collect();
    let mut draft = first_revision(VAULT, HEADER, &stamp(u64::MAX, u64::MAX), ring, &slots).unwrap();
    draft.revision.contains = (0..KEY_REVISIONS_MAX)
        .map(|n| [n as u8; 32].map(|b| b ^ (n >> 3) as u8))
        .collect();
    draft.object.bytes = draft.revision.encode(&draft.keyring);
    assert!(
        draft.object.bytes.len() <= KEY_REVISION_MAX,
        "{}",
        draft.object.bytes.len()
    );
    assert_same(&open(&[&draft], &host).unwrap().keyring, &draft.keyring);
    let error = open(&[&draft], &host)
        .unwrap()
        .change(&stamp(1, 5), &Change::NewGeneration)
        .unwrap_err();
    assert!(matches!(error, KeyError::Slot { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_history_of_changes_keeps_all_generations_for_all_slots(changes in prop::collection::vec(0u8..4, 1..8)) {
        let (host, kit) = (file(), Unlock::Kit(Key::random()));
        let mut holders = vec![(String::from("host"), host.clone()), (String::from("kit"), kit.clone())];
        let mut newest = first(&[slot("host", &host), slot("kit", &kit)]);
        let mut expected = content(&newest.keyring);
        for (n, change) in changes.into_iter().enumerate() {
            let opened = open(&[&newest], &kit).unwrap();
            let unlock = file();
            let change = match change {
                0 => {
                    holders.push((format!("slot {n}"), unlock.clone()));
                    Change::Add(slot(&format!("slot {n}"), &unlock))
                }
                1 => {
                    holders[0].1 = unlock.clone();
                    replace("host", &unlock, true)
                }
                2 if holders.len() > 2 => {
                    let (slot, _) = holders.pop().unwrap();
                    Change::Remove { slot, compromised: false }
                }
                _ => Change::NewGeneration,
            };
            newest = opened.change(&stamp(1, 5), &change).unwrap();
            let now = content(&newest.keyring);
            prop_assert!(now[..expected.len()] == expected[..]);
            expected = now;
            for (_, unlock) in &holders {
                prop_assert!(content(&open(&[&newest], unlock).unwrap().keyring) == expected);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_reader_fail_otherwise_than_by_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let name = String::from("keys/00000001-0000000000000005-0000000000000001-0000000000000001.pb");
        let object = RevisionObject { name, bytes: bytes.into() };
        prop_assert!(open_revisions(VAULT, None, &[object], &file()).is_err());
    }
}
