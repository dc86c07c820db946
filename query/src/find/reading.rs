//! From hashes of ids to rows. Rows move while answers are made: from the inbox into the table, and
//! there from file to file. What was looked up and is not there any more is looked up once more.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, stream};
use tracing::{Instrument as _, info_span};

use super::catalog::{Catalog, Places};
use super::far::Far;
use super::gather::MAX_RECORDS;
use super::inner::Inner;
use super::known::{Known, Source};
use super::read::{ReadError, Wanted};
use crate::flow::{Row, RowId};

/// Sources that are read at the same time.
const AT_ONCE: usize = 8;
/// How often rows are looked up anew.
const TRIES: usize = 3;

/// Which rows are kept where there are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keep {
    Oldest,
    Newest,
}

/// How far is looked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Through the index in memory only: a list does not wait for the store.
    Near,
    /// Through all there is.
    Far,
}

/// Why rows that were looked up are not there.
enum Trouble {
    /// They are elsewhere now.
    Moved,
    Read(ReadError),
}

impl Catalog {
    /// Rows that carry any of `hashes`, but not more than anybody reads. True: some are left out.
    pub(super) async fn carriers(
        &self,
        hashes: &[u64],
        keep: Keep,
        reach: Reach,
        wanted: Wanted,
    ) -> Result<(Vec<Row>, bool), String> {
        let mut tries = 0;
        loop {
            let moves = self.read().moves;
            match self.carriers_once(hashes, keep, reach, wanted).await {
                Ok(found) => return Ok(found),
                Err(trouble) => self.once_more(&mut tries, moves, trouble).await?,
            }
        }
    }

    async fn carriers_once(
        &self,
        hashes: &[u64],
        keep: Keep,
        reach: Reach,
        wanted: Wanted,
    ) -> Result<(Vec<Row>, bool), Trouble> {
        // At one moment: a file lies in the index, or is far.
        let (near, far) = {
            let inner = self.read();
            let far = if reach == Reach::Far { inner.far() } else { Far::default() };
            (cut(&inner, hashes, keep), far)
        };
        let (places, near_cut) = near;
        let far = async { self.read_far(far, hashes, keep, wanted).await.map_err(Trouble::Read) };
        let (near, (far, far_cut)) = tokio::try_join!(self.read_rows(places, wanted), far)?;
        let mut rows = near;
        rows.extend(far);
        let is_cut = cut_rows(&mut rows, keep);
        Ok((rows, is_cut || near_cut || far_cut))
    }

    /// Reads the rows that `find` finds in the index. A source that cannot be read any more is an
    /// error: part of an answer is none.
    pub(super) async fn rows<T>(
        &self,
        wanted: Wanted,
        find: impl Fn(&Self) -> (Places, T),
    ) -> Result<(Vec<Row>, T), String> {
        let mut tries = 0;
        loop {
            let moves = self.read().moves;
            let (places, found) = find(self);
            match self.read_rows(places, wanted).await {
                Ok(rows) => return Ok((rows, found)),
                Err(trouble) => self.once_more(&mut tries, moves, trouble).await?,
            }
        }
    }

    /// Whether rows that are not where they were are to be looked up once more; an error: they are
    /// not. `moves`: how often sources had moved before.
    async fn once_more(
        &self,
        tries: &mut usize,
        moves: u64,
        trouble: Trouble,
    ) -> Result<(), String> {
        *tries += 1;
        match trouble {
            Trouble::Moved if *tries < TRIES => Ok(()),
            Trouble::Moved => Err("its rows move too often".to_owned()),
            Trouble::Read(ReadError::Gone(why)) if *tries < TRIES => {
                let looked = moves != self.read().moves;
                if !looked && let Err(error) = self.look_again().await {
                    return Err(format!("{why}; {error}"));
                }
                Ok(())
            }
            Trouble::Read(error) => Err(error.why()),
        }
    }

    async fn read_rows(&self, places: Places, wanted: Wanted) -> Result<Vec<Row>, Trouble> {
        let sources: Vec<(Arc<Known>, Vec<u32>)> = {
            let inner = self.read();
            let known = |(place, rows)| Some((inner.sources.get(&place)?.clone(), rows));
            let found: Option<_> = places.into_iter().map(known).collect();
            found.ok_or(Trouble::Moved)?
        };
        if sources.is_empty() {
            return Ok(Vec::new());
        }
        let span = info_span!("read", sources = sources.len());
        let read = stream::iter(sources).map(|(known, mut rows)| async move {
            rows.sort_unstable();
            rows.dedup();
            match &known.source {
                Source::Inbox(_) => self.rows_of_object(&known, rows, wanted).await,
                Source::File(_) => self.rows_of_file(&known, &rows, wanted).await,
            }
        });
        let mut read = read.buffer_unordered(AT_ONCE);
        let all = async {
            let mut all = Vec::new();
            while let Some(rows) = read.next().await {
                all.extend(rows.map_err(Trouble::Read)?);
            }
            Ok(all)
        };
        all.instrument(span).await
    }

    async fn rows_of_object(
        &self,
        known: &Arc<Known>,
        rows: Vec<u32>,
        wanted: Wanted,
    ) -> Result<Vec<Row>, ReadError> {
        let opened = self.cache.object(&self.store, known.source.meta()).await?;
        let known = known.clone();
        let task = tokio::task::spawn_blocking(move || opened.rows(&known.source, &rows, wanted));
        task.await.map_err(|error| ReadError::Broken(error.to_string()))?.map_err(ReadError::Broken)
    }

    /// One row group after the other, so that a flow that lies in many does not fill the memory.
    async fn rows_of_file(
        &self,
        known: &Arc<Known>,
        rows: &[u32],
        wanted: Wanted,
    ) -> Result<Vec<Row>, ReadError> {
        let meta = known.source.meta();
        let footer = self.cache.footer(&self.store, meta).await?;
        let mut found = Vec::with_capacity(rows.len());
        let (mut first, mut rest) = (0_u64, rows);
        for (group, about) in footer.metadata().row_groups().iter().enumerate() {
            let next = first + u64::try_from(about.num_rows()).unwrap_or_default();
            let here = rest.partition_point(|row| u64::from(*row) < next);
            let (own, after) = rest.split_at(here);
            if !own.is_empty() {
                let own: Vec<u32> = own.iter().map(|row| row - first as u32).collect();
                let opened = self.cache.group(&self.store, meta, group, wanted).await?;
                let known = known.clone();
                let task =
                    tokio::task::spawn_blocking(move || opened.rows(&known.source, &own, wanted));
                let made = task.await.map_err(|error| ReadError::Broken(error.to_string()))?;
                found.extend(made.map_err(ReadError::Broken)?);
            }
            (first, rest) = (next, after);
        }
        Ok(found)
    }

    /// Where a row lies; nowhere: no place.
    pub(super) fn place_of(&self, row: &RowId) -> Places {
        let inner = self.read();
        let found = inner.row_of(&row.agent, &row.boot, row.seq);
        found.map(|(place, _, number)| (place, vec![number])).into_iter().collect()
    }

    /// Where the rows of the index lie that carry any of `hashes`. A runaway id must not lead to
    /// reading the whole store. True: some are left out.
    pub(super) fn cut(&self, hashes: &[u64], keep: Keep) -> (Places, bool) {
        cut(&self.read(), hashes, keep)
    }

    /// Where all rows of the index lie that carry any of `hashes`.
    pub(super) fn places_of(&self, hashes: &[u64]) -> Places {
        by_place(rows_with(&self.read(), hashes))
    }
}

fn cut(inner: &Inner, hashes: &[u64], keep: Keep) -> (Places, bool) {
    let mut rows = rows_with(inner, hashes);
    let is_cut = rows.len() > MAX_RECORDS;
    if is_cut {
        let time = |(place, row): (u32, u32)| {
            let known = inner.sources.get(&place);
            (known.map_or(0, |known| known.time_of(row)), place, row)
        };
        let mut timed: Vec<(i64, u32, u32)> = rows.into_iter().map(time).collect();
        if keep == Keep::Oldest {
            timed.select_nth_unstable(MAX_RECORDS);
        } else {
            timed.select_nth_unstable_by(MAX_RECORDS, |a, b| b.cmp(a));
        }
        timed.truncate(MAX_RECORDS);
        rows = timed.into_iter().map(|(_, place, row)| (place, row)).collect();
    }
    (by_place(rows), is_cut)
}

/// The same of rows that were read.
pub(super) fn cut_rows(rows: &mut Vec<Row>, keep: Keep) -> bool {
    if rows.len() <= MAX_RECORDS {
        return false;
    }
    let order = |a: &Row, b: &Row| (a.at, &a.id).cmp(&(b.at, &b.id));
    match keep {
        Keep::Oldest => rows.select_nth_unstable_by(MAX_RECORDS, order),
        Keep::Newest => rows.select_nth_unstable_by(MAX_RECORDS, |a, b| order(b, a)),
    };
    rows.truncate(MAX_RECORDS);
    true
}

fn rows_with(inner: &Inner, hashes: &[u64]) -> Vec<(u32, u32)> {
    let rows = hashes.iter().flat_map(|&hash| inner.lookup.rows_of(hash));
    let mut rows: Vec<(u32, u32)> = rows.collect();
    rows.sort_unstable();
    rows.dedup();
    rows
}

fn by_place(rows: Vec<(u32, u32)>) -> Places {
    let mut places: Places = BTreeMap::new();
    for (place, row) in rows {
        places.entry(place).or_default().push(row);
    }
    places
}
