//! Names of a vault's objects, and reading them back from listings.

use crate::ids::{ClusterId, ItemId, PackId, PointId, Writer, hex};

/// The vault's header.
pub const HEADER: &str = "vault.pb";
/// Folder of key revisions.
pub const KEYS: &str = "keys/";
/// Folder of packs.
pub const PACKS: &str = "packs/";
/// Folder of index segments.
pub const INDEX: &str = "index/";
/// Folder of manifests.
pub const POINTS: &str = "points/";
/// Folder of catalogues.
pub const CATALOG: &str = "catalog/";
/// Folder of lists of dead packs, which nothing writes yet.
pub const DEAD: &str = "dead/";
/// Folder of claims.
pub const CLUSTER: &str = "cluster/";

/// `packs/<hh>/<writer>/<seq>`: two digits of a hash spread the prefixes.
pub fn pack(id: PackId) -> String {
    let spread = blake3::hash(id.to_string().as_bytes());
    format!("{PACKS}{}/{id}", hex(&spread.as_bytes()[..1]))
}

/// Reads a pack's name; `None` for anything else, also for a pack under a wrong spread prefix.
pub fn parse_pack(name: &str) -> Option<PackId> {
    let rest = name.strip_prefix(PACKS)?;
    let (_, id) = rest.split_once('/')?;
    let id = parse_numbered(id)?;
    (pack(id) == name).then_some(id)
}

/// `index/<writer>/<seq>`.
pub fn segment(id: PackId) -> String {
    format!("{INDEX}{id}")
}

/// Reads a segment's name.
pub fn parse_segment(name: &str) -> Option<PackId> {
    parse_numbered(name.strip_prefix(INDEX)?)
}

fn parse_numbered(text: &str) -> Option<PackId> {
    let (writer, seq) = text.split_once('/')?;
    let writer: Writer = writer.parse().ok()?;
    let seq = crate::ids::unhex::<4>(seq).map(u32::from_be_bytes)?;
    Some(PackId { writer, seq })
}

/// `points/<item>/<point>.pb`.
pub fn point(item: ItemId, point: PointId) -> String {
    format!("{POINTS}{item}/{point}.pb")
}

/// Reads a manifest's name.
pub fn parse_point(name: &str) -> Option<(ItemId, PointId)> {
    let (item, point) = name.strip_prefix(POINTS)?.strip_suffix(".pb")?.split_once('/')?;
    Some((item.parse().ok()?, point.parse().ok()?))
}

/// `keys/<revision>-<writer>.pb`.
pub fn key_revision(revision: u32, writer: Writer) -> String {
    format!("{KEYS}{revision:08x}-{writer}.pb")
}

/// Reads a key revision's name.
pub fn parse_key_revision(name: &str) -> Option<(u32, Writer)> {
    let (revision, writer) = name.strip_prefix(KEYS)?.strip_suffix(".pb")?.split_once('-')?;
    Some((
        crate::ids::unhex::<4>(revision).map(u32::from_be_bytes)?,
        writer.parse().ok()?,
    ))
}

/// `cluster/<n>-<cluster>`.
pub fn claim(number: u64, cluster: ClusterId) -> String {
    format!("{CLUSTER}{number:016x}-{cluster}")
}

/// Reads a claim's name.
pub fn parse_claim(name: &str) -> Option<(u64, ClusterId)> {
    let (number, cluster) = name.strip_prefix(CLUSTER)?.split_once('-')?;
    Some((
        crate::ids::unhex::<8>(number).map(u64::from_be_bytes)?,
        cluster.parse().ok()?,
    ))
}

/// `catalog/<cluster>-<index>`.
pub fn catalog(cluster: ClusterId, index: u64) -> String {
    format!("{CATALOG}{cluster}-{index:016x}")
}

/// `catalog/<cluster>-<index>.<number>`: a part of the state of a catalogue.
pub fn catalog_part(cluster: ClusterId, index: u64, number: u16) -> String {
    format!("{}.{number:04x}", catalog(cluster, index))
}

/// Reads the name of a part of a catalogue.
pub fn parse_catalog_part(name: &str) -> Option<(ClusterId, u64, u16)> {
    let (catalog, number) = name.split_once('.')?;
    let (cluster, index) = parse_catalog(catalog)?;
    Some((cluster, index, crate::ids::unhex::<2>(number).map(u16::from_be_bytes)?))
}

/// Reads a catalogue's name.
pub fn parse_catalog(name: &str) -> Option<(ClusterId, u64)> {
    let (cluster, index) = name.strip_prefix(CATALOG)?.split_once('-')?;
    Some((
        cluster.parse().ok()?,
        crate::ids::unhex::<8>(index).map(u64::from_be_bytes)?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{PartId, SessionId};

    #[test]
    fn every_name_reads_back_as_what_it_was_made_from() {
        let writer = Writer {
            cluster: ClusterId(7),
            session: SessionId(9),
            part: PartId(11),
        };
        let id = PackId { writer, seq: 255 };
        assert_eq!(parse_pack(&pack(id)), Some(id));
        assert_eq!(parse_segment(&segment(id)), Some(id));
        let (item, point_id) = (ItemId::random(), PointId::random());
        assert_eq!(parse_point(&point(item, point_id)), Some((item, point_id)));
        assert_eq!(parse_key_revision(&key_revision(3, writer)), Some((3, writer)));
        assert_eq!(parse_claim(&claim(3, ClusterId(5))), Some((3, ClusterId(5))));
        assert_eq!(parse_catalog(&catalog(ClusterId(5), 3)), Some((ClusterId(5), 3)));
        let part = catalog_part(ClusterId(5), 3, 258);
        assert_eq!(parse_catalog_part(&part), Some((ClusterId(5), 3, 258)));
        assert_eq!(parse_catalog(&part), None, "a part is no catalogue");
        assert_eq!(parse_catalog_part(&catalog(ClusterId(5), 3)), None);
    }

    #[test]
    fn a_pack_under_a_wrong_prefix_is_no_pack() {
        let writer = Writer {
            cluster: ClusterId(7),
            session: SessionId(9),
            part: PartId(11),
        };
        let name = pack(PackId { writer, seq: 0 });
        let other = if &name[6..8] == "00" { "01" } else { "00" };
        assert_eq!(parse_pack(&format!("packs/{other}{}", &name[8..])), None);
    }
}
