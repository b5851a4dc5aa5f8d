//! Rejected rows of a run, applied again: as they are kept, or corrected.

use super::{
    apply_batch::{Applied, MAX_ATTEMPTS, is_lost_race},
    suppress,
    sync_run::{apply_of, lock},
};
use crate::{
    domain::{
        suppression::Keys,
        sync::Row,
        sync_run::{Mode, RunId},
        text::identifies,
    },
    error::Error,
    store::{
        self,
        audit::Act,
        rejected_row::{Place, RejectedRow},
    },
};
use koc_chassis::{
    clock,
    fault::{Violation, Violations},
    postgres::Db,
};
use koc_proto::koc::registry::v1 as pb;
use prost::Message;
use sqlx::PgConnection;
use std::collections::{HashMap, HashSet};

/// Rows that are applied in one call.
pub const ROWS: i64 = 500;

/// Which rows are applied again.
pub enum Again {
    /// As they are kept: those after a place.
    After(Option<Place>),
    /// Others in their place.
    Corrected(Vec<(Place, pb::MemberRow)>),
}

/// What became of the rows.
pub struct Retried {
    pub rows: Vec<(Place, Applied)>,
    /// Corrections of what is not kept as rejected, any more or at all: nothing was done for them.
    pub none: Vec<Place>,
    /// Where to go on.
    pub next: Option<Place>,
}

/// How a row is read.
pub type Parse = fn(pb::MemberRow) -> Result<Row, Vec<Violation>>;

/// Applies rows again. Errors: RUN_NOT_FOUND; ROW_REPEATED.
pub async fn retry(db: &Db, act: Act<'_>, run: RunId, again: &Again, parse: Parse, keys: &Keys) -> Result<Retried, Error> {
    let mut attempt = 1;
    loop {
        let mut tx = db.begin().await?;
        match retry_in(&mut tx, act, run, again, parse, keys).await {
            Ok(retried) => {
                tx.commit().await?;
                db.wake();
                return Ok(retried);
            }
            Err(error) if is_lost_race(&error) && attempt < MAX_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
        tx.rollback().await?;
    }
}

async fn retry_in(
    conn: &mut PgConnection,
    act: Act<'_>,
    run: RunId,
    again: &Again,
    parse: Parse,
    keys: &Keys,
) -> Result<Retried, Error> {
    let mut run = lock(conn, act, run).await?;
    let decode = |row: &RejectedRow| pb::MemberRow::decode(row.content.as_slice()).map_err(|e| sqlx::Error::Decode(e.into()));
    let (rows, none, next): (Vec<(RejectedRow, pb::MemberRow)>, _, _) = match again {
        Again::After(after) => {
            let (kept, more) = store::rejected_row::list(conn, &run, *after, ROWS).await?;
            let next = kept.last().map(|row| row.place).filter(|_| more);
            let rows = kept.into_iter().map(|row| decode(&row).map(|wire| (row, wire))).collect::<Result<_, _>>()?;
            (rows, Vec::new(), next)
        }
        Again::Corrected(corrections) => {
            check_once(corrections)?;
            let places: Vec<Place> = corrections.iter().map(|(place, _)| *place).collect();
            let (rows, none) = in_place_of(store::rejected_row::at(conn, &run, &places).await?, corrections);
            (rows, none, None)
        }
    };
    let parsed: Vec<_> = rows.iter().map(|(_, wire)| parse(wire.clone())).collect();
    let applied = apply_of(conn, act, &run, &parsed, keys).await?;
    let sent: Vec<pb::MemberRow> = rows.iter().map(|(_, wire)| wire.clone()).collect();
    let erased = suppress::of_erased(conn, act.programme, keys, &run.settings.source_system, &sent).await?;
    // Each kept row of a full run counts for as long as whose it is cannot be read.
    let full = run.settings.mode == Mode::Full;
    let unidentified = |external_id: &str| i64::from(full && !identifies(external_id));
    let (mut gone, mut stays, mut done) = (Vec::new(), Vec::new(), Vec::new());
    for ((applied, (before, wire)), erased) in applied.into_iter().zip(&rows).zip(&erased) {
        match &applied {
            // Of who was erased meanwhile nothing is kept.
            Applied::Rejected(_) if *erased => {
                gone.push(before.place);
                run.unseen.unidentified -= unidentified(&decode(before)?.external_id);
            }
            Applied::Rejected(violations) => {
                run.unseen.unidentified += unidentified(&wire.external_id) - unidentified(&decode(before)?.external_id);
                stays.push(RejectedRow { content: wire.encode_to_vec(), violations: violations.clone(), ..before.clone() });
            }
            Applied::Done { outcome, .. } => {
                run.counts.move_rejected(*outcome);
                gone.push(before.place);
                // It is somebody after all.
                run.unseen.unidentified -= unidentified(&decode(before)?.external_id);
            }
        }
        done.push((before.place, applied));
    }
    store::rejected_row::remove(conn, &run, &gone).await?;
    store::rejected_row::put_all(conn, &run, &stays).await?;
    if run.settings.mode == Mode::Full && run.end_time.is_none() {
        let told_of = sent.iter().zip(&erased).filter_map(|(row, erased)| (!erased).then_some(row.external_id.as_str()));
        let seen: Vec<&str> = told_of.filter(|id| identifies(id)).collect();
        store::sweep::mark(conn, &run, &seen).await?;
    }
    run.update_time = clock::now(conn).await?;
    store::sync_run::update(conn, &run).await?;
    Ok(Retried { rows: done, none, next })
}

/// Errors: ROW_REPEATED.
fn check_once(corrections: &[(Place, pb::MemberRow)]) -> Result<(), Vec<Violation>> {
    let (mut violations, mut seen) = (Violations::default(), HashSet::new());
    for (i, (place, _)) in corrections.iter().enumerate() {
        if !seen.insert(*place) {
            let rule = "must name a row that none before it names";
            violations.push(Violation::new(format!("corrections[{i}]"), "ROW_REPEATED", rule));
        }
    }
    violations.finish()
}

/// The corrections with the rows that they are for, and the places of those that are for none.
fn in_place_of(
    kept: Vec<RejectedRow>,
    corrections: &[(Place, pb::MemberRow)],
) -> (Vec<(RejectedRow, pb::MemberRow)>, Vec<Place>) {
    let mut kept: HashMap<Place, RejectedRow> = kept.into_iter().map(|row| (row.place, row)).collect();
    let (mut rows, mut none) = (Vec::with_capacity(corrections.len()), Vec::new());
    for (place, wire) in corrections {
        match kept.remove(place) {
            Some(before) => rows.push((before, wire.clone())),
            None => none.push(*place),
        }
    }
    (rows, none)
}
