//! Ranges of a disk and the algebra of sets of them. Pure.
//!
//! A *set* is a slice of extents that is ascending, disjoint and without neighbours that touch, none of them empty: what [`normalise`] returns. Every
//! function here takes and returns sets unless it says otherwise.

/// A range of a disk, bytes; multiples of nothing in particular.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    /// Where it starts.
    pub offset: u64,
    /// How long it is; may be zero.
    pub length: u64,
}

impl Extent {
    /// Makes one of an offset and a length.
    pub const fn new(offset: u64, length: u64) -> Self {
        Self { offset, length }
    }

    /// Makes one of where it starts and where it ends; empty if `end` is not after `start`.
    pub const fn between(start: u64, end: u64) -> Self {
        Self {
            offset: start,
            length: end.saturating_sub(start),
        }
    }

    /// The first byte after it. Saturates, so that a foreign length cannot wrap.
    pub const fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Whether it has no bytes.
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// What both have; empty if they are apart.
    pub fn clip(&self, other: Self) -> Self {
        Self::between(self.offset.max(other.offset), self.end().min(other.end()))
    }

    /// The smallest extent of whole units that covers it, cut at `size`. An empty extent stays empty.
    ///
    /// # Panics
    /// If `unit` is zero.
    pub fn align(&self, unit: u64, size: u64) -> Self {
        if self.is_empty() {
            return *self;
        }
        let start = self.offset / unit * unit;
        let end = self.end().checked_next_multiple_of(unit).unwrap_or(u64::MAX);
        Self::between(start, end.min(size))
    }
}

/// Makes a set of any extents: sorts, drops empty ones, joins what overlaps or touches.
pub fn normalise(mut extents: Vec<Extent>) -> Vec<Extent> {
    extents.retain(|e| !e.is_empty());
    extents.sort_unstable();
    let mut set: Vec<Extent> = Vec::with_capacity(extents.len());
    for extent in extents {
        match set.last_mut() {
            Some(last) if extent.offset <= last.end() => {
                last.length = last.end().max(extent.end()) - last.offset;
            }
            _ => set.push(extent),
        }
    }
    set
}

/// Whether the extents are a set already.
pub fn is_normal(extents: &[Extent]) -> bool {
    extents.iter().all(|e| !e.is_empty()) && extents.windows(2).all(|pair| pair[0].end() < pair[1].offset)
}

/// What is in either set.
pub fn union(a: &[Extent], b: &[Extent]) -> Vec<Extent> {
    normalise([a, b].concat())
}

/// What is in both sets.
pub fn intersect(a: &[Extent], b: &[Extent]) -> Vec<Extent> {
    let (mut i, mut j) = (0, 0);
    let mut set = Vec::new();
    while i < a.len() && j < b.len() {
        let both = a[i].clip(b[j]);
        if !both.is_empty() {
            set.push(both);
        }
        if a[i].end() <= b[j].end() {
            i += 1;
        } else {
            j += 1;
        }
    }
    set
}

/// What of `within` is not in the set: its holes.
pub fn complement(set: &[Extent], within: Extent) -> Vec<Extent> {
    let mut holes = Vec::new();
    let mut at = within.offset;
    for extent in set {
        let extent = extent.clip(within);
        if extent.is_empty() {
            continue;
        }
        if extent.offset > at {
            holes.push(Extent::between(at, extent.offset));
        }
        at = extent.end();
    }
    if at < within.end() {
        holes.push(Extent::between(at, within.end()));
    }
    holes
}

/// The set grown to whole units (grains, segments), cut at `size`.
///
/// # Panics
/// If `unit` is zero.
pub fn align(set: &[Extent], unit: u64, size: u64) -> Vec<Extent> {
    normalise(set.iter().map(|e| e.align(unit, size)).collect())
}

/// Sum of the lengths.
pub fn length(set: &[Extent]) -> u64 {
    set.iter().fold(0, |sum, e| sum.saturating_add(e.length))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SPACE: u64 = 96;

    fn some_extents() -> impl Strategy<Value = Vec<Extent>> {
        prop::collection::vec(
            (0..SPACE, 0..12u64).prop_map(|(o, l)| Extent::between(o, (o + l).min(SPACE))),
            0..12,
        )
    }

    fn bits(extents: &[Extent]) -> Vec<bool> {
        (0..SPACE)
            .map(|i| extents.iter().any(|e| e.offset <= i && i < e.end()))
            .collect()
    }

    proptest! {
        #[test]
        fn normalising_keeps_every_byte_and_gives_a_set(extents in some_extents()) {
            let set = normalise(extents.clone());
            prop_assert!(is_normal(&set));
            prop_assert_eq!(bits(&set), bits(&extents));
            prop_assert_eq!(normalise(set.clone()), set);
        }

        #[test]
        fn the_algebra_is_that_of_sets_of_bytes(a in some_extents(), b in some_extents(), from in 0..SPACE, to in 0..SPACE) {
            let (a, b) = (normalise(a), normalise(b));
            let (x, y) = (bits(&a), bits(&b));
            let (or, and) = (union(&a, &b), intersect(&a, &b));
            prop_assert!(is_normal(&or) && is_normal(&and));
            prop_assert_eq!(bits(&or), x.iter().zip(&y).map(|(p, q)| *p || *q).collect::<Vec<_>>());
            prop_assert_eq!(bits(&and), x.iter().zip(&y).map(|(p, q)| *p && *q).collect::<Vec<_>>());
            let within = Extent::between(from, to);
            let holes = complement(&a, within);
            prop_assert!(is_normal(&holes));
            let inside = bits(&[within]);
            prop_assert_eq!(bits(&holes), x.iter().zip(&inside).map(|(p, q)| !*p && *q).collect::<Vec<_>>());
            prop_assert_eq!(length(&holes) + length(&intersect(&a, &normalise(vec![within]))), within.length);
        }

        #[test]
        fn aligning_covers_in_whole_units_and_no_unit_more(a in some_extents(), unit in 1..16u64) {
            let a = normalise(a);
            let wide = align(&a, unit, SPACE);
            prop_assert!(is_normal(&wide));
            let x = bits(&a);
            let wanted: Vec<bool> = (0..SPACE)
                .map(|i| (i / unit * unit..(i / unit * unit + unit).min(SPACE)).any(|j| x[j as usize]))
                .collect();
            prop_assert_eq!(bits(&wide), wanted);
        }
    }

    #[test]
    fn extents_at_the_end_of_the_number_space_do_not_wrap() {
        let far = Extent::new(u64::MAX - 10, 100);
        assert_eq!(far.end(), u64::MAX);
        assert_eq!(far.align(4096, u64::MAX).end(), u64::MAX);
        assert_eq!(normalise(vec![far, Extent::new(u64::MAX - 5, 5)]).len(), 1);
    }
}
