use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

/// An object of these entries, in one file of so many row groups.
fn object(mut entries: Vec<Entry>, groups: u32, ties: Option<Vec<Entry>>) -> Vec<u8> {
    entries.sort_unstable();
    let mut pages = Pages::new(entries.len() as u64, groups);
    let mut bytes = Vec::new();
    for entry in &entries {
        pages.push(*entry);
        bytes.extend(pages.take());
    }
    let file = Covered {
        path: "history/day=2026-11-21/a.parquet".to_owned(),
        size: 1,
        rows: 1,
        groups,
        entries: entries.len() as u64,
    };
    bytes.extend(end(pages, 20_778, vec![file], ties).expect("it is written"));
    bytes
}

fn open(bytes: &[u8]) -> Option<Directory> {
    let meta = ObjectMeta {
        location: new_path(20_778),
        last_modified: "2026-11-21T12:00:00Z".parse().expect("a time"),
        size: bytes.len() as u64,
        e_tag: None,
        version: None,
    };
    let end = usize::try_from(Directory::end(bytes)?).ok()?;
    Directory::read(meta, &bytes[bytes.len().checked_sub(end)?..])
}

/// Slots of a hash as a reader finds them; nothing where a page is broken.
fn find(directory: &Directory, bytes: &[u8], hash: u64) -> Option<BTreeSet<u32>> {
    find_in(&read_all(directory, bytes), directory, hash)
}

/// All pages; nothing in place of those that are broken.
fn read_all(directory: &Directory, bytes: &[u8]) -> Vec<Option<Page>> {
    let page = |number| {
        let place = Directory::place(number);
        directory.page(bytes.get(place.start as usize..place.end as usize)?, number)
    };
    (0..directory.stored()).map(page).collect()
}

fn find_in(pages: &[Option<Page>], directory: &Directory, hash: u64) -> Option<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    for home in directory.homes(&[hash], |_| false) {
        for page in &pages[home as usize..] {
            let page = page.as_ref()?;
            found.extend(slots(page, &[hash]));
            if !page.goes_on {
                break;
            }
        }
    }
    Some(found)
}

fn assert_all_found(entries: &[Entry], groups: u32) {
    let bytes = object(entries.to_vec(), groups, None);
    let directory = open(&bytes).expect("it is whole");
    let pages = read_all(&directory, &bytes);
    let mut slots_of: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
    for entry in entries {
        slots_of.entry(entry.0 >> 24 << 24).or_default().insert(entry.slot());
    }
    for (hash, slots) in slots_of {
        assert_eq!(find_in(&pages, &directory, hash), Some(slots));
    }
}

#[test]
fn an_empty_one_finds_nothing() {
    let bytes = object(Vec::new(), 0, Some(Vec::new()));
    let directory = open(&bytes).expect("it is whole");
    assert_eq!(find(&directory, &bytes, 7 << 40), Some(BTreeSet::new()));
    assert_eq!(directory.homes(&[7 << 40], |_| true), BTreeSet::new(), "no tie, no page");
}

#[test]
fn equal_hashes_by_the_thousand_go_on_from_page_to_page() {
    let equal = |hash: u64| (0..20_000).map(move |slot| Entry::new(hash, slot));
    let few = (0..1000_u64).map(|n| Entry::new(n << 54, 3));
    // At the very end there is no next page to overflow into.
    let entries: Vec<Entry> = equal(5 << 50).chain(equal(u64::MAX)).chain(few).collect();
    assert_all_found(&entries, 20_000);
}

#[test]
fn an_entry_takes_few_bytes_and_few_pages_overflow() {
    let hash = |n: u64| xxh3_64(&n.to_le_bytes());
    let entries: Vec<Entry> = (0..300_000).map(|n| Entry::new(hash(n), n as u32 % 100)).collect();
    let bytes = object(entries.clone(), 100, None);
    let each = bytes.len() as f64 / entries.len() as f64;
    assert!(each < 5.2, "{each} bytes an entry");
    let directory = open(&bytes).expect("it is whole");
    let pages = read_all(&directory, &bytes);
    let overflow = pages.iter().flatten().filter(|page| page.goes_on).count();
    assert!(overflow * 100 < directory.stored() as usize, "{overflow} pages overflow");
}

#[test]
fn slots_lead_to_files_and_their_row_groups() {
    let file = |groups| Covered { path: String::new(), size: 0, rows: 0, groups, entries: 0 };
    let bytes = end(Pages::new(0, 6), 1, vec![file(2), file(0), file(4)], None).expect("written");
    let directory = open(&bytes).expect("it is whole");
    let found: Vec<_> = (0..7).map(|slot| directory.file_of(slot)).collect();
    let want = [(0, 0), (0, 1), (2, 0), (2, 1), (2, 2), (2, 3)].map(Some);
    assert_eq!(found[..6], want);
    assert_eq!(found[6], None);
}

#[test]
fn with_too_many_ties_every_question_goes_to_a_page() {
    let ties: Vec<Entry> = (0..MAX_TIES as u64).map(|n| Entry::new(n << 40, 0)).collect();
    let few = open(&object(ties.clone(), 1, Some(ties.clone()))).expect("it is whole");
    assert_eq!(few.homes(&[5 << 40], |_| true).len(), 1);
    assert_eq!(few.homes(&[5 << 40 | 1 << 30], |_| true).len(), 0);
    let more: Vec<Entry> = ties.into_iter().chain([Entry::new(u64::MAX, 0)]).collect();
    let many = open(&object(more.clone(), 1, Some(more))).expect("it is whole");
    assert_eq!(many.homes(&[5 << 40 | 1 << 30], |_| true).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_hash_that_was_put_is_found(
        spread in 0_u32..60,
        hashes in prop::collection::vec((any::<u64>(), 0_u32..3000), 0..6000),
    ) {
        // From all over to all in one place.
        let entries: Vec<Entry> =
            hashes.into_iter().map(|(hash, slot)| Entry::new(hash >> spread, slot)).collect();
        assert_all_found(&entries, 3000);
    }

    #[test]
    fn what_is_cut_off_or_flipped_is_missing_and_never_wrong(
        hashes in prop::collection::vec(any::<u64>(), 1..4000),
        at in any::<prop::sample::Index>(),
        bit in 0_u8..8,
    ) {
        let entries: Vec<Entry> = hashes.iter().map(|hash| Entry::new(*hash, 7)).collect();
        let whole = object(entries.clone(), 8, Some(entries));
        let at = at.index(whole.len());
        prop_assert!(open(&whole[..at]).is_none());
        let mut flipped = whole.clone();
        flipped[at] ^= 1 << bit;
        if let Some(directory) = open(&flipped) {
            let pages = read_all(&directory, &flipped);
            for hash in hashes {
                let found = find_in(&pages, &directory, hash);
                prop_assert!(found.is_none_or(|found| found.contains(&7)));
            }
        }
    }
}
