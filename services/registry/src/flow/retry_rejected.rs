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
use std::collections::HashMap;

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
    /// Where to go on.
    pub next: Option<Place>,
}

/// How a row is read.
pub type Parse = fn(pb::MemberRow) -> Result<Row, Vec<Violation>>;

/// Applies rows again. Errors: RUN_NOT_FOUND; ROW_NOT_REJECTED.
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
    let mut kept = match again {
        Again::After(after) => store::rejected_row::list(conn, &run, *after, ROWS + 1).await?,
        Again::Corrected(corrections) => {
            let places: Vec<Place> = corrections.iter().map(|(place, _)| *place).collect();
            store::rejected_row::at(conn, &run, &places).await?
        }
    };
    let next = match again {
        Again::After(_) if kept.len() > ROWS as usize => {
            kept.truncate(ROWS as usize);
            kept.last().map(|row| row.place)
        }
        _ => None,
    };
    let decode = |row: &RejectedRow| pb::MemberRow::decode(row.content.as_slice()).map_err(|e| sqlx::Error::Decode(e.into()));
    let rows: Vec<(RejectedRow, pb::MemberRow)> = match again {
        Again::After(_) => kept.into_iter().map(|row| decode(&row).map(|wire| (row, wire))).collect::<Result<_, _>>()?,
        Again::Corrected(corrections) => in_place_of(kept, corrections)?,
    };
    let parsed: Vec<_> = rows.iter().map(|(_, wire)| parse(wire.clone())).collect();
    let applied = apply_of(conn, act, &run, &parsed, keys).await?;
    let sent: Vec<pb::MemberRow> = rows.iter().map(|(_, wire)| wire.clone()).collect();
    let erased = suppress::of_erased(conn, act.programme, keys, &run.settings.source_system, &sent).await?;
    let (mut gone, mut stays, mut done) = (Vec::new(), Vec::new(), Vec::new());
    for ((applied, (before, wire)), erased) in applied.into_iter().zip(&rows).zip(&erased) {
        match &applied {
            // Of who was erased meanwhile nothing is kept.
            Applied::Rejected(_) if *erased => gone.push(before.place),
            Applied::Rejected(violations) => {
                stays.push(RejectedRow { content: wire.encode_to_vec(), violations: violations.clone(), ..before.clone() });
            }
            Applied::Done { outcome, .. } => {
                run.counts.move_rejected(*outcome);
                gone.push(before.place);
                // It is somebody after all.
                if run.settings.mode == Mode::Full && !identifies(&decode(before)?.external_id) {
                    run.unseen.unidentified -= 1;
                }
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
    Ok(Retried { rows: done, next })
}

/// The corrections with the rows that they are for.
fn in_place_of(
    kept: Vec<RejectedRow>,
    corrections: &[(Place, pb::MemberRow)],
) -> Result<Vec<(RejectedRow, pb::MemberRow)>, Vec<Violation>> {
    let mut kept: HashMap<Place, RejectedRow> = kept.into_iter().map(|row| (row.place, row)).collect();
    let mut violations = Violations::default();
    let mut rows = Vec::with_capacity(corrections.len());
    for (i, (place, wire)) in corrections.iter().enumerate() {
        match kept.remove(place) {
            Some(before) => rows.push((before, wire.clone())),
            None => {
                let rule = "must name a row of the run that is kept as rejected, once";
                violations.push(Violation::new(format!("corrections[{i}]"), "ROW_NOT_REJECTED", rule));
            }
        }
    }
    violations.finish()?;
    Ok(rows)
}
